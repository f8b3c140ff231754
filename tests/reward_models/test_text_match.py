"""Text: equal after white space, a text command and accents are brought to one form."""

import pytest

from reward_models.text_match import ExactVerifier
from reward_models.verdict import Outcome


def judge(answer: str, reference: str, **options) -> Outcome:
    return ExactVerifier(**options).check(f"so \\boxed{{{answer}}}", reference).outcome


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("New York", "New York"),
        ("  New \n York ", "New York"),
        (r"\text{New York}", "New York"),
        ("New York", r"\text{ New  York }"),
        ("e\u0301cole", "\u00e9cole"),
        ("f(x) = {1}", "f(x) = {1}"),
    ],
)
def test_equal(answer: str, reference: str) -> None:
    assert judge(answer, reference) is Outcome.CORRECT


@pytest.mark.parametrize("answer", ["new york", "NewYork", "New York.", '"New York"', "New York City", "", "ecole"])
def test_everything_else_counts(answer: str) -> None:
    assert judge(answer, "New York") is Outcome.WRONG


def test_capitals_only_by_option() -> None:
    assert judge("STRASSE", "straße", ignore_case=True) is Outcome.CORRECT
    assert judge("STRASSE", "straße") is Outcome.WRONG
    assert judge("Strasso", "straße", ignore_case=True) is Outcome.WRONG


@pytest.mark.parametrize("reference", ["New York", "f(x) = {1}", " {1, 2}\n", r"\text{New York}"])
@pytest.mark.parametrize("extraction", ["boxed", "marked", "lenient", "whole"])
def test_the_gold_response_is_accepted(reference: str, extraction) -> None:
    verifier = ExactVerifier(extraction=extraction)
    response = verifier.gold_response(reference)
    assert response is not None
    assert verifier.check(response, reference).outcome is Outcome.CORRECT


@pytest.mark.parametrize("reference", ["{", "}", "a } b {", "so </think> then"])
def test_no_gold_response_where_it_would_be_read_as_another(reference: str) -> None:
    assert ExactVerifier().gold_response(reference) is None


@pytest.mark.parametrize("reference", ["", "  \n", r"\text{ }"])
def test_an_empty_reference_is_bad(reference: str) -> None:
    assert judge("x", reference) is Outcome.BAD_REFERENCE


def test_the_whole_response_by_option() -> None:
    verifier = ExactVerifier(extraction="whole")
    assert verifier.check("<think>is it Rome?</think>\n Paris \n", "Paris").outcome is Outcome.CORRECT
    assert verifier.check("It is Paris", "Paris").outcome is Outcome.WRONG
    assert verifier.check("<think>Paris</think> ", "Paris").outcome is Outcome.NO_ANSWER
    verdict = verifier.check("Paris", "Rome")
    assert (verdict.extracted, verdict.detail) == ("Paris", "whole response; compared as text")

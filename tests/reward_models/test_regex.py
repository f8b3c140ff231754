"""Regular expressions: one that finds the answer, or one that the answer must match."""

import pytest

from reward_models.errors import VerifierError
from reward_models.pool import VerifierPool
from reward_models.regex import MAX_PATTERN_CHARS, RegexVerifier
from reward_models.verdict import Outcome

GSM8K = RegexVerifier(pattern=r"#### (.+)")


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        ("so\n#### 72", Outcome.CORRECT),
        ("#### 71\nno:\n####   72  ", Outcome.CORRECT),
        ("#### 72\nno:\n#### 71", Outcome.WRONG),
        ("<think>#### 72</think>", Outcome.NO_ANSWER),
        ("72", Outcome.NO_ANSWER),
        ("#### \n", Outcome.NO_ANSWER),
        ("", Outcome.NO_ANSWER),
    ],
)
def test_the_last_match_is_the_answer(response: str, outcome: Outcome) -> None:
    assert GSM8K.check(response, "72").outcome is outcome


def test_matches_with_an_empty_group_do_not_count() -> None:
    assert RegexVerifier(pattern="(x*)").check("a xx b", "xx").outcome is Outcome.CORRECT
    assert RegexVerifier(pattern="a(x)?b").check("axb ab", "x").outcome is Outcome.CORRECT


def test_the_reference_as_the_pattern() -> None:
    verifier = RegexVerifier()
    assert verifier.check(r"\boxed{colour}", "colou?r").outcome is Outcome.CORRECT
    assert verifier.check(r"\boxed{the colour}", "colou?r").outcome is Outcome.WRONG
    assert verifier.check("colour", "colou?r").outcome is Outcome.NO_ANSWER
    assert RegexVerifier(extraction="whole").check("colour", "colou?r").outcome is Outcome.CORRECT


def test_capitals_only_by_option() -> None:
    for pattern, response in ((None, r"\boxed{Red}"), ("is (.+)", "it IS Red")):
        assert RegexVerifier(pattern=pattern, ignore_case=True).check(response, "red").outcome is Outcome.CORRECT
        assert RegexVerifier(pattern=pattern).check(response, "red").outcome is not Outcome.CORRECT


@pytest.mark.parametrize("reference", ["(", "[a", "", " ", "a{2,1}", "(?P<", "a" * (MAX_PATTERN_CHARS + 1), "*"])
def test_a_reference_that_is_no_pattern_is_bad(reference: str) -> None:
    verdict = RegexVerifier().check(r"\boxed{a}", reference)
    assert verdict.outcome is Outcome.BAD_REFERENCE
    assert "expected a regular expression" in verdict.detail


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pattern": "("}, "missing ), unterminated subpattern"),
        ({"pattern": "a+"}, "has 0 groups; expected exactly one"),
        ({"pattern": "(a)(b)"}, "has 2 groups"),
        ({"pattern": ""}, "it is empty"),
        ({"pattern": 3}, "pattern is 3"),
        ({"pattern": "(a)", "extraction": "boxed"}, "beside a pattern"),
        ({"extraction": "everywhere"}, "expected one of boxed"),
        ({"ignore_case": "yes"}, "expected True or False"),
    ],
)
def test_wrong_options(options: dict, says: str) -> None:
    with pytest.raises(VerifierError) as caught:
        RegexVerifier(**options)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reference", "expected"),
    [
        ({"pattern": r"#### (.+)"}, "72", "#### 72"),
        ({"pattern": r"answer: ([A-Z]) end"}, "C", "answer: C end"),
        ({"pattern": r"\bis (.+)"}, "72", None),
        ({"pattern": r"(?:a|(b))"}, "b", None),
        ({}, "red", r"\boxed{red}"),
        ({}, "colou?r", None),
        ({}, "(", r"\boxed{(}"),
    ],
)
def test_a_gold_response_is_written_only_where_it_is_sure(options: dict, reference: str, expected: str | None) -> None:
    assert RegexVerifier(**options).gold_response(reference) == expected


def test_a_pattern_without_end_is_killed_by_the_pool() -> None:
    poisoned = "\\boxed{" + "a" * 60 + "!}"
    with VerifierPool(RegexVerifier(), workers=1, timeout_s=1.0) as pool:
        verdicts = pool.check_many([poisoned, r"\boxed{aa}"], ["(a+)+b", "a+"])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.TIMEOUT, Outcome.CORRECT]

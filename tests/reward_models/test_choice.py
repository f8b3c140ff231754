"""Multiple choice: which letter is meant, and when none is."""

import pytest

from reward_models.choice import ChoiceVerifier
from reward_models.errors import VerifierError
from reward_models.verdict import Outcome


def judge(answer: str, reference: str = "C", **options) -> Outcome:
    return ChoiceVerifier(**options).check(f"so \\boxed{{{answer}}}", reference).outcome


@pytest.mark.parametrize(
    "answer",
    [
        "C",
        "c",
        "(C)",
        "(c)",
        "[C]",
        "C.",
        "C)",
        "C) 42",
        "C. Paris",
        "C: 42",
        "(C) 42",
        r"\text{C}",
        r"\text{(C)}",
        r"\textbf{(C) }42",
        r"\textbf{(C)}\ 42",
        r"\mathrm{C}",
        "$C$",
        "**C**",
        "option C",
        "Option (C)",
        "choice C",
        "answer: C",
        "The answer is C",
        "the correct answer is (C)",
        "option c",
        "the answer is c",
        "The correct option is c.",
        "Answer: c",
        "answer (c) 42",
        "C, C",
        "C) the area of A",
        "(C) see f(A) and P(B)",
        r"\left(C\right)",
        "c) e.g. 42",
        r"\boxed{C}",
        "C) both A and B",
    ],
)
def test_option_c(answer: str) -> None:
    assert judge(answer) is Outcome.CORRECT
    assert judge("C", answer) is Outcome.CORRECT
    assert judge("B", answer) is Outcome.WRONG


@pytest.mark.parametrize(
    "answer",
    [
        "A, C",
        "C, A",
        "A and C",
        "C or D",
        "(A) or (C)",
        "A/C",
        "A B C D",
        "C) 1 D) 2",
        "C. one D. two",
        "A) 1, B) 2, C) 3",
        "option C, or option A",
        "option c or option a",
        "option c, option a",
        "the answer is c or a",
        "The answer is C or A",
        "(C)(D)",
    ],
)
def test_several_different_options_are_wrong(answer: str) -> None:
    assert judge(answer) is Outcome.WRONG
    assert "names several options" in ChoiceVerifier().check(f"\\boxed{{{answer}}}", "C").detail
    assert ChoiceVerifier().check("\\boxed{C}", answer).outcome is Outcome.BAD_REFERENCE


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "42",
        "Paris",
        "K",
        "AC",
        "C1",
        "Cat",
        "A cat",
        "the answer is a cat",
        "answer: e.g. 42",
        "none",
        "f(C)",
        "C. " + "word " * 500,
    ],
)
def test_what_names_no_option(answer: str) -> None:
    assert judge(answer) is Outcome.WRONG
    assert ChoiceVerifier().check("\\boxed{C}", answer).outcome is Outcome.BAD_REFERENCE


def test_labels_by_option() -> None:
    assert judge("K", "K", labels="abcdefghijk") is Outcome.CORRECT
    assert judge("2) Paris", "2", labels="1234") is Outcome.CORRECT
    assert judge("2.5", "2", labels="1234") is Outcome.WRONG
    assert judge("E", "A", labels="ABCD") is Outcome.WRONG
    assert judge("A", "E", labels="ABCD") is Outcome.BAD_REFERENCE


@pytest.mark.parametrize("labels", ["", "A", "AA", "Aa", "A B", "ÄÖ", "A-", None, 3])
def test_labels_that_cannot_be(labels) -> None:
    with pytest.raises(VerifierError, match="labels is"):
        ChoiceVerifier(labels=labels)


def test_lenient_reads_the_last_line() -> None:
    lenient = ChoiceVerifier(extraction="lenient")
    assert lenient.check("A looks good.\nSo it must be option (B).\n", "B").outcome is Outcome.CORRECT
    assert lenient.check("B", "B").detail == "last line; compared as options"
    assert lenient.check("Answer: A\nnot option B", "A").outcome is Outcome.CORRECT
    assert lenient.check("A\nI do not know.", "A").outcome is Outcome.NO_ANSWER
    assert lenient.check("either (A)\nor (B), I think (C)", "C").outcome is Outcome.WRONG


def test_the_verdict_says_what_was_read_and_by_which_rule() -> None:
    verdict = ChoiceVerifier().check(r"\boxed{(d) 42}", "C")
    assert (verdict.extracted, verdict.detail) == ("D", "last box; compared as options")

"""Integers: exact at any size, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.integer import IntegerVerifier, integer_of
from reward_models.quantity import read_quantity
from reward_models.verdict import Outcome


def judge(answer: str, reference: str, **options) -> Outcome:
    return IntegerVerifier(**options).check(f"so \\boxed{{{answer}}}", reference).outcome


@pytest.mark.parametrize(
    "answer",
    [
        "1000",
        "01000",
        "+1000",
        "1,000",
        "1 000",
        r"1\,000",
        "1{,}000",
        "1_000",
        "1\u202f000",
        "1'000",
        "1000.",
        "1000.00",
        r"\$1000",
        "$1000$",
        r"\text{1000}",
        "n = 1000",
        "x_1=1000",
        " 1000 ",
    ],
)
def test_one_thousand(answer: str) -> None:
    assert judge(answer, "1000") is Outcome.CORRECT
    assert judge("1000", answer) is Outcome.CORRECT


@pytest.mark.parametrize("answer", ["-7", "−7", "- 7", "-007", "-7.0"])
def test_minus_seven(answer: str) -> None:
    assert judge(answer, "-7") is Outcome.CORRECT
    assert judge(answer, "7") is Outcome.WRONG


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "seven",
        "7.5",
        "14/2",
        "7%",
        "7e0",
        "7,00",
        "70,00",
        "1,000 000",
        "7 or 8",
        "7, 8",
        "--7",
        "٧",
        "x",
        "7!",
    ],
)
def test_what_is_no_integer_is_wrong_and_a_bad_reference(answer: str) -> None:
    assert judge(answer, "7") is Outcome.WRONG
    assert IntegerVerifier().check("\\boxed{7}", answer).outcome is Outcome.BAD_REFERENCE


def test_a_unit_on_one_side_is_ignored_and_two_must_agree() -> None:
    for answer in ("7 cm", r"7\text{ cm}", "$7", r"\$7.00", "7 apples", r"7^\circ"):
        assert judge(answer, "7") is Outcome.CORRECT
        assert judge("7", answer) is Outcome.CORRECT
        assert judge(answer, "8") is Outcome.WRONG
    assert judge("7 centimeters", "7 cm") is Outcome.CORRECT
    assert judge("7 m", "7 cm") is Outcome.WRONG
    assert judge("7 million", "7") is Outcome.WRONG


def test_neighbours_differ_at_any_size() -> None:
    long = "1" + "0" * 100_000
    assert judge(long, long) is Outcome.CORRECT
    assert judge(long + "0", long) is Outcome.WRONG
    assert judge(long[:-1] + "1", long) is Outcome.WRONG
    assert judge("-0", "0") is Outcome.CORRECT


@given(st.integers(-(10**40), 10**40))
def test_every_spelling_of_an_integer_is_that_integer(number: int) -> None:
    spellings = [str(number), f"{number:,}", f"{number:_}", f"{number:+}", f"{number:050d}"]
    assert {integer_of(read_quantity(text)) for text in spellings} == {str(number)}


def test_the_verdict_says_what_was_read_and_by_which_rule() -> None:
    verdict = IntegerVerifier(extraction="lenient").check("first 3, then 1,024", "1024")
    assert (verdict.extracted, verdict.detail) == ("1024", "last number; compared as integers")
    verdict = IntegerVerifier().check("\\boxed{7.5}", "7")
    assert (verdict.extracted, verdict.detail) == ("7.5", "last box; the answer is no integer")

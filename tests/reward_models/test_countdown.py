"""Countdown: every number once, the value exact, and the reason named."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models import CountdownProblem, CountdownVerifier, Outcome

REFERENCE = "numbers=3,5,2;target=16"


def judge(answer: str, reference: str = REFERENCE) -> tuple[Outcome, str]:
    verdict = CountdownVerifier().check(f"some tries\n\\boxed{{{answer}}}", reference)
    return verdict.outcome, verdict.detail


@pytest.mark.parametrize(
    "answer",
    [
        "(3+5)*2",
        "2*(5+3)",
        " ( 3 + 5 ) * 2 ",
        "(3+5)*2=16",
        "(3+5)*2 = 16",
        r"(3+5)\times 2",
        r"\left(3+5\right)\cdot 2",
        "(3+5)×2",
    ],
)
def test_correct(answer: str) -> None:
    assert judge(answer) == (Outcome.CORRECT, "value reached")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("3*5+2", "value: 17, must be 16"),
        ("3+5-2", "value: 6, must be 16"),
        ("(3-5)/2", "value: -1, must be 16"),
        ("3*5", "numbers: used [3, 5], must use each of [2, 3, 5] exactly once"),
        ("(3+5)*2*1", "numbers: used [1, 2, 3, 5]"),
        ("2*2*2*2", "numbers: used [2, 2, 2, 2]"),
        ("3*3+5+2", "numbers: used [2, 3, 3, 5]"),
        ("16", "numbers: used [16]"),
        ("(3+5)*2=17", "value: the answer says = 17, the expression is 16"),
        ("(3+5)*2=sixteen", "unreadable: 'sixteen' after '='"),
        ("", "unreadable: the answer is empty"),
        ("(3+5*2", "unreadable: not an arithmetic expression"),
        ("35 2", "unreadable: not an arithmetic expression"),
        ("2**5+3", "unreadable: BinOp is not allowed"),
        ("5//3*2", "unreadable: BinOp is not allowed"),
        ("-3+5*2", "unreadable: UnaryOp is not allowed"),
        ("3(5)+2", "unreadable: Call is not allowed"),
        ("__import__('os').getpid()", "unreadable: only digits"),
        ("3.0*5+2", "unreadable: only digits"),
        ("(" * 200 + "3" + ")" * 200, "unreadable: 401 characters"),
        ("(" * 140 + "3" + ")" * 140, "numbers: used [3]"),
        ("٣+5*2", "unreadable: only digits"),
    ],
)
def test_wrong_says_why(answer: str, reason: str) -> None:
    outcome, detail = judge(answer)
    assert outcome is Outcome.WRONG
    assert detail.startswith(reason)


def test_division_by_zero_is_wrong() -> None:
    assert judge("5/(3-3)", "numbers=5,3,3;target=5") == (Outcome.WRONG, "value: division by zero")


def test_fractions_are_exact() -> None:
    assert judge("8/(3-8/3)", "numbers=8,3,8,3;target=24")[0] is Outcome.CORRECT
    assert judge("1/3*3", "numbers=1,3,3;target=1")[0] is Outcome.CORRECT


def test_the_last_box_counts_and_thinking_does_not() -> None:
    verifier = CountdownVerifier()
    assert verifier.check(r"\boxed{3*5+2} no: \boxed{(3+5)*2}", REFERENCE).outcome is Outcome.CORRECT
    assert verifier.check(r"\boxed{(3+5)*2}</think> I give up", REFERENCE).outcome is Outcome.NO_ANSWER
    assert CountdownVerifier(thinking_end=None).check(r"\boxed{(3+5)*2}</think>", REFERENCE).outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", ["", "(3+5)*2", r"\boxed{(3+5)*2"])
def test_no_box_is_no_answer(response: str) -> None:
    assert CountdownVerifier().check(response, REFERENCE).outcome is Outcome.NO_ANSWER


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "16",
        "numbers=;target=16",
        "numbers=3,5;target=",
        "numbers=3, 5;target=16",
        "numbers=3,5,2;target=16 ",
        "numbers=3,5,2;target=16\n",
        "target=16;numbers=3,5",
        "numbers=3.5;target=1",
        "numbers=٣;target=3",
        "numbers=" + "1," * 30 + "1;target=1",
    ],
)
def test_a_reference_of_another_form_is_bad(reference: str) -> None:
    verdict = CountdownVerifier().check(r"\boxed{3}", reference)
    assert verdict.outcome is Outcome.BAD_REFERENCE
    assert "numbers=3,5,2;target=16" in verdict.detail


@given(st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=6), st.integers(-(10**9) + 1, 10**9 - 1))
def test_a_problem_survives_its_reference(numbers: list[int], target: int) -> None:
    problem = CountdownProblem(tuple(numbers), target)
    assert CountdownProblem.from_reference(problem.reference()) == problem


def test_agrees_with_enumeration() -> None:
    """All expressions a op b op c over three numbers, valued independently from left to right."""
    operations = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
    checked_count = 0
    for (a, b, c), first, second in itertools.product(itertools.permutations([4, 6, 9]), operations, operations):
        value = operations[second](operations[first](Fraction(a), Fraction(b)), Fraction(c))
        for target in (10, 19, 33):
            outcome, _ = judge(f"(({a}{first}{b}){second}{c})", f"numbers=9,4,6;target={target}")
            assert (outcome is Outcome.CORRECT) == (value == target)
            checked_count += value == target
    assert checked_count >= 5


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_makes_it_raise(answer: str, reference: str) -> None:
    assert CountdownVerifier().check(f"\\boxed{{{answer}}}", REFERENCE).outcome in {
        Outcome.WRONG,
        Outcome.NO_ANSWER,
        Outcome.CORRECT,
    }
    assert CountdownVerifier().check(answer, reference).outcome in Outcome

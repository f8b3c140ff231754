"""Numbers within a tolerance, and the traps of tolerances."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.errors import VerifierError
from reward_models.numeric import NumericVerifier
from reward_models.verdict import Outcome


def judge(answer: str, reference: str, **options) -> Outcome:
    return NumericVerifier(**options).check(f"so \\boxed{{{answer}}}", reference).outcome


@pytest.mark.parametrize(
    ("answer", "reference", "options"),
    [
        ("3.14159", "3.14159", {}),
        ("3.141593", "3.14159265", {}),
        ("0.3333333", r"\frac{1}{3}", {}),
        ("1/3", "0.3333333", {}),
        ("6.022e23", r"6.022 \times 10^{23}", {}),
        ("101.0", "100.0", {"rel_tol": 0.01}),
        ("99.0", "100.0", {"rel_tol": 0.01}),
        ("1.1", "1.0", {"rel_tol": 0, "abs_tol": 0.1}),
        ("0.0001", "0", {"abs_tol": 1e-3}),
        ("120000.0", "120000", {}),
        ("120001", "120000", {"abs_tol": 1}),
        ("50%", "0.5", {}),
        ("0.5", r"50\%", {}),
        ("50", "50%", {}),
        (r"\$1,234.50", "1234.5", {}),
        ("x = 2.50", "2.5", {}),
        ("2.5 kg", "2.50", {}),
        ("2.5", r"2.50\text{ kg}", {}),
        ("2.5 million", "2500000.0", {}),
        ("1e308", "1e308", {}),
        ("-2.51", "-2.5", {"rel_tol": 0.01}),
    ],
)
def test_equal(answer: str, reference: str, options: dict) -> None:
    assert judge(answer, reference, **options) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("answer", "reference", "options"),
    [
        ("3.1416", "3.14159265", {}),
        ("101.01", "100.0", {"rel_tol": 0.01}),
        ("1.1001", "1.0", {"rel_tol": 0, "abs_tol": 0.1}),
        # an integer is a count: no relative tolerance, however the answer is written
        ("120006", "120000", {"rel_tol": 1e-4}),
        ("120006.0", "120000", {"rel_tol": 1e-4}),
        ("120,000.1", "120,000", {"rel_tol": 1e-4}),
        ("6.9999999", "7", {}),
        ("0.0000001", "0", {}),
        # a percent sign is never supplied
        ("50", "0.5", {}),
        ("0.5", "50", {}),
        ("50.5%", "50.0%", {"abs_tol": 0.1}),
        ("-2.5", "2.5", {}),
        ("2.5 kg", "2.5 lb", {}),
        ("2.5 or 3", "2.5", {}),
        ("inf", "1e308", {"rel_tol": 0.9}),
        (r"\infty", "1.5", {"abs_tol": 1e300}),
        ("nan", "1.5", {"abs_tol": 1e300}),
        ("1e999", "1.5", {"abs_tol": 1e300}),
        ("1e99999", "1.5", {"abs_tol": 1e300}),
        ("1/0", "1.5", {"abs_tol": 1e300}),
        ("about 2", "2.0", {"abs_tol": 1e300}),
        ("", "2.0", {}),
    ],
)
def test_not_equal(answer: str, reference: str, options: dict) -> None:
    assert judge(answer, reference, **options) is Outcome.WRONG


@pytest.mark.parametrize("reference", ["", "nan", "inf", "-inf", r"\infty", "1/0", "x", "1e400", "two", "1" * 500])
def test_a_reference_that_is_no_finite_number_is_bad(reference: str) -> None:
    assert judge("2", reference, abs_tol=1e300) is Outcome.BAD_REFERENCE


@pytest.mark.parametrize(
    "options",
    [
        {"rel_tol": -1e-6},
        {"abs_tol": -1.0},
        {"abs_tol": float("inf")},
        {"rel_tol": float("nan")},
        {"rel_tol": 1.0},
        {"rel_tol": "0.1"},
        {"abs_tol": True},
    ],
)
def test_wrong_tolerances(options: dict) -> None:
    with pytest.raises(VerifierError, match=r"NumericVerifier (rel|abs)_tol is"):
        NumericVerifier(**options)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 9999))
def test_the_edge_of_the_tolerance_is_exact(whole: int, part: int, tolerance: int) -> None:
    """`tolerance` is in units of the last digit of the reference; the edge is in, the next number is out."""
    reference = whole * 10**6 + part

    def text(units: int) -> str:
        return f"{units // 10**6}.{units % 10**6:06d}"

    options = {"rel_tol": 0, "abs_tol": float(f"{tolerance}e-6")}
    assert judge(text(reference + tolerance), text(reference), **options) is Outcome.CORRECT
    assert judge(text(reference + tolerance + 1), text(reference), **options) is Outcome.WRONG


def test_the_verdict_says_what_was_read_and_by_which_rule() -> None:
    verdict = NumericVerifier().check("\\boxed{3.0}", "3.5")
    assert (verdict.extracted, verdict.detail) == ("3.0", "last box; compared as numbers, rel_tol=1e-06, abs_tol=0")
    verdict = NumericVerifier(abs_tol=1).check("\\boxed{3.0}", "5")
    assert verdict.detail == "last box; compared as numbers, the reference is an integer, abs_tol=1"

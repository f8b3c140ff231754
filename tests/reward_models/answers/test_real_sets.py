"""Intervals, unions, inequalities and finite sets are one thing."""

import pytest

from reward_models.answers.notation import normalise
from reward_models.answers.real_sets import as_real_set, same_real_set
from reward_models.answers.structures import read_shape


def same(first: str, second: str) -> bool:
    one, two = as_real_set(read_shape(normalise(first))), as_real_set(read_shape(normalise(second)))
    assert one is not None
    assert two is not None
    return same_real_set(one, two)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x<3", r"(-\infty,3)"),
        ("3>x", "x<3"),
        (r"x \ge 5", r"[5,\infty)"),
        ("-1 < x <= 2", "(-1,2]"),
        (r"2 \ge x > -1", "(-1,2]"),
        (r"x \in [1,2]", r"1 \le x \le 2"),
        (r"x \ne 3", r"(-\infty,3)\cup(3,\infty)"),
        (r"\mathbb{R} \setminus \{3\}", r"(3,\infty)\cup(-\infty,3)"),
        (r"\mathbb{R}", r"(-\infty,\infty)"),
        (r"(-\infty,0)\cup[0,\infty)", r"\mathbb{R}"),
        (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)"),
        ("x>1, x<3", "(1,3)"),
        (r"x > 1 \text{ and } x \ne 2", r"(1,2)\cup(2,\infty)"),
        (r"[0,5] \cap (3,9)", "(3,5]"),
        (r"\{x \mid x<3\}", r"(-\infty,3)"),
        (r"\{x \in \mathbb{R} : x<3\}", r"(-\infty,3)"),
        (r"\{1,2\}", r"\{2,1,1\}"),
        (r"\{-1\} \cup [0,7)", r"[0,7) \cup \{-1\}"),
        (r"\emptyset", r"x<1 \text{ and } x>2"),
        (r"[\frac12, \sqrt{4})", "[0.5,2)"),
        ("0<f(x)<1", "(0,1)"),
    ],
)
def test_same_set(first: str, second: str) -> None:
    assert same(first, second)
    assert same(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x<3", r"x \le 3"),
        ("x<3", "x>3"),
        ("x<3", "y<3"),
        ("(1,2)", "[1,2]"),
        (r"(1,2)\cup(2,3)", "(1,3)"),
        (r"x<1 \text{ or } x>3", "1<x<3"),
        (r"\emptyset", r"\mathbb{R}"),
        ("[2,3]", r"\{2,3\}"),
        ("(0,3.14)", r"(0,\pi)"),
    ],
)
def test_another_set(first: str, second: str) -> None:
    assert not same(first, second)
    assert not same(second, first)


@pytest.mark.parametrize("text", ["5", "(a,b)", "(2,1)", "(1,2,3)", "x+y<3", "2x<6", "x=5", "(1,1)"])
def test_what_is_no_set_of_numbers(text: str) -> None:
    assert as_real_set(read_shape(normalise(text))) is None

"""Reading expressions and comparing their values."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.answers.expressions import UnreadableError, read_expression, variables
from reward_models.answers.values import exact_value, proportional, real_number, same_value


def same(first: str, second: str) -> bool:
    digits = sum(character.isdigit() for character in first + second)
    return same_value(read_expression(first), read_expression(second), digits)


EQUAL = [
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("2^6 * 3^5 * 5^4", "2^6 3^5 5^4"),
    ("x^2-1", "(x-1)(x+1)"),
    ("1/2x", r"\frac{x}{2}"),
    ("2 1/2", r"\frac52"),
    (r"2\frac12", "2.5"),
    (r"\sec x", r"\frac1{\cos x}"),
    (r"\sin(90\degree-x)", r"\cos(x)"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\tan^{-1} x", r"\arctan x"),
    (r"\cos 36\degree", r"\frac{1+\sqrt5}{4}"),
    (r"\frac{\ln 3}{\ln 2}", r"\log_2 3"),
    (r"\log 100", "2"),
    ("i(2-i)", "1+2i"),
    (r"e^{i\pi}", "-1"),
    (r"\sqrt{-4}", "2i"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
    (r"\sqrt{x^2}", "|x|"),
    (r"\sqrt{a}\sqrt{b}", r"\sqrt{ab}"),
    ("2|x-1|", "|2-2x|"),
    (r"\binom{10}{3}", "120"),
    ("10!", "3628800"),
    ("n!", "n(n-1)!"),
    (r"\lfloor 3.7\rfloor", "3"),
    (r"\gcd(12,18)", "6"),
    ("(x+y+z+w)^{60}", "(x+y+z+w)^{59}(w+x+y+z)"),
    ("ab^2", "b^2a"),
    ("x_{1}", "x_1"),
    ("x1", "x_1"),
    ("sqrt(3)/2", r"\frac{\sqrt3}{2}"),
    ("2pi", r"2\pi"),
    ("2 pi", r"2\pi"),
    ("50%", "0.5"),
    ("10^100 + 1", "1 + 10^{100}"),
    (r"2^{n+1}-2", "2(2^n-1)"),
]

DIFFERENT = [
    (r"\pi", "3." + "14159265358979323846264338327950288"),
    (r"\pi", "3.14"),
    (r"\frac{\sqrt3}{2}", "0.8660254037844386"),
    ("1/3", "0.3333333333333333"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    ("2^{9999}", "2^{9999}+1"),
    (r"\sqrt{10^{100}+1}-10^{50}", "0"),
    (r"\pi 10^{-300}", r"2\pi 10^{-300}"),
    ("10^{100}", "10^{100}+1"),
    (r"\sqrt{1+10^{-60}}", "1"),
    (r"\sqrt{1+(10^{-40})^2}", "1"),
    (r"\sqrt{x^2}", "x"),
    ("x", "X"),
    ("x_1", "x_2"),
    ("2x", "x_2"),
    (r"\ln x", r"\log x"),
    (r"\sin x", r"\cos x"),
    ("i", "-i"),
    ("1/0", "1/0+1"),
    ("(x+y+z+w)^{60}", "(x+y+z+w)^{59}(x+y+z+w+1)"),
    (r"\tan\frac{\pi}{2}", "1"),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_same_value(first: str, second: str) -> None:
    assert same(first, second)
    assert same(second, first)
    assert same(first, first)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_another_value(first: str, second: str) -> None:
    assert not same(first, second)
    assert not same(second, first)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 1",
        "cats",
        "5+",
        "(5",
        "5)",
        "x = 5",
        "1,2",
        r"\frac{1}",
        r"\sum_{i=1}^n i",
        r"5 \text{ cats}",
        "2^",
        "|x",
    ],
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_expression(text)


@pytest.mark.parametrize("text", ["(" * 1000 + "1" + ")" * 1000, r"\sin" * 1000 + " x", "2^" * 1000 + "2"])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(UnreadableError, match="deep"):
        read_expression(text)


def test_signs_in_a_row_are_no_depth() -> None:
    assert exact_value(read_expression("-" * 10_000 + "1")) == 1


def test_variables_and_values() -> None:
    assert variables(read_expression(r"2ab_1 + \theta - \pi e")) == {"a", "b_1", "theta"}
    assert exact_value(read_expression(r"2\frac13 + 0.5")) == Fraction(17, 6)
    assert exact_value(read_expression(r"\sqrt{2}")) is None
    assert real_number(read_expression(r"\sqrt{-2}")) is None
    assert real_number(read_expression("x")) is None


def test_proportional() -> None:
    def is_multiple(first: str, second: str, *, positive: bool = False) -> bool:
        return proportional(read_expression(first), read_expression(second), positive=positive)

    assert is_multiple("5x-7y+4", "14y-10x-8")
    assert not is_multiple("5x-7y+4", "14y-10x-8", positive=True)
    assert is_multiple("5x-7y", "10x-14y", positive=True)
    assert not is_multiple("x-5", "y-5")
    assert not is_multiple("x-5", "x-6")
    assert not is_multiple("x-5", "(x-5)x")


@pytest.mark.parametrize("text", ["9999^{9999}", "x^{9999}", "(x^{9999})^{9999}", "999!", "10^{-9999}", "e^{9999x}"])
def test_large_values_cost_little(text: str) -> None:
    """No verdict on time: the work is bounded by limits on digits, and a loop without them would not end at all."""
    start = time.process_time()
    same(text, f"{text}+1")
    assert time.process_time() - start < 20


LEAVES = st.sampled_from(["x", "y", "2", "3", "0.5", r"\pi", r"\frac{1}{3}", r"\sqrt{2}"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}+{pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}-{pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]})({pair[1]})"),
        st.tuples(inner, st.integers(1, 3)).map(lambda pair: f"({pair[0]})^{{{pair[1]}}}"),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(TREES, TREES)
def test_laws_of_arithmetic(first: str, second: str) -> None:
    assert same(f"{first}+{second}", f"{second}+{first}")
    assert same(f"({first})({second})", rf"{second}\cdot {first}")
    assert same(f"({first}+{second})^2", f"({first})^2+2({first})({second})+({second})^2")
    assert not same(first, f"{first}+1")

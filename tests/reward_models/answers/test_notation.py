"""Ways to write a thing become one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.notation import normalise, text_key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\text{Tuesday}", "tuesday"),
        ("Evelyn", "Evelyn."),
        (r"\dfrac{\pi}{3}", r"\frac{\pi}{3}"),
        ("$x+1$", "x + 1"),
        (r"\( x+1 \)", "x+1"),
        (r"\[ x+1 \]", "x+1"),
        (r"\boxed{x+1}", "x+1"),
        ("**x+1**", "x+1"),
        ('"x+1"', "x+1"),
        ("2√3", r"2\sqrt{3}"),
        ("x²", "x^{2}"),
        ("x ≤ 3", r"x \leq 3"),
        ("π", r"\pi"),
        (r"30^\circ", "30°"),
        (r"30^{\circ}", r"30\degree"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\mathbf{v}", "v"),
        (r"\mathbb R", "ℝ"),
        (r"50\%", "50%"),
        (r"x \equiv 3 \pmod{5}", r"x \equiv 3 \pmod 5"),
    ],
)
def test_one_notation(first: str, second: str) -> None:
    assert text_key(normalise(first)) == text_key(normalise(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x", "X"),
        ("1 1", "11"),
        ("4:30p..", "4:30p."),
        ("x^{1}2", "x^12"),
        (r"\$5", "5"),
        (r"5\text{ cm}", "5"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 2 \end{pmatrix}"),
        ("1,2", "12"),
        ("-5", "5"),
    ],
)
def test_meanings_are_kept_apart(first: str, second: str) -> None:
    assert text_key(normalise(first)) != text_key(normalise(second))


@given(st.text(max_size=40))
def test_no_text_makes_it_raise(text: str) -> None:
    assert text_key(normalise(text)) == text_key(normalise(text))

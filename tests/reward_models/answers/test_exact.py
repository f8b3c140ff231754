"""Equality without algebra."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.exact import is_words, normalise, read_number, same_number, same_text


def number(answer: str) -> Fraction | None:
    found = read_number(normalise(answer))
    return None if found is None else found.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", Fraction(5)),
        ("-5", Fraction(-5)),
        ("+5", Fraction(5)),
        ("−5", Fraction(-5)),
        ("005", Fraction(5)),
        ("1,000", Fraction(1000)),
        ("1{,}000{,}000", Fraction(1000000)),
        (r"32,\! 349", Fraction(32349)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("1,234.50", Fraction(2469, 2)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\tfrac12", Fraction(1, 2)),
        (r"\frac 43", Fraction(4, 3)),
        (r"\frac9{20}", Fraction(9, 20)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        ("1 1/2", Fraction(3, 2)),
        (r"6\frac15", Fraction(31, 5)),
        (r"-2\frac{5}{8}", Fraction(-21, 8)),
        (r"2.5 \times 10^{-3}", Fraction(1, 400)),
        (r"3 \cdot 10^4", Fraction(30000)),
        ("1e-9", Fraction(1, 10**9)),
        (r"\$5.00", Fraction(5)),
        ("$5$", Fraction(5)),
        (r"90^\circ", Fraction(90)),
        (r"90^{\circ}", Fraction(90)),
        (r"\text{12}", Fraction(12)),
        ("12.", Fraction(12)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert number(text) == value


NO_NUMBERS = """- . x 5x 1,00 1,0000 1.2.3 1/0 \\frac{1}{0} 1e999 1e99999 5! 2^3 ٣ ½ 0x10 1_000 nan inf 4:30 1,-2"""


@pytest.mark.parametrize("text", [*NO_NUMBERS.split(), "", "1 2", "5 cups", "1" * 401 + ".5"])
def test_what_is_no_plain_number_is_left_alone(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("reference", "answer", "equal"),
    [
        ("25", r"25\%", True),
        (r"25\%", "0.25", True),
        ("0.25", r"25\%", True),
        (r"25\%", r"25\%", True),
        (r"25\%", r"0.25\%", False),
        ("50", "0.5", False),
        ("50", "5000", False),
        ("100", "1", False),
        ("0", "1e-9", False),
        ("0", "-0.0", True),
        ("-0", "0", True),
        ("1/3", "0.3333", False),
        ("11/2", "1 1/2", False),
        ("x=5", "5", True),
        ("5", "x = 5", True),
        ("x=5", "y=5", False),
        ("x=5", "x=6", False),
        ("5", "y = 2x+5 = 5", None),
        ("5", "cat", None),
    ],
)
def test_same_number(reference: str, answer: str, equal: bool | None) -> None:
    assert same_number(normalise(reference), normalise(answer)) is equal


def test_integers_of_any_size() -> None:
    big = "1234567890" * 100_000
    assert same_number(big, "+0" + big) is True
    assert same_number(big, big[:-1] + "1") is False
    assert same_number(big, "-" + big) is False


@given(st.integers(), st.integers(1, 10**6))
def test_a_fraction_equals_its_latex(above: int, below: int) -> None:
    plain, latex = f"{above}/{below}", rf"{'-' if above < 0 else ''}\frac{{{abs(above)}}}{{{below}}}"
    assert same_number(normalise(plain), normalise(latex)) is True
    assert same_number(normalise(plain), normalise(f"{above + 1}/{below}")) is False


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_change_nothing(value: int) -> None:
    assert same_number(normalise(str(value)), normalise(f"{value:,}")) is True
    assert same_number(normalise(str(value)), normalise(f"{value:,}.0")) is True


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (r"\left( 1, 2 \right)", "(1,2)", True),
        (r"\text{Tuesday}", "tuesday", True),
        ("Evelyn", "Evelyn.", True),
        (r"\dfrac{\pi}{3}", r"\frac{\pi}{3}", True),
        (r"x\,y", "xy", True),
        ("x", "X", False),
        ("1 1", "11", False),
        ("4:30p..", "4:30p.", False),
    ],
)
def test_same_text(first: str, second: str, equal: bool) -> None:
    assert same_text(normalise(first), normalise(second)) is equal


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (r"\text{Tuesday}", True),
        ("Evelyn", True),
        (r"\text{VW}", True),
        ("abc", False),
        (r"\text{C}", False),
        (r"x \text{ cm}", False),
    ],
)
def test_words(answer: str, words: bool) -> None:
    assert is_words(answer) is words


@given(st.text())
def test_normalising_again_changes_nothing_that_counts(text: str) -> None:
    assert same_text(normalise(text), normalise(text))
    assert same_number(normalise(text), normalise(text)) in {True, None}

"""Plain numbers, numerals with a base, times of day."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.answers.notation import normalise
from reward_models.answers.numbers import (
    Numeral,
    integer_digits,
    read_clock,
    read_number,
    read_numeral,
    same_clock,
)


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
        (r"9\,500", Fraction(9500)),
        ("9 500", Fraction(9500)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("1,234.50", Fraction(2469, 2)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\tfrac12", Fraction(1, 2)),
        (r"\frac 43", Fraction(4, 3)),
        (r"\frac9{20}", Fraction(9, 20)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        ("1 1/2", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        (r"6\frac15", Fraction(31, 5)),
        (r"-2\frac{5}{8}", Fraction(-21, 8)),
        (r"2.5 \times 10^{-3}", Fraction(1, 400)),
        (r"3 \cdot 10^4", Fraction(30000)),
        ("3×10⁴", Fraction(30000)),
        ("1e-9", Fraction(1, 10**9)),
        ("$5$", Fraction(5)),
        (r"\text{12}", Fraction(12)),
        ("12.", Fraction(12)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert read_number(normalise(text)) == value


NO_NUMBERS = r"- . x 5x 1,00 1,0000 1.2.3 1/0 \frac{1}{0} 1e999 1e99999 5! 2^3 ٣ 0x10 1_000 nan inf 4:30 1,-2"


@pytest.mark.parametrize("text", [*NO_NUMBERS.split(), "", "1 2", "5 cups", "1" * 401 + ".5", r"6\frac{7}{5}"])
def test_what_is_no_plain_number_is_left_alone(text: str) -> None:
    assert read_number(normalise(text)) is None


def test_integers_of_any_size() -> None:
    big = "1234567890" * 100_000
    assert integer_digits("+0" + big) == big
    assert integer_digits("-" + big) == "-" + big
    assert integer_digits("-000") == "0"
    assert integer_digits("1,234") == "1234"
    assert integer_digits("1,23") is None


@given(st.integers(), st.integers(1, 10**6))
def test_a_fraction_equals_its_latex(above: int, below: int) -> None:
    latex = rf"{'-' if above < 0 else ''}\frac{{{abs(above)}}}{{{below}}}"
    assert read_number(normalise(f"{above}/{below}")) == read_number(normalise(latex)) == Fraction(above, below)


@given(st.integers(-(10**12), 10**12))
def test_thousands_marks_change_nothing(value: int) -> None:
    for written in (f"{value:,}", f"{value:,}".replace(",", " "), f"{value:,}.0", f"{value:,}".replace(",", r"{,}")):
        assert read_number(normalise(written)) == value


@pytest.mark.parametrize(
    ("text", "numeral"),
    [
        ("2516_8", Numeral("2516", 8)),
        ("2516_{8}", Numeral("2516", 8)),
        (r"2516_{\text{eight}}", Numeral("2516", 8)),
        ("2516 base 8", Numeral("2516", 8)),
        ("0101_2", Numeral("101", 2)),
        ("AB5_{16}", Numeral("AB5", 16)),
        ("2519_8", None),
        ("2516", None),
        ("11_1", None),
        ("x_2", None),
    ],
)
def test_numerals(text: str, numeral: Numeral | None) -> None:
    assert read_numeral(normalise(text)) == numeral


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("20:34", r"08:34 \text{P.M.}", True),
        ("8:34", "8:34 pm", True),
        ("8:34", "8:34 a.m.", True),
        ("8:34 am", "8:34 pm", False),
        ("8:34", "20:34", False),
        ("08:34", "8:34 pm", False),
        ("12:00 a.m.", "0:00", True),
        ("12:30 pm", "12:30", True),
        ("4 p.m.", "4:00 PM", True),
    ],
)
def test_times_of_day(first: str, second: str, equal: bool) -> None:
    one, two = read_clock(normalise(first)), read_clock(normalise(second))
    assert one is not None
    assert two is not None
    assert same_clock(one, two) is same_clock(two, one) is equal


@pytest.mark.parametrize("text", ["20:64", "25:00", "13:00 pm", "3:4", "4", "1:2:3"])
def test_what_is_no_time(text: str) -> None:
    assert read_clock(text) is None

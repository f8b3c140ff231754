"""Amounts and units."""

from fractions import Fraction

import pytest

from reward_models.answers.notation import normalise
from reward_models.answers.units import Measured, canonical, same_unit, split_unit


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("1152 cups", "1152", "cup"),
        (r"6\text{ cm}", "6", "cm"),
        (r"6 \mathrm{cm}^2", "6", "cm^2"),
        ("10weeks", "10", "wk"),
        (r"\$5", "5", "$"),
        ("5 dollars", "5", "$"),
        ("£5", "5", "£"),
        (r"-\$5", "-5", "$"),
        ("$1.50/hour", "1.50", "$ / h"),
        ("36 square feet", "36", "ft^2"),
        (r"36 \text{ ft}^2", "36", "ft^2"),
        ("120 km/h", "120", "km / h"),
        ("5 m/s", "5", "m / s"),
        (r"52^\circ", "52", "deg"),
        ("-5°C", "-5", "deg C"),
        (r"5\sqrt{2} \text{ cm}", r"5\sqrt{2}", "cm"),
        ("3/4 of an hour", "3/4", "h"),
    ],
)
def test_units_are_taken_off(text: str, amount: str, unit: str) -> None:
    assert split_unit(normalise(text))[:2] == (amount, unit)


@pytest.mark.parametrize(
    "text",
    ["5", "5ab", "5x", "6 n", "5 or 6", "x", "cups", "5 if x is odd", "2 pi", r"\sin 30^\circ"],
)
def test_what_is_no_unit_stays(text: str) -> None:
    normalised = normalise(text)
    assert split_unit(normalised) == Measured(normalised, "")


def test_large_numbers_in_words_multiply() -> None:
    assert split_unit("5 million dollars") == Measured("5", "$", Fraction(10**6))
    assert split_unit("5 dozen") == Measured("5", "dozen")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("cm", "centimeters", True),
        (r"\text{ square units}", r"\text{units}^2", True),
        ("feet", "ft", True),
        ("hours", "hr", True),
        ("cm", "m", False),
        ("cm", r"\text{cm}^2", False),
        ("dollars", "cents", False),
        ("apples", "pears", False),
    ],
)
def test_units_are_spelled_in_one_way(first: str, second: str, same: bool) -> None:
    assert same_unit(canonical(first), canonical(second)) is same

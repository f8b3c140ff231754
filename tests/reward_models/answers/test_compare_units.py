"""What stands behind a number: a unit, or something that makes it another number."""

import pytest

from reward_models.answers.compare import same_answer
from reward_models.answers.plain_answers import read_integer

NO_UNIT = r"""
8 || 8\mathrm{i}
8 || 8\text{i}
2 || 2\mathrm{e}
8 || 8\text{x}
3 || 3 fifths
3 || 3 quarters
3 || 3 tenths
3 || 3 hundredths
3 || 3 hundreds
3 || 3 thousands
3 || 3 millions
7 || 7 mil
8 || 8\text{ tens}
5 || 5 lakh
0.3 || 0.3 repeating
0.3 || 0.3 \text{ (repeating)}
8 || 8 negative
8 || 8 degrees below zero
12 || 12 feet six inches
\frac{1}{2} || \frac{1}{2} abc
(x+1) || (x+1) abc
7\sqrt{2} || 7\sqrt{2} abc
7\sqrt{2} || 7\sqrt{2} apples
2^{3} || 2^{3} xyz
7 || 7wxyz
7 || 7 xyz
7 || 7 a
5 abc || 5
5 cm || 5 \frac{\text{cm}}{\text{s}}
"""
UNIT = r"""
8 || 8 m^3
8\sqrt{2} || 8\sqrt{2}(\text{cm}^2)
8\sqrt{2} || 8\sqrt{2} cm
8 || 8\left(\mathrm{cm}^{2}\right)
16 || 16\ \frac{\text{m}}{\text{s}}
5 || 5 kg/m^3
5 m/s || 5 \text{ meters per second}
5 || 5 eggs
5 || 5 per cent
1/2 || \frac{1}{2} \text{ abc}
"""


def pairs(table: str) -> list[list[str]]:
    return [line.split(" || ") for line in table.strip().splitlines()]


@pytest.mark.parametrize(("first", "second"), pairs(NO_UNIT))
def test_it_makes_another_number(first: str, second: str) -> None:
    assert not same_answer(first, second).equal
    assert not same_answer(second, first).equal


@pytest.mark.parametrize(("first", "second"), pairs(UNIT))
def test_it_is_a_unit(first: str, second: str) -> None:
    assert same_answer(first, second).equal
    assert same_answer(second, first).equal


@pytest.mark.parametrize("text", [r"42\text{i}", "42 abc", "42 fifths", "42 million"])
def test_an_integer_with_such_a_word_is_none(text: str) -> None:
    assert read_integer(text) is None

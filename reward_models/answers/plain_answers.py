r"""Answers without parts: numbers with what stands beside them, numerals, times of day, words, sentences.

Nothing here computes more than a fraction. Policies:

- A percent sign is a unit or a factor of 1/100, whichever the other side needs: 40 and 0.4 both equal `40\%`. Nothing
  is multiplied by 100 without a sign that says so. Each item of a list is read by itself.
- Those of `numbers`, `units` and `words`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reward_models.answers.limits import refusal
from reward_models.answers.notation import normalise, text_key, visible
from reward_models.answers.number_words import in_digits
from reward_models.answers.numbers import integer_digits, read_clock, read_number, read_numeral, same_clock
from reward_models.answers.sentences import stated_number
from reward_models.answers.structures import Named, Scalar, read_shape, split_top
from reward_models.answers.units import same_unit, split_unit
from reward_models.answers.words import choice_with_content, means_set, plain, words_of

# Longer texts are compared as they stand; no rule needs to look into them.
MAX_READ_CHARS = 2000
_JOINTS = frozenset({",", "and", "or"})
# `11:21` may be a ratio, `1:03` and `1:21 p.m.` are none.
_LEADING_ZERO = re.compile(r":0[0-9]")
_IN_BRACKETS = re.compile(r"[({]\s*([+-]?[0-9][0-9,.]*)\s*[)}]")
_NO_FRACTION = re.compile(r"\.0+$")
_PERCENT_WORDS = ("percent", "per cent")


class Decision(NamedTuple):
    """Whether two answers are equal, and the rule that decided."""

    equal: bool
    rule: str


class Quantity(NamedTuple):
    """An exact number with what stands beside it; a percent sign is not in `value`."""

    value: Fraction
    percent: bool
    unit: str


def read_quantity(text: str) -> Quantity | None:
    """Read a normalised text as one exact number with percent sign or unit, or return None."""
    bare = _without_percent_word(text)
    amount, unit, factor = split_unit(text if bare is None else bare)
    value = read_number(amount.removesuffix("%").rstrip())
    return None if value is None else Quantity(value * factor, bare is not None or amount.endswith("%"), unit)


def decide_plainly(first: str, second: str) -> Decision | None:
    """Compare two normalised answers as text, numbers, numerals or times of day; None if they are none of these."""
    keys = text_key(first), text_key(second)
    if keys[0] == keys[1]:
        return Decision(True, "equal as text")
    numbers = read_quantity(first), read_quantity(second)
    if numbers[0] is not None and numbers[1] is not None:
        return Decision(same_quantity(numbers[0], numbers[1]), "compared as numbers")
    return _as_numerals(first, second) or _as_clocks(first, second)


def same_quantity(first: Quantity, second: Quantity) -> bool:
    """Compare value, unit and percent sign by the policies above."""
    if not same_unit(first.unit, second.unit):
        return False
    if first.percent == second.percent:
        return first.value == second.value
    with_sign, without = (first, second) if first.percent else (second, first)
    return not without.unit and without.value in {with_sign.value, with_sign.value / 100}


def _without_percent_word(amount: str) -> str | None:
    low = plain(amount) if "\\text" in amount else amount
    for word in _PERCENT_WORDS:
        if low.lower().endswith(word):
            return low[: -len(word)].rstrip()
    return None


def _as_numerals(first: str, second: str) -> Decision | None:
    numerals = read_numeral(first), read_numeral(second)
    if numerals[0] is None and numerals[1] is None:
        return None
    if numerals[0] is not None and numerals[1] is not None:
        return Decision(numerals[0] == numerals[1], "compared as numerals")
    numeral = numerals[0] or numerals[1]
    other = read_quantity(second if numerals[0] is not None else first)
    if numeral is None or other is None:
        return None
    return Decision(numeral.base == 10 and other.value == int(numeral.digits), "compared as numerals")


def _as_clocks(first: str, second: str) -> Decision | None:
    clocks = read_clock(first), read_clock(second)
    if clocks[0] is not None and clocks[1] is not None:
        return Decision(same_clock(clocks[0], clocks[1]), "compared as times of day")
    for clock, text in zip(clocks, (first, second), strict=True):
        if clock is not None and ":" in text and (clock.marked or _LEADING_ZERO.search(text)):
            return Decision(False, "a time of day is no other number")
    return None


def decide_by_words(first: str, second: str) -> Decision | None:
    """Compare as words if one side is words, or as numbers if it is a number in words; else None."""
    digits = in_digits(plain(first)), in_digits(plain(second))
    if digits[0] is not None or digits[1] is not None:
        quantities = read_quantity(digits[0] or first), read_quantity(digits[1] or second)
        if quantities[0] is not None and quantities[1] is not None:
            return Decision(same_quantity(quantities[0], quantities[1]), "compared as numbers")
    words = words_of(first), words_of(second)
    if words[0] is None and words[1] is None:
        return None
    if words[0] is not None and words[1] is not None and words[0] == words[1]:
        return Decision(True, "compared as words")
    if means_set(first) or means_set(second):
        return None
    if all(len(split_top(plain(text), _JOINTS)[0]) > 1 for text in (first, second)):
        return None
    return Decision(_spelled(first) == _spelled(second), "compared as words")


def _spelled(text: str) -> str:
    return "".join(character for character in plain(text).lower() if character.isalnum())


def decide_by_sentence(first: str, second: str) -> Decision | None:
    """Compare a number with a sentence that states one; None if there is no such sentence."""
    for one, other in ((first, second), (second, first)):
        stated = stated_number(other)
        if stated is None:
            continue
        number, found = read_quantity(one), read_quantity(normalise(stated))
        if number is not None and found is not None:
            return Decision(same_quantity(number, found), "compared with the number a sentence states")
    return None


def read_integer(answer: str) -> str | None:
    r"""The canonical digits of an answer that is one integer: `080`, `80.`, `m + n = 80`, `(80)`, `80.00`."""
    digits = integer_digits(visible(answer).strip())
    if digits is not None or len(answer) > MAX_READ_CHARS:
        return digits
    text = plain(normalise(answer))
    lettered = choice_with_content(text)
    text = text if lettered is None else lettered[1]
    if refusal(text) is None:
        text = _value_of_named(text)
    in_brackets = _IN_BRACKETS.fullmatch(text)
    text = text if in_brackets is None else in_brackets[1]
    numeral = read_numeral(text)
    if numeral is not None:
        return integer_digits(numeral.digits) if numeral.base == 10 else None
    amount, _, factor = split_unit(text)
    return integer_digits(_NO_FRACTION.sub("", amount)) if factor == 1 else None


def _value_of_named(text: str) -> str:
    try:
        shape = read_shape(text)
    except RecursionError:  # the caller may have used up most of the stack
        return text
    value = shape.value if isinstance(shape, Named) else shape
    return value.text if isinstance(value, Scalar) else text


def same_integer(reference: str, answer: str) -> Decision:
    """Compare as integers alone; an answer that is anything else is wrong."""
    expected, found = read_integer(reference), read_integer(answer)
    if found is None:
        return Decision(False, "the answer is no integer")
    return Decision(expected == found, "compared as integers")

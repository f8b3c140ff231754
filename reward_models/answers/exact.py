r"""Answers that can be compared without algebra: as text, or as exact numbers.

Numbers are integers of any size, decimals, fractions, mixed numbers and scientific notation, with thousands
separators, as plain text or LaTeX. A percent sign is read as a unit or as a factor of 1/100, whichever
the other side needs; nothing is ever multiplied by 100 without a sign that says so.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

# Above, integers are compared digit by digit and other numbers not at all: arithmetic on them costs too much.
MAX_ARITHMETIC_DIGITS = 400
# Scientific notation beyond the range of a float is no answer to a problem, and 10**exponent must be built.
MAX_EXPONENT = 308

_SPACING = re.compile(r"\\[,;:!]|\\ |\\q?quad(?![a-zA-Z])|~")
_DELIMITERS = re.compile(r"\\(?:left|right|displaystyle|big|Big|bigl|bigr)(?![a-zA-Z])")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|mathit|operatorname)\s*\{([^{}]*)\}")
_FRACTION_COMMAND = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
# White space between two digits may part a whole number from its fraction: `1 1/2`.
_LOOSE_SPACE = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])")
_REPLACEMENTS = (
    ("\\$", ""),
    ("$", ""),
    ("\\(", ""),
    ("\\)", ""),
    ("\\%", "%"),
    ("{,}", ","),
    ("−", "-"),
    ("–", "-"),
    ("\\cdot10^", "\\times10^"),
    ("×10^", "\\times10^"),
)

_INT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_INTEGER = re.compile(rf"(?P<sign>[+-]?)(?P<digits>{_INT})")
_DECIMAL = re.compile(
    rf"(?P<sign>[+-]?)(?P<whole>{_INT})?(?:\.(?P<part>[0-9]*))?"
    r"(?:(?:[eE]|\\times10\^)\{?(?P<exponent>[+-]?[0-9]{1,4})\}?)?"
)
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<whole>[0-9]+)\s*(?=\\frac|\s[0-9]))?\s*"
    r"(?:\\frac\s*(?:\{(?P<a>[+-]?[0-9]+)\}|(?P<a1>[0-9]))\s*(?:\{(?P<b>[0-9]+)\}|(?P<b1>[0-9]))"
    r"|(?P<a2>[0-9]+)/(?P<b2>[0-9]+))"
)
_NAMED = re.compile(r"(?P<name>[A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?)=(?P<value>[^=]+)")
_DEGREES = re.compile(r"(?:\^\{?\\circ\}?|°)$")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
# Algebra would read a word as a product of letters, equal to every anagram of it. `abc` may be a product.
_WORDS = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{\s*[A-Za-z]{2}[A-Za-z ,.'-]*\}|[A-Za-z]{4,}[A-Za-z ,.'-]*"
)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


class Number(NamedTuple):
    """An exact number; `percent` if it was written with a percent sign, which is not in `value`."""

    value: Fraction
    percent: bool


def visible(answer: str) -> str:
    """Drop characters without width, which copying from web pages leaves behind."""
    return answer.translate(_INVISIBLE)


def is_words(answer: str) -> bool:
    """True if an answer is a word or a phrase, which no algebra should see."""
    return bool(_WORDS.fullmatch(answer.strip().rstrip(".").strip("$")))


def normalise(answer: str) -> str:
    """Remove what changes the look of an answer and not its meaning; the result is for comparison only."""
    text = _SPACING.sub("", answer.strip())
    text = _DELIMITERS.sub("", text)
    text = _TEXT_COMMAND.sub(r"\1", text)
    text = _FRACTION_COMMAND.sub(r"\\frac", text)
    text = _LOOSE_SPACE.sub("", text)
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    return text.rstrip(".") if not text.endswith("..") else text


def same_text(reference: str, answer: str) -> bool:
    """Compare two normalised answers; capitals count, except in words."""
    if reference == answer:
        return True
    return bool(_LETTERS.fullmatch(reference)) and reference.casefold() == answer.casefold()


def same_number(reference: str, answer: str) -> bool | None:
    """Compare two normalised answers as exact numbers; None if one of them is no such number."""
    reference_name, reference_value = split_name(reference)
    answer_name, answer_value = split_name(answer)
    integers = _integer(reference_value), _integer(answer_value)
    if integers[0] is not None and integers[1] is not None:
        equal = integers[0] == integers[1]
    else:
        numbers = read_number(reference_value), read_number(answer_value)
        if numbers[0] is None or numbers[1] is None:
            return None
        equal = _same(numbers[0], numbers[1])
    return equal and (not reference_name or not answer_name or reference_name == answer_name)


def split_name(text: str) -> tuple[str, str]:
    """Split `x=5` into its name and value; the name is empty where there is none."""
    found = _NAMED.fullmatch(text)
    return (found["name"], found["value"]) if found else ("", text)


def read_number(text: str) -> Number | None:
    """Read a normalised answer as one exact number, or return None."""
    bare = _DEGREES.sub("", text)
    percent = bare.endswith("%")
    bare = bare.removesuffix("%").strip()
    if sum(character.isdigit() for character in bare) > MAX_ARITHMETIC_DIGITS:
        return None
    value = _fraction(bare)
    if value is None:
        value = _decimal(bare)
    return None if value is None else Number(value, percent)


def _same(reference: Number, answer: Number) -> bool:
    if reference.value == answer.value:
        return True
    if reference.percent == answer.percent:
        return False
    with_sign, without = (reference, answer) if reference.percent else (answer, reference)
    return with_sign.value / 100 == without.value


def _integer(text: str) -> str | None:
    """The canonical digits of an integer of any size; converts nothing, so that size costs nothing."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    digits = found["digits"].replace(",", "").lstrip("0")
    return ("-" if found["sign"] == "-" and digits else "") + (digits or "0")


def _decimal(text: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(text)
    if found is None or not (found["whole"] or found["part"]):
        return None
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    part = found["part"] or ""
    value = Fraction(int((found["whole"] or "0").replace(",", "") + part), 10 ** len(part))
    return (-value if found["sign"] == "-" else value) * Fraction(10) ** exponent


def _fraction(text: str) -> Fraction | None:
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    above = int(found["a"] or found["a1"] or found["a2"])
    below = int(found["b"] or found["b1"] or found["b2"])
    if below == 0:
        return None
    value = Fraction(above, below) + int(found["whole"] or 0)
    return -value if found["sign"] == "-" else value

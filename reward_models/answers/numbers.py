r"""Plain numbers, read exactly: integers of any size, decimals, fractions, mixed numbers, scientific notation.

Policies:
- A comma parts thousands only where groups of three digits follow; a decimal comma is not read.
- A whole number directly before a proper fraction is a mixed number: `6\frac15` is 31/5.
- `2516_8` is a numeral: it equals only the same digits in the same base. The base belongs to what was asked for, so
  that neither 2516 nor 1358 without a base equals it; base ten may be left unsaid.
- `20:34` is a time of day. `8:34` without a.m. or p.m. equals both 8:34 a.m. and 8:34 p.m.; an hour above 12 or with a
  leading zero counts from midnight.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

# Above, integers are compared digit by digit and other numbers not at all: arithmetic on them costs too much.
MAX_ARITHMETIC_DIGITS = 400
# Scientific notation beyond the range of a float is no answer to a problem, and 10**exponent must be built.
MAX_EXPONENT = 308

_INT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_INTEGER = re.compile(rf"(?P<sign>[+-]?)\s?(?P<digits>{_INT})\.?")
_DECIMAL = re.compile(
    rf"(?P<sign>[+-]?)\s?(?P<whole>{_INT})?(?:\.(?P<part>[0-9]*))?"
    r"(?:(?:[eE]|\s?(?:\\times|\\cdot|\*)\s?10\s?\^\s?)\{?(?P<exponent>[+-]?[0-9]{1,4})\}?)?"
)
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s?(?:(?P<whole>[0-9]+)\s*(?=\\frac|\s[0-9]))?\s*"
    r"(?:\\frac\s*(?:\{\s?(?P<a>[+-]?[0-9]+)\s?\}|(?P<a1>[0-9]))\s*(?:\{\s?(?P<b>[0-9]+)\s?\}|(?P<b1>[0-9]))"
    r"|(?P<a2>[0-9]+)\s?/\s?(?P<b2>[0-9]+))"
)
_REPEATING = re.compile(
    r"(?P<sign>[+-]?)\s?(?P<whole>[0-9]*)\.(?P<part>[0-9]*)\\(?:overline|bar|dot)\s*(?:\{\s?(?P<again>[0-9]+)\s?\}|(?P<again1>[0-9]))"
)
_NUMERAL = re.compile(
    r"(?P<digits>[0-9A-Z]+)\s*(?:_\s*(?:\{\s*(?:\\text\{\s*)?(?P<base>[0-9]{1,2}|[a-z]+)\s*\}?\s*\}|(?P<base1>[0-9]{1,2}))"
    r"|(?:\\text\{\s*)?\s*(?:in )?base\s+(?P<base2>[0-9]{1,2}|[a-z]+)\s*\}?)"
)
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_CLOCK = re.compile(
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?\s*(?P<half>[ap]\.?\s?m\b\.?)?", re.I
)
_WHOLE_HOUR = re.compile(r"(?P<hour>[0-9]{1,2})\s*(?P<half>[ap]\.?\s?m\b\.?)", re.I)
_TEXT_BODY = re.compile(r"\\text\s*\{([^{}]*)\}")


class Numeral(NamedTuple):
    """Digits with a named base."""

    digits: str
    base: int


class Clock(NamedTuple):
    """A time of day in seconds; `marked` by a.m. or p.m., `either` if it may be in both halves of the day."""

    seconds: int
    marked: bool
    either: bool


def integer_digits(text: str) -> str | None:
    """The canonical digits of an integer of any size; converts nothing, so that size costs nothing."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    digits = found["digits"].replace(",", "").lstrip("0")
    return ("-" if found["sign"] == "-" and digits else "") + (digits or "0")


def read_number(text: str) -> Fraction | None:
    """Read a normalised text as one exact number, or return None."""
    if len(text) > MAX_ARITHMETIC_DIGITS:
        return None
    for read in (_fraction, _decimal, _repeating):
        value = read(text)
        if value is not None:
            return value
    return None


def read_numeral(text: str) -> Numeral | None:
    """Read `2516_8`, `2516_{8}`, `2516 base 8`; None where no base is named or a digit does not exist in it."""
    found = _NUMERAL.fullmatch(text)
    if found is None:
        return None
    named = found["base"] or found["base1"] or found["base2"]
    base = int(named) if named.isdigit() else _BASES.get(named, 0)
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in found["digits"]):
        return None
    return Numeral(found["digits"].lstrip("0") or "0", base)


def read_clock(text: str) -> Clock | None:
    """Read `20:34`, `08:34 P.M.`, `4 p.m.` as a time of day."""
    bare = _TEXT_BODY.sub(r"\1", text).strip()
    found = _CLOCK.fullmatch(bare) or _WHOLE_HOUR.fullmatch(bare)
    if found is None:
        return None
    groups = found.groupdict()
    hour, minute, second = int(groups["hour"]), int(groups.get("minute") or 0), int(groups.get("second") or 0)
    half = (groups["half"] or "").lower()
    if hour > (12 if half else 24):
        return None
    if half:
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    from_midnight = bool(half) or hour > 12 or groups["hour"].startswith("0")
    return Clock((hour * 60 + minute) * 60 + second, bool(half), not from_midnight)


def same_clock(first: Clock, second: Clock) -> bool:
    """Compare two times of day; `8:34` equals both 8:34 a.m. and 8:34 p.m., but not `20:34`."""
    loose = (first.either and second.marked) or (second.either and first.marked)
    day = (12 if loose else 24) * 3600
    return first.seconds % day == second.seconds % day


def _decimal(text: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(text)
    if found is None or not (found["whole"] or found["part"]):
        return None
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    part = found["part"] or ""
    value = Fraction(int((found["whole"] or "0").replace(",", "") + part), 10 ** len(part))
    value *= Fraction(10**exponent) if exponent >= 0 else Fraction(1, 10**-exponent)
    return -value if found["sign"] == "-" else value


def _repeating(text: str) -> Fraction | None:
    found = _REPEATING.fullmatch(text)
    if found is None:
        return None
    part, again = found["part"], found["again"] or found["again1"]
    digits = (found["whole"] or "0") + part
    value = Fraction(int(digits + again) - int(digits), (10 ** len(again) - 1) * 10 ** len(part))
    return -value if found["sign"] == "-" else value


def _fraction(text: str) -> Fraction | None:
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    above = int(found["a"] or found["a1"] or found["a2"])
    below = int(found["b"] or found["b1"] or found["b2"])
    if below == 0 or (found["whole"] and not 0 <= above < below):
        return None
    value = Fraction(above, below) + int(found["whole"] or 0)
    return -value if found["sign"] == "-" else value

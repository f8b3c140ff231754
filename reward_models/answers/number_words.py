"""Numbers written in words, and the words that make another number of the one beside them."""

from __future__ import annotations

import re

_ONES_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {
    **{word: value for value, word in enumerate(_ONES_TEXT.split())},
    **{word: 10 * value for value, word in enumerate(_TENS_TEXT.split(), 2)},
}
MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS_TEXT = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth "
    "eightieth ninetieth hundredth thousandth millionth billionth trillionth"
)
_ORDINALS = frozenset(_ORDINALS_TEXT.split())
_PARTS = frozenset({"half", "halve", "quarter"})
# `second` is a unit of time.
_CHANGING_TEXT = (
    "mil lakh crore repeating recurring negative positive minus plus times over divided multiplied squared cubed root "
    "sqrt factorial choose mod modulo pi infinity twice thrice double triple"
)
_CHANGING = frozenset(_CHANGING_TEXT.split())
_LEADING = re.compile(r"(?:(negative|minus)\s+)?((?:[a-z]+[\s-]+)*[a-z]+|[0-9][0-9,.]*)(.*)", re.DOTALL | re.IGNORECASE)
# Kinds of the word before, which say what may follow.
_SMALL_LAST, _TENS_LAST, _HUNDRED_LAST = 1, 2, 3
_BETWEEN_WORDS = re.compile(r"[\s-]+")


def is_number_word(word: str) -> bool:
    """True for `seven`, `hundreds`, `sevenths`, `halves`; not for `second`, which may be a unit of time."""
    low = word.lower()
    singular = low.removesuffix("s")
    return singular != "second" and any(
        form in words for form in (low, singular) for words in (_SMALL, MAGNITUDES, _ORDINALS, _PARTS)
    )


def changes_number(word: str) -> bool:
    """True for a word beside a number that makes it another one: a number, a part, a sign, an operation."""
    return is_number_word(word) or word.lower() in _CHANGING


def in_digits(text: str) -> str | None:
    """A text that begins with a number in words with that number in digits: `-8 apples` for `minus eight apples`.

    None if no number in words stands there, nor a sign in words before digits.
    """
    found = _LEADING.fullmatch(text.strip())
    if found is None:
        return None
    sign = "-" if found[1] else ""
    if not found[2][0].isalpha():
        return f"{sign}{found[2]}{found[3]}" if sign else None
    words = found[2].split()
    for count in range(len(words), 0, -1):
        value = _value(_BETWEEN_WORDS.split(" ".join(words[:count]).lower()))
        if value is not None:
            rest = " ".join(words[count:])
            return f"{sign}{value}{' ' + rest if rest else ''}{found[3]}"
    return None


def _value(words: list[str]) -> int | None:
    """`one hundred and twenty one`, `two thousand`; magnitudes above a hundred must fall."""
    total, group, last, limit = 0, 0, 0, 10**15
    if not words or words[0] == "and" or words[-1] == "and":
        return None
    for word in words:
        if word in _SMALL:
            value = _SMALL[word]
            fits = not group % 100 if last != _TENS_LAST else 0 < value < 10
            if last == _SMALL_LAST or not fits or (value == 0 and len(words) > 1):
                return None
            group, last = group + value, _TENS_LAST if value >= 20 else _SMALL_LAST
        elif word == "hundred" and 0 < group < 100 and last != _HUNDRED_LAST:
            group, last = group * 100, _HUNDRED_LAST
        elif word in MAGNITUDES and word != "hundred" and group > 0 and MAGNITUDES[word] < limit:
            total, group, last, limit = total + group * MAGNITUDES[word], 0, _HUNDRED_LAST, MAGNITUDES[word]
        elif word != "and" or last != _HUNDRED_LAST:
            return None
    return total + group

r"""Units, currencies and nouns beside a number: `6 \text{ cm}`, `\$5`, `1152 cups`, `45 \text{ units}^2`.

Policies:
- A unit on one side only is ignored: the problem asked for it or named it. Two units must be the same unit: `6 cm` is
  neither `6 m` nor `6 \text{ cm}^2`. Nothing is converted.
- A unit is `\text{...}` with a word, a currency sign, a degree sign, or plain words behind the number. Behind a plain
  number any nouns may stand, if a space parts them from it; behind another amount, or without a space, only units of
  the lists below. `5ab` and `5 abc` are products, `5 m` may be either.
- Words that say something (is, or, not, if, ...) make no unit, and neither do those that change the number (fifths,
  negative, repeating; see `number_words`).
- `thousand`, `million` and the like multiply; `dozen` is a unit.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reward_models.answers.number_words import MAGNITUDES, changes_number
from reward_models.answers.numbers import read_number

_SHORT_TEXT = (
    "cm mm km dm nm ft in yd mi kg mg lb lbs oz hr hrs min mins sec secs ms ml cl kl mph kph kmh sq cu ha "
    "hz kb mb gb tb rs am pm rad deg mol kj kw kwh pts yr yrs wk wks mo gal pt qt usd eur gbp cc"
)
_SHORT = frozenset(_SHORT_TEXT.split())
# Words that are no noun phrase, or that change what is said.
_NO_UNIT_TEXT = (
    "and or not is are was were be no none than if when but maybe either neither nor else otherwise except "
    "equals equal where for with without only about approximately roughly nearly almost less more below above "
    "base sin cos tan sec csc cot log exp to from until between wrong false true theta alpha beta gamma "
    "percent"
)
NO_UNIT = frozenset(_NO_UNIT_TEXT.split())
# Units that begin with a letter which is a variable elsewhere.
_SINGLE = frozenset({"m", "g", "s", "h", "l"})
_SAME = {
    "dollar": "$", "usd": "$", "buck": "$", "eur": "€", "euro": "€", "gbp": "£", "centimeter": "cm",
    "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "meter": "m", "metre": "m", "kilometer": "km",
    "kilometre": "km", "foot": "ft", "feet": "ft", "inch": "in", "inche": "in", "yard": "yd", "mile": "mi",
    "gram": "g", "kilogram": "kg", "pound": "lb", "ounce": "oz", "hour": "h", "hr": "h", "minute": "min",
    "second": "s", "sec": "s", "liter": "l", "litre": "l", "milliliter": "ml", "degree": "deg", "cent": "¢",
    "year": "yr", "week": "wk", "people": "person", "men": "man", "women": "woman", "children": "child",
    "way": "", "sq": "square", "cu": "cubic",
}  # fmt: skip
_POWER = re.compile(r"\^\s*\{?\s*([23])\s*\}?")
_CURRENCY_BEFORE = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<unit>(?:US\s?)?\\\$|[€£¥₹]|\\text\{\s*[€£¥₹]\s*\}|USD\s|Rs\.?\s)\s*"
)
# Possessive throughout, or white space could be shared out in too many ways.
_BEHIND = re.compile(
    r"(?P<unit>(?:\s*+\\text\s*+\{(?=[^{}]*[A-Za-z€£¥₹'])[^{}]*+\}(?:\s*+\^\s*+\{?\s*+-?[123]\s*+\}?+)?+(?:\s*+[/.])?+)++"
    r"|\s*\\\$|\s*[€£¥₹¢]"
    r"|\s*+/?+\s*+[A-Za-z][A-Za-z'-]*+(?:(?:\s*+/\s*+|\s*+\^\s*+\{?+[23]\}?+\s*+/?+\s*+|\s++)[A-Za-z][A-Za-z'-]*+)*+"
    r"(?:\s*\^\s*\{?\s*[23]\s*\}?)?)\s*"
)
_WORD = re.compile(r"[A-Za-z]+")
_START = re.compile(
    r"(?<=[0-9.)}\]%!])\s*(?=/?\s*[A-Za-z€£¥₹¢]|\\text|\\\$)|(?<=\\pi)\s+(?=[A-Za-z]|\\text)|(?<=\\pi)(?=\\text)"
)
_FIRST_WORD = re.compile(r"^\W*(?:\\text\s*\{)?\s*[A-Za-z]+")
_CONNECTORS = frozenset({"of", "per", "a", "an", "the", "square", "cubic", "squared", "cubed"})
# Most words of three letters that name things; three letters of the alphabet in a row name none.
_SHORT_NOUN = re.compile(r"[^aeiou][aeiou][a-z]")
_VOWEL = re.compile("[aeiouy]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_IN_BRACKETS = re.compile(r"(?<=\S)\s*\(\s*(\\text\s*\{[^{}()]*\}(?:\s*\^\s*\{?\s*[23]\s*\}?)?)\s*\)$")
_STACKED = re.compile(r"\\frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}$")
# Behind one of these a degree sign belongs to the argument.
_TRIGONOMETRY = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_TEMPERATURE = re.compile(r"\\degree\s*(?:\\text\{\s*)?([CF])\s*\}?$")


class Measured(NamedTuple):
    """An amount without its unit, the unit in a canonical form ("" for none), and a factor such as a million."""

    amount: str
    unit: str
    factor: Fraction = Fraction(1)


def split_unit(text: str) -> Measured:
    """Part a normalised answer into amount and unit."""
    text = _STACKED.sub(r"\\text{\1/\2}", _IN_BRACKETS.sub(r" \1", text.rstrip()))
    before = _CURRENCY_BEFORE.match(text)
    if before is not None and text[before.end() :] and not _CURRENCY_BEFORE.match(text, before.end()):
        rest = split_unit(text[before.end() :])
        currency = canonical(before["unit"])
        unit = rest.unit if rest.unit and currency in rest.unit else " ".join(filter(None, (currency, rest.unit)))
        return Measured(before["sign"] + rest.amount, unit, rest.factor)
    stripped = text.rstrip()
    temperature = _TEMPERATURE.search(stripped)
    if temperature is not None:
        return Measured(stripped[: temperature.start()].rstrip(), "deg " + temperature[1])
    if stripped.endswith("\\degree") and not _TRIGONOMETRY.search(stripped):
        return Measured(stripped[: -len("\\degree")].rstrip(), "deg")
    return _split_behind(stripped)


def canonical(unit: str) -> str:
    r"""One spelling for one unit: `\text{ square feet}` and `ft^2` are `ft^2`."""
    text = unit.replace("\\text", " ").replace("\\$", " $ ").replace("US", "")
    power = _POWER.search(text)
    text = _POWER.sub(" ", text)
    words = [_word(word) for word in re.findall(r"[A-Za-z]+|[$€£¥₹¢/]", text)]
    exponent = power[1] if power is not None else ""
    for name, value in (("square", "2"), ("cubic", "3")):
        if name in words and len(words) > 1:
            words.remove(name)
            exponent = exponent or value
    words = [
        "/" if word == "per" else word
        for word in words
        if word not in {"", "of", "the", "a", "an", "in"} or len(words) == 1
    ]
    return " ".join(words) + (f"^{exponent}" if exponent else "")


def same_unit(first: str, second: str) -> bool:
    """True if two canonical units do not contradict each other: one is missing, or they are the same."""
    return not first or not second or first == second


def _word(word: str) -> str:
    low = word.lower()
    for form in _singulars(low):
        if form in _SAME:
            return _SAME[form]
    return low.removesuffix("s") if len(low) > 3 else low


def _split_behind(text: str) -> Measured:
    """Take a unit off the end, if a number stands before it."""
    for start in (found.start() for found in _START.finditer(text)):
        found = _BEHIND.fullmatch(text, start)
        if found is not None:
            return _taken_off(text, text[:start], found["unit"])
    return Measured(text, "")


def _taken_off(text: str, amount: str, unit: str) -> Measured:
    words = [word.lower() for word in _WORD.findall(unit.replace("\\text", " "))]
    factor = Fraction(1)
    while words and words[0] in MAGNITUDES:
        factor *= MAGNITUDES[words.pop(0)]
        unit = _FIRST_WORD.sub(" ", unit, count=1)
    if any(word in NO_UNIT or changes_number(word) for word in words):
        return Measured(text, "")
    loose = unit[:1].isspace()
    if loose and words == [_POWER.sub("", unit).strip()] and words[0] in _SINGLE:
        return Measured(amount.rstrip(), canonical(unit), factor)
    if words and "\\text" not in unit and not _are_unit(words, amount, unit):
        return Measured(text, "")
    return Measured(amount.rstrip(), canonical(unit), factor)


def _are_unit(words: list[str], amount: str, unit: str) -> bool:
    """Whether plain words behind an amount can be nothing but a unit."""
    known = [_is_known(word) or ("/" in unit and word in _SINGLE) for word in words]
    if all(word in _CONNECTORS for word in words):
        return False
    if all(known):
        return True
    if read_number(amount.strip().removesuffix("%")) is None:
        return False
    return (known[0] or unit[:1].isspace() or unit.startswith("/")) and all(map(is_noun, words))


def _is_known(word: str) -> bool:
    return word in _SHORT or word in _CONNECTORS or any(form in _SAME for form in _singulars(word))


def is_noun(word: str) -> bool:
    """True for a unit, and for a word that is no product of letters, as far as its look can tell."""
    if _is_known(word):
        return True
    if word in _ALPHABET or len(word) < 3:
        return False
    return bool(_SHORT_NOUN.fullmatch(word)) if len(word) == 3 else bool(_VOWEL.search(word))


def _singulars(word: str) -> tuple[str, str, str]:
    return word, word.removesuffix("s"), word.removesuffix("es")

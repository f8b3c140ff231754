"""Integers, compared digit by digit: counts, identifiers, the answers of contests."""

from __future__ import annotations

import re

from reward_models.quantity import Quantity, read_quantity, same_kind
from reward_models.stated_answer import AnswerPlace, AnswerReader, shown, unreadable
from reward_models.verdict import Verdict

# One sort of mark between the thousands, not several mixed.
_INTEGER = re.compile(
    r"(?P<sign>[+-]?)\s?(?P<digits>[0-9]{1,3}(?:(?P<mark>[, _'])[0-9]{3}(?:(?P=mark)[0-9]{3})*+)|[0-9]++)(?:\.0*+)?"
)
_NO_DIGIT = re.compile(r"[^0-9]+")


class IntegerVerifier:
    r"""Compares the stated answer with the reference as integers of any size.

    `007`, `+7`, `7.0`, `x = 7` and `\text{7}` are 7; `1,000`, `1 000`, `1\,000` and `1_000` are 1000. A unit or
    a currency sign on one side is ignored, two must be the same. Nothing is rounded or computed: `7.5`, `14/2`, `7%`
    and `7 million` are no integers. Nothing is converted either, so that the size of a number costs nothing.

    Args:
        extraction: where the answer stands (see `reward_models.answers.extraction`); "whole" is all of the text.
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: an option has a value that does not exist.
    """

    def __init__(self, *, extraction: AnswerPlace = "boxed", thinking_end: str | None = "</think>") -> None:
        self._reader = AnswerReader("IntegerVerifier", extraction, thinking_end)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text."""
        gold = read_quantity(reference)
        gold_digits = integer_of(gold)
        if gold_digits is None:
            return unreadable(reference, "an integer")
        found = self._reader.read(response)
        if found is None:
            return self._reader.missing()
        answer = read_quantity(found.text)
        digits = integer_of(answer)
        if digits is None:
            return Verdict.wrong(shown(found.text), f"{found.rule}; the answer is no integer")
        if not same_kind(answer, gold):
            return Verdict.wrong(shown(found.text), f"{found.rule}; the unit is {answer.unit}, not {gold.unit}")
        detail = f"{found.rule}; compared as integers"
        return Verdict.correct(shown(digits), detail) if digits == gold_digits else Verdict.wrong(shown(digits), detail)

    def gold_response(self, reference: str) -> str | None:
        """A response that states the reference; None where none can."""
        return self._reader.stating(reference)


def integer_of(quantity: Quantity) -> str | None:
    """The digits without leading zeros, with a minus sign where the integer is below zero; None for other numbers."""
    found = _INTEGER.fullmatch(quantity.number)
    if found is None or quantity.factor != 1:
        return None
    digits = _NO_DIGIT.sub("", found["digits"]).lstrip("0")
    return f"-{digits}" if found["sign"] == "-" and digits else digits or "0"

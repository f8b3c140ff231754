"""Integers, compared digit by digit: the answers of AIME, counts, identifiers."""

from __future__ import annotations

import re

from reward_models.answers.exact import normalise, visible
from reward_models.stated_answer import AnswerPlace, AnswerReader, shown, unreadable
from reward_models.verdict import Verdict

# One sort of mark between the thousands, not several mixed: comma, blank, no-break and thin blanks, underscore, quote.
_INTEGER = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<digits>[0-9]{1,3}(?:(?P<mark>[, \u00a0\u2009\u202f_'’])[0-9]{3}(?:(?P=mark)[0-9]{3})*+)"
    r"|[0-9]++)(?:\.0*+)?"
)
_NAME = re.compile(r"[A-Za-z](?:_\{?[A-Za-z0-9]\}?)?\s*=\s*")
_NO_DIGIT = re.compile(r"[^0-9]+")


class IntegerVerifier:
    r"""Compares the stated answer with the reference as integers of any size.

    `007`, `+7`, `7.0`, `x = 7` and `\text{7}` are 7; `1,000`, `1 000`, `1\,000` and `1_000` are 1000. Nothing is
    rounded or computed: `7.5`, `14/2`, `7 cm` and `7%` are no integers. Nothing is converted either, so that the
    size of a number costs nothing.

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
        gold = canonical_integer(reference)
        if gold is None:
            return unreadable(reference, "an integer")
        found = self._reader.read(response)
        if found is None:
            return self._reader.missing()
        answer = canonical_integer(found.text)
        if answer is None:
            return Verdict.wrong(shown(found.text), f"{found.rule}; the answer is no integer")
        detail = f"{found.rule}; compared as integers"
        return Verdict.correct(shown(answer), detail) if answer == gold else Verdict.wrong(shown(answer), detail)

    def gold_response(self, reference: str) -> str:
        """A response that states the reference."""
        return self._reader.stating(reference)


def canonical_integer(text: str) -> str | None:
    """The digits of an integer without leading zeros, with a minus sign where it is below zero; None for other text."""
    bare = normalise(visible(text))
    named = _NAME.match(bare)
    found = _INTEGER.fullmatch(bare, named.end() if named else 0)
    if found is None:
        return None
    digits = _NO_DIGIT.sub("", found["digits"]).lstrip("0")
    return f"-{digits}" if found["sign"] == "-" and digits else digits or "0"

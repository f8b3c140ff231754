"""Measured numbers: equal within a tolerance."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import NamedTuple

from reward_models.answers.numbers import read_number
from reward_models.errors import VerifierError
from reward_models.quantity import Quantity, read_quantity, same_kind
from reward_models.stated_answer import AnswerPlace, AnswerReader, shown, unreadable
from reward_models.verdict import Verdict

_INTEGER = re.compile(r"[+-]?[0-9][0-9,]*")


class NumericVerifier:
    r"""Compares the stated answer with the reference as numbers, `|answer - reference| <= tolerance`.

    The tolerance is the larger of `abs_tol` and `rel_tol * |reference|`; it is computed in exact fractions, so that
    nothing is lost on its edge. A reference that is written as an integer is a count: `rel_tol` does not apply to it,
    since 120006 is not 120000; only an `abs_tol` that was given on purpose does. Write 5.0 for a measured five.

    Numbers are decimals, fractions, mixed numbers and scientific notation, as text or LaTeX; infinity and "nan" are
    none. A percent sign is read as a unit or as 1/100, whichever the other side needs. Any other unit and a currency
    sign are ignored on one side; two must be the same, nothing is converted.

    Args:
        rel_tol: relative to the reference. The default accepts a value rounded to seven significant digits.
        abs_tol: in units of the answer. 0 by default, because what is small depends on the problem.
        extraction: where the answer stands (see `reward_models.answers.extraction`); "whole" is all of the text.
        thinking_end: only the text behind the last one counts; None if the model does not mark it.

    Raises:
        VerifierError: a tolerance is negative or not finite, or an option has a value that does not exist.
    """

    def __init__(
        self,
        *,
        rel_tol: float = 1e-6,
        abs_tol: float = 0.0,
        extraction: AnswerPlace = "boxed",
        thinking_end: str | None = "</think>",
    ) -> None:
        self.rel_tol = _tolerance("rel_tol", rel_tol)
        self.abs_tol = _tolerance("abs_tol", abs_tol)
        if rel_tol >= 1:
            raise VerifierError(f"NumericVerifier rel_tol is {rel_tol}, which accepts 0; give a share such as 0.01")
        self._reader = AnswerReader("NumericVerifier", extraction, thinking_end)

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response; never raises on text."""
        gold_quantity = read_quantity(reference)
        gold = _value(gold_quantity)
        if gold is None:
            return unreadable(reference, "a finite number")
        found = self._reader.read(response)
        if found is None:
            return self._reader.missing()
        quantity = read_quantity(found.text)
        answer = _value(quantity)
        if answer is None:
            return Verdict.wrong(shown(found.text), f"{found.rule}; the answer is no finite number")
        if not same_kind(quantity, gold_quantity):
            return Verdict.wrong(
                shown(found.text), f"{found.rule}; the unit is {quantity.unit}, not {gold_quantity.unit}"
            )
        is_count = _INTEGER.fullmatch(gold_quantity.number) is not None
        rel_tol = Fraction(0) if is_count else _exact(self.rel_tol)
        equal = any(self._close(value, target, rel_tol) for value, target in _readings(answer, gold))
        limits = f"abs_tol={self.abs_tol:g}" if is_count else f"rel_tol={self.rel_tol:g}, abs_tol={self.abs_tol:g}"
        detail = f"{found.rule}; compared as numbers, {'the reference is an integer, ' if is_count else ''}{limits}"
        return Verdict.correct(shown(found.text), detail) if equal else Verdict.wrong(shown(found.text), detail)

    def gold_response(self, reference: str) -> str | None:
        """A response that states the reference; None where none can."""
        return self._reader.stating(reference)

    def _close(self, value: Fraction, target: Fraction, rel_tol: Fraction) -> bool:
        return abs(value - target) <= max(_exact(self.abs_tol), rel_tol * abs(target))


class _Number(NamedTuple):
    """An exact number; `percent` if it has a percent sign, which is not in `value`."""

    value: Fraction
    percent: bool


def _value(quantity: Quantity) -> _Number | None:
    value = read_number(quantity.number.removesuffix("%").rstrip())
    return None if value is None else _Number(value * quantity.factor, quantity.number.endswith("%"))


def _readings(answer: _Number, gold: _Number) -> list[tuple[Fraction, Fraction]]:
    """What is compared: the numbers as they stand and, if only one has a percent sign, that one as a share."""
    readings = [(answer.value, gold.value)]
    if answer.percent != gold.percent:
        readings.append((answer.value / (100 if answer.percent else 1), gold.value / (100 if gold.percent else 1)))
    return readings


def _exact(tolerance: float) -> Fraction:
    """The decimal that was written, not the binary fraction next to it."""
    return Fraction(repr(tolerance))


def _tolerance(name: str, value: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise VerifierError(f"NumericVerifier {name} is {value!r}; give a finite number >= 0")
    return float(value)

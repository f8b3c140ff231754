"""Answers of models and of other people's code: a number in a range, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from decimal import Decimal
from numbers import Real
from typing import Any

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Reading

SHOWN_LENGTH = 40  # characters of a wrong answer that a message shows


def number_in(raw: Any, low: float, high: float) -> Reading:
    """Read a finite number in [low, high], also from an array or tensor with one element.

    Texts and truth values are no numbers, though `float` would take them.
    """
    expected = f"expected a number in [{low}, {high}]"
    value = raw
    if callable(getattr(raw, "item", None)):
        try:
            value = raw.item()
        except (RuntimeError, TypeError, ValueError):  # several elements, or none
            return Reading(None, f"{type(raw).__name__}, {expected}")
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        shown = repr(value)[:SHOWN_LENGTH] if isinstance(value, str | bytes | bool) else type(raw).__name__
        return Reading(None, f"{shown}, {expected}")
    try:
        number = float(value)
    except (OverflowError, ValueError):  # too large, or Decimal's signalling nan
        return Reading(None, f"{type(raw).__name__} that is no finite float, {expected}")
    if math.isfinite(number) and low <= number <= high:
        return Reading(number)
    return Reading(None, f"{number}, {expected}")


def one_each(answers: Any, count: int, source: str, what: str) -> list[Any]:
    """Return the answers as a list.

    Raises:
        VerifierError: they have no order, or are not one per question (`what` names the questions).
    """
    rule = f"it must give one answer per question, in order, for {count} {what}"
    try:
        one_by_one = iter(answers)
    except TypeError:  # a tensor without dimensions calls itself iterable
        one_by_one = None
    if one_by_one is None or isinstance(answers, str | bytes | Mapping | Set):
        raise VerifierError(f"{source} gave {type(answers).__name__}; {rule}")
    found = list(one_by_one)
    if len(found) != count:
        raise VerifierError(f"{source} gave {len(found)} answers to {count} {what}; {rule}")
    return found

"""The three kinds of answer: what the server is asked to hold the model to, and how a value is read.

Ranges are not part of the schemas, because servers differ in which keywords they support; they are checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """One kind of answer: an object with a reason and, under `field`, the value."""

    field: str
    field_schema: dict[str, Any]
    shape: str  # the answer as it is shown to the judge
    read: Callable[[object], float | None]  # None: not a value of this scale
    expected: str

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the whole answer; the reason comes first, so that it is thought of first."""
        return {
            "type": "object",
            "properties": {"reason": {"type": "string"}, self.field: self.field_schema},
            "required": ["reason", self.field],
            "additionalProperties": False,
        }


def _score(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is converted: an integer may be too large for a float. NaN compares as false.
    return float(value) if 0 <= value <= 1 else None


def _grade(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 5:
        return None
    return float(value) if float(value).is_integer() else None


_CHOICES = {"a": 1.0, "tie": 0.5, "b": 0.0}


def _choice(value: object) -> float | None:
    return _CHOICES.get(value.strip().lower()) if isinstance(value, str) else None


SCORE = Scale(
    "score",
    {"type": "number"},
    '{"reason": "at most two sentences", "score": a number from 0 to 1}',
    _score,
    "a number from 0 to 1",
)
GRADE = Scale(
    "grade",
    {"type": "integer", "enum": [1, 2, 3, 4, 5]},
    '{"reason": "at most three sentences", "grade": 1, 2, 3, 4 or 5}',
    _grade,
    "an integer from 1 to 5",
)
CHOICE = Scale(
    "choice",
    {"type": "string", "enum": ["A", "B", "tie"]},
    '{"reason": "at most two sentences", "choice": "A", "B" or "tie"}',
    _choice,
    "A, B or tie",
)

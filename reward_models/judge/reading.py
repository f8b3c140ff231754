"""From the text of a judge's answer to a value: the whole answer is one JSON object, or it ends with one.

Nothing is guessed: "I would say 85" is no answer, and where anything before the object looks like another answer there
is none, because a judge may quote what the judged text tells it to answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from reward_models.judge.scales import Scale

# Longer than any answer under the limits of JudgeSettings that is of use; keeps the search for objects cheap.
MAX_ANSWER_CHARS = 50_000
MAX_BRACES = 500
THINKING_START, THINKING_END = "<think>", "</think>"


@dataclass(frozen=True)
class Reading:
    """The value of an answer, or None and what is wrong with it in `reason`."""

    value: float | None
    reason: str


def read_answer(text: str, scale: Scale) -> Reading:
    """Read the one value of `scale` in a judge's answer; a thinking part at its beginning is left out."""
    if len(text) > MAX_ANSWER_CHARS:
        return Reading(None, f"the answer has {len(text)} characters, more than {MAX_ANSWER_CHARS}")
    answer = text.strip()
    if answer.startswith(THINKING_START):
        # The first end counts: what a text says behind a quoted one is then seen as a second answer, and refused.
        _, end, answer = answer.partition(THINKING_END)
        if not end:
            return Reading(None, f"the answer ends before {THINKING_END}: {shown(text)}")
    before, found = _object_at_end(answer.strip().removesuffix("```").rstrip())
    if found is None or scale.field not in found:
        return Reading(None, f"does not end with one JSON object with {scale.field!r}: {shown(answer)}")
    if _another_answer(scale.field).search(before):
        return Reading(None, f"more than one answer: {shown(answer)}")
    value = scale.read(found[scale.field])
    if value is None:
        return Reading(None, f"{scale.field} is {shown(repr(found[scale.field]))}, expected {scale.expected}")
    reason = found.get("reason")
    return Reading(value, reason if isinstance(reason, str) else "")


def _another_answer(field: str) -> re.Pattern[str]:
    """The beginning of a JSON object, or the field as a key: `"score":`, `**Score:**`, `score =`."""
    return re.compile(rf"""\{{\s*"|\b{field}\b["'`*_]*\s*[:=]""", re.IGNORECASE)


def shown(text: str, limit: int = 200) -> str:
    """A text from outside as it may stand in a message: short and printable."""
    cut = text[:limit].strip() + (" ..." if len(text) > limit else "")
    return "".join(c if c.isprintable() else " " for c in cut) or "(empty)"


def _object_at_end(text: str) -> tuple[str, dict[str, Any] | None]:
    """The outermost JSON object that ends a text, and what stands before it."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    start = text.find("{")
    for _ in range(MAX_BRACES):
        if start < 0:
            break
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if end == len(text):
                return text[:start], found
        start = text.find("{", end)
    return text, None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")

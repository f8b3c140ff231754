"""From the text of a judge's answer to a value: strict JSON first, then one JSON object within other text.

Nothing is guessed: "I would say 85" is no answer, and neither are two objects that contradict each other (a judge may
quote what the judged text tells it to answer).
"""

from __future__ import annotations

import json
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
    _, end, answer = text.rpartition(THINKING_END)
    if not end and THINKING_START in answer:
        return Reading(None, f"the answer ends before {THINKING_END}: {shown(text)}")
    whole = _decode(answer.strip())
    objects = [whole] if isinstance(whole, dict) else _objects_within(answer)
    if objects is None:
        return Reading(None, f"more than {MAX_BRACES} opening braces: {shown(answer)}")
    answers = [found for found in objects if scale.field in found]
    if not answers:
        return Reading(None, f"no JSON object with {scale.field!r}: {shown(answer)}")
    values = [scale.read(found[scale.field]) for found in answers]
    if None in values:
        wrong = answers[values.index(None)][scale.field]
        return Reading(None, f"{scale.field} is {shown(repr(wrong))}, expected {scale.expected}")
    if len(set(values)) > 1:
        return Reading(None, f"{len(values)} answers that contradict each other: {shown(answer)}")
    reason = answers[-1].get("reason")
    return Reading(values[0], reason if isinstance(reason, str) else "")


def shown(text: str, limit: int = 200) -> str:
    """A text from outside as it may stand in a message: short and printable."""
    cut = text[:limit].strip() + (" ..." if len(text) > limit else "")
    return "".join(c if c.isprintable() else " " for c in cut) or "(empty)"


def _decode(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _objects_within(text: str) -> list[dict[str, Any]] | None:
    decoder = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    found: list[dict[str, Any]] = []
    start = text.find("{")
    for _ in range(MAX_BRACES + 1):  # the last round only finds that there is none left
        if start < 0:
            return found
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")

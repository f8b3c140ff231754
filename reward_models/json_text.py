"""JSON in a response: where it stands, read by its standard and within limits."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

# More is no answer to a question, and every step below takes time with the length.
MAX_JSON_CHARS = 200_000
# The validator calls itself several times a level, and Python's stack ends at a thousand calls.
MAX_JSON_DEPTH = 40
# How often the text may be read through in the search for an object that begins at one of many braces.
_READINGS = 8
# Larger integers do not fit into a float, which `multipleOf` computes with.
MAX_NUMBER_CHARS = 300

_FENCE = re.compile(r"^[ \t]*+```[ \t]*+(?P<language>\w*+)[ \t\r]*+$", re.MULTILINE)
_OBJECT_START = re.compile(r"\{(?=\s*+[\"}])")
_OPENING, _CLOSING = frozenset("{["), frozenset("}]")


class FoundJson(NamedTuple):
    """JSON in a response: its text, its value, and the rule that found it."""

    text: str
    value: Any
    rule: str


class NotJsonError(ValueError):
    """The text is no JSON, or more than is looked at."""


def find_json(text: str) -> FoundJson:
    """Find the answer; raises NotJsonError where there is none."""
    body = _last_block(text)
    if body is not None:
        return FoundJson(body.strip(), parse_json(body), "last ```json block")
    if len(text) <= MAX_JSON_CHARS:
        try:
            return FoundJson(text.strip(), parse_json(text), "whole response")
        except NotJsonError:
            pass
    return _last_object(text[-MAX_JSON_CHARS:])


def _last_block(text: str) -> str | None:
    """What stands in the last closed block of JSON; a fence with a language opens a block, one without closes it."""
    body: str | None = None
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None or fence["language"]:
            opened = fence
            continue
        if opened["language"].lower() == "json":
            body = text[opened.end() : fence.start()]
        opened = None
    return body


def _last_object(text: str) -> FoundJson:
    decoder = json.JSONDecoder(**_STRICT)
    found: FoundJson | None = None
    position, budget = 0, _READINGS * len(text)
    while (start := _OBJECT_START.search(text, position)) is not None and budget > 0:
        position = start.end()
        try:
            value, end = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            # Naming the line of the mistake reads the text from its beginning, too, only faster.
            budget -= error.pos - start.start() + error.pos // 50
            continue
        except (ValueError, RecursionError):  # a constant or a number that is no JSON; nested too deep
            budget -= MAX_JSON_CHARS // _READINGS
            continue
        if _depth(text[start.start() : end]) <= MAX_JSON_DEPTH:
            found = FoundJson(text[start.start() : end], value, "last object")
        position = end
    if found is None:
        raise NotJsonError("no object {...} in the response")
    return found


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises NotJsonError with the reason."""
    if len(text) > MAX_JSON_CHARS:
        raise NotJsonError(f"{len(text)} characters, at most {MAX_JSON_CHARS}")
    if _depth(text) > MAX_JSON_DEPTH:
        raise NotJsonError(f"brackets nested more than {MAX_JSON_DEPTH} deep")
    try:
        return json.loads(text, **_STRICT)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise ValueError(f"a number of {len(text)} digits, at most {MAX_NUMBER_CHARS}")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


# Python's reader also takes NaN and infinity, and numbers that the schema library cannot compute with.
_STRICT: dict[str, Any] = {"parse_constant": _no_constant, "parse_int": _integer, "parse_float": _number}


def _depth(text: str) -> int:
    """How deep brackets nest, those in strings included: an upper bound that needs no parsing."""
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth -= 1
    return deepest

r"""The answer in a JSON field `"answer": ...` or `"final_answer": ...`.

The object around the field need not be valid JSON, since what models write often is not: line breaks inside
strings, LaTeX whose backslashes were not doubled, values without quotes such as `9/4`, quotes as Python writes them
(`'answer': '7'`). The last field counts whose value is complete; a value is not, if the text ends before the closing
quote, bracket or separator, because what was cut off may have changed it. `null` answers nothing. The values of a
list are read side by side, those of an object with their names (`x=1, y=2`), except a single one.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import NamedTuple

from reward_models.answers.lists import as_one
from reward_models.answers.unescape import as_json, unescape

# Only so many fields are tried, from the last one backwards, and so much of a list or an object is read: a text may
# hold nothing but openings.
MAX_FIELDS = 20
MAX_STRUCTURE_CHARS = 4000

_FIELD = re.compile(r"""(?P<quote>["'])(?:final[ _-]?)?answer(?P=quote)\s*+:\s*+""", re.IGNORECASE)
_STRING = {
    '"': re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL),
    "'": re.compile(r"'(?:[^'\\]|\\.)*+'", re.DOTALL),
}
_STRING_GOES_ON = {
    '"': re.compile(r'[^"\n]*+(?:"[^"\n]*+)*"(?=\s*+[,}\]\n])'),
    "'": re.compile(r"[^'\n]*+(?:'[^'\n]*+)*'(?=\s*+[,}\]\n])"),
}
_VALUE_END = re.compile(r"\s*+(?:[,}\]\n`]|$)")
_BARE_MARK = re.compile(r'[()\[\]{}\n]|,(?=[\s"])')
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_NOTHING = frozenset({"null", "none", ""})
_DECODER = json.JSONDecoder(strict=False)


class AnswerField(NamedTuple):
    """An answer field that begins at `start`; its value as text, None if no field of the text is complete."""

    value: str | None
    start: int


def json_answer(text: str) -> AnswerField | None:
    """Return the last complete answer field; None if the text has no such field at all."""
    fields = deque(_FIELD.finditer(text), maxlen=MAX_FIELDS)
    for field in reversed(fields):
        value = _value(text, field.end())
        if value is not None:
            return AnswerField(value, field.start())
    return AnswerField(None, fields[-1].start()) if fields else None


def _value(text: str, start: int) -> str | None:
    first = text[start : start + 1]
    if first in _STRING:
        return _string(text, start)
    if first in ("[", "{"):
        structure = _structure(text[start : start + MAX_STRUCTURE_CHARS])
        if structure is not None:
            return structure
    return _bare(text, start)


def _string(text: str, start: int) -> str | None:
    """A string ends at its quotation mark; where the line goes on behind it, quotes inside were not escaped."""
    quote = text[start]
    found = _STRING[quote].match(text, start)
    if found is None:
        return None
    end = found.end()
    if not _VALUE_END.match(text, end):
        rest = _STRING_GOES_ON[quote].match(text, end)
        end = end if rest is None else rest.end()
    said = text[start + 1 : end - 1]
    return _without_quotes(unescape(said if quote == '"' else said.replace("\\'", "'")).strip())


def _without_quotes(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1].strip() if quoted else value


def _structure(text: str) -> str | None:
    """A list or an object, written as one answer; None if it is not complete, or no JSON."""
    try:
        value, _ = _DECODER.raw_decode(as_json(text))
    except (ValueError, RecursionError):
        return None
    return _flat(value)


def _flat(value: object) -> str:
    if isinstance(value, dict):
        if len(value) == 1:
            return _flat(next(iter(value.values())))
        return ", ".join(f"{name}={_flat(item)}" for name, item in value.items())
    if isinstance(value, list):
        return as_one([f"({_flat(item)})" if isinstance(item, list) else _flat(item) for item in value])
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bare(text: str, start: int) -> str | None:
    """A value without quotes: to the end of its line, a comma before the next field, or the object's bracket.

    What stands in brackets of any kind is passed over: `[0, 3)` is one value.
    """
    window = text[start : start + MAX_STRUCTURE_CHARS]
    depth = 0
    for mark in _BARE_MARK.finditer(window):
        if mark[0] in _OPENING:
            depth += 1
        elif mark[0] in _CLOSING and depth:
            depth -= 1
        elif not depth:
            value = window[: mark.start()].strip()
            return None if value.lower() in _NOTHING else value
    return None

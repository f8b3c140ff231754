"""Several answers side by side: when they form one list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

# More between two answers than commas, "and" and a name is no list.
MAX_GAP_CHARS = 60
# A text of nothing but answers is no list that anybody asks for; of a longer list only the end is read.
MAX_ITEMS = 1000

_TEXT = r"\\(?:text|textrm|mathrm|mbox)\s*"
_SPACE = r"(?:\s|~|\\[,;:! ]|\\q?quad(?![A-Za-z]))"
_DELIMITER = r"(?:\$|\\[()\[\]]|\*|_|[{}])"
_SEPARATOR = r"(?:,|;|&|(?<![A-Za-z])(?:and|or)(?![A-Za-z]))"
_NAME = r"(?:\\?[A-Za-z]+(?:_\{?\w\}?)?\s*(?:=|\\in(?![A-Za-z])))"
_GAP = re.compile(rf"(?:{_SPACE}|{_DELIMITER}|{_TEXT}|{_SEPARATOR}|{_NAME})*+")
_PARTS_ITEMS = re.compile(_SEPARATOR)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


class Span(Protocol):
    """A piece of a text, from `start` to `end`."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


_S = TypeVar("_S", bound=Span)


def last_list(text: str, spans: Sequence[_S]) -> list[_S]:
    """Return the last span with those before it that stand in one list with it, in order."""
    first = max(0, len(spans) - 1)
    earliest = max(0, len(spans) - MAX_ITEMS)
    while first > earliest and connects(text[spans[first - 1].end : spans[first].start]):
        first -= 1
    return list(spans[first:])


def connects(gap: str) -> bool:
    """True if the text between two answers makes them one list: a comma, a semicolon, "and" or "or"."""
    if len(gap) > MAX_GAP_CHARS or _BLANK_LINE.search(gap):
        return False
    return bool(_GAP.fullmatch(gap)) and bool(_PARTS_ITEMS.search(gap))


def as_one(answers: Sequence[str]) -> str:
    """Write several answers as one; what is said twice counts once."""
    return ", ".join(dict.fromkeys(answer for answer in answers))

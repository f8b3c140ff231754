"""How much of a text says again what it has said: a share in [0, 1], in time proportional to the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["RUN", "repeated_share"]

RUN = 10
"""So many words and signs in a row are seldom said twice by accident: attempts at one problem share shorter runs."""

# A word is cut after eight characters, so that neither an endless "aaaa" nor a script without spaces is one word.
_PIECE = re.compile(r"\w{1,8}|[^\w\s]")


def repeated_share(text: str) -> float:
    """Return the share of words and signs that repeat an earlier line, or an earlier run of RUN of them.

    Upper and lower case are the same, and so are texts that differ in white space or in what cannot be seen. What is
    said for the first time counts as new, so a text of n equal parts has the share 1 - 1/n. A text without words or
    signs has 0. Not found: the same in other words.
    """
    lines = [_PIECE.findall(_visible(line).casefold()) for line in text.splitlines()]
    pieces = [piece for line in lines for piece in line]
    if not pieces:
        return 0.0
    repeated = _by_lines(lines)
    for place in _repeated_runs(pieces):
        repeated[place : place + RUN] = b"\x01" * RUN
    return sum(repeated) / len(pieces)


def _by_lines(lines: Sequence[Sequence[str]]) -> bytearray:
    """1 for every piece of a line that stood there before."""
    seen: set[tuple[str, ...]] = set()
    marks = bytearray()
    for line in lines:
        key = tuple(line)
        marks += (b"\x01" if key in seen else b"\x00") * len(line)
        seen.add(key)
    return marks


def _repeated_runs(pieces: Sequence[str]) -> list[int]:
    """Places at which RUN pieces begin that began before at another place."""
    seen: set[tuple[str, ...]] = set()
    places = []
    for place in range(len(pieces) - RUN + 1):
        run = tuple(pieces[place : place + RUN])
        if run in seen:
            places.append(place)
        seen.add(run)
    return places


def _visible(line: str) -> str:
    return line if line.isprintable() else "".join(c for c in line if c.isprintable() or c.isspace())

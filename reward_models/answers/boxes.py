r"""Find the answer in `\boxed{...}` by counting braces.

The two readers answer differently on purpose: `last_box` is what this package grades by, `first_simple_box`
is what the released RLSP trainer did (first box, braces nested at most one level).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# `\\` is a line break and hides no brace, except in `\\boxed`, which is how JSON writes `\boxed`.
_TOKEN = re.compile(r"(?P<box>\\boxed\s*\{)|\\\\(?!boxed)|\\[{}]|(?P<open>\{)|(?P<close>\})")
# Possessive, so that text without an end cannot make the search go back over itself.
_SIMPLE = re.compile(r"\\boxed\{((?:[^{}]++|\{[^{}]*+\})*+)\}")


class Box(NamedTuple):
    """A box in a text: `text[start:end]` is the command with its braces, `content` what stands inside."""

    content: str
    start: int
    end: int


def last_box(text: str) -> Box | None:
    r"""Return the last box whose braces balance, or None.

    Of nested boxes it is the innermost last one. `\boxed 5` and `\fbox{5}` are no boxes. An unclosed box is
    passed over. Takes one pass over the text whatever stands in it.
    """
    begin = text.find("\\boxed")
    if begin < 0:
        return None
    best: Box | None = None
    open_braces: list[re.Match[str] | None] = []  # None: a brace that is no box
    for token in _TOKEN.finditer(text, begin):
        if token["box"]:
            open_braces.append(token)
        elif token["open"]:
            open_braces.append(None)
        elif token["close"] and open_braces:
            opened = open_braces.pop()
            if opened is not None and (best is None or opened.start() > best.start):
                best = Box(text[opened.end() : token.start()], opened.start(), token.end())
    return best


def first_simple_box(text: str) -> Box | None:
    """Return the first box with at most one level of braces inside, as the released RLSP trainer does."""
    found = _SIMPLE.search(text)
    return None if found is None else Box(found[1], found.start(), found.end())

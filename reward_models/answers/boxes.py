r"""Find answers in `\boxed{...}` by counting braces.

The readers answer differently on purpose: `last_boxes` is what this package grades by, `first_simple_box` is
what the released RLSP trainer did (first box, braces nested at most one level).

What is a box: `\boxed{...}` with balanced braces, white space before the brace allowed. `\boxed 5` and
`\fbox{5}` are none, a box that is never closed is passed over, `\boxed{}` is an empty answer. Of nested boxes
the inner one counts. The last box of the text is the answer. Only where it is the end of a list does the whole
list count: boxes of one formula or sentence with nothing between them but a comma, a semicolon, "and" or "or",
white space and a name (`a = \boxed{-1}$ and $a = \boxed{2}`). So a second guess never helps: "5 or 6" is
neither 5 nor 6. Any other word between two boxes is a change of mind, and the last one counts alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reward_models.answers.lists import last_list
from reward_models.answers.unescape import is_escaped, unescape

# `\\` is a line break and hides no brace, except in `\\boxed`, which is how JSON writes `\boxed`.
_TOKEN = re.compile(r"(?P<box>\\boxed\s*+\{)|\\\\(?!boxed)|\\[{}]|(?P<open>\{)|(?P<close>\})")
# Possessive, so that text without an end cannot make the search go back over itself.
_SIMPLE = re.compile(r"\\boxed\{((?:[^{}]++|\{[^{}]*+\})*+)\}")


class Box(NamedTuple):
    """A box in a text: `text[start:end]` is the command with its braces, `content` what stands inside."""

    content: str
    start: int
    end: int


def last_boxes(text: str) -> list[str] | None:
    r"""Return what stands in the last box, or in each box of the list that it ends; None without a box.

    In text that was escaped for JSON (`\\boxed{\\frac12}`) the escaping is undone.
    """
    boxes = balanced_boxes(text)
    if not boxes:
        return None
    return [_content(text, box) for box in last_list(text, boxes)]


def last_box(text: str) -> Box | None:
    """Return the last box whose braces balance as it stands, or None; of nested boxes the innermost last one."""
    boxes = balanced_boxes(text)
    return boxes[-1] if boxes else None


def balanced_boxes(text: str) -> list[Box]:
    """Return the boxes that hold no other box, in order; takes one pass whatever stands in the text."""
    begin = text.find("\\boxed")
    if begin < 0:
        return []
    found: list[Box] = []
    open_braces: list[re.Match[str] | None] = []  # None: a brace that is no box
    for token in _TOKEN.finditer(text, begin):
        if token["box"]:
            open_braces.append(token)
        elif token["open"]:
            open_braces.append(None)
        elif token["close"] and open_braces:
            opened = open_braces.pop()
            # Inner boxes close first: one that starts behind this opening is inside.
            if opened is not None and not (found and found[-1].start > opened.start()):
                found.append(Box(text[opened.end() : token.start()], opened.start(), token.end()))
    return found


def first_simple_box(text: str) -> Box | None:
    """Return the first box with at most one level of braces inside, as the released RLSP trainer does."""
    found = _SIMPLE.search(text)
    return None if found is None else Box(found[1], found.start(), found.end())


def _content(text: str, box: Box) -> str:
    return (
        unescape(box.content) if is_escaped(text[max(0, box.start - 3) : box.start], box.content) else box.content
    ).strip()

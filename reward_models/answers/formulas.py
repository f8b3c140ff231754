r"""Formulas in a text: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, and the environments of displayed equations.

A dollar sign in front of a number may also mean money: then the closing sign must stand directly behind what it
closes and not before another digit, so that `$5 + $3` holds no formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# No opening inside, so that unclosed openings cannot each be searched to the end of the text.
_FORMULA = re.compile(
    r"""
    \$\$ (?P<display>(?:[^$\\]|\\.)++) \$\$
    | (?<!\\)\$ (?![\d.,]) (?P<dollars>(?:[^$\n\\]|\\[^\n])++) \$
    | (?<!\\)\$ (?=[\d.,]) (?P<number>(?:[^$\n\\]|\\[^\n])++) (?<!\s)\$(?!\d)
    | (?<!\\)\\\( (?P<round>(?:(?!\\[()]).)++) \\\)
    | (?<!\\)\\\[ (?P<square>(?:(?!(?<!\\)\\[\[\]]).)++) \\\]
    | \\begin\{(?P<name>equation|align|gather|multline|eqnarray)\*?\}
      (?P<rows>(?:(?!\\(?:begin|end)\{(?P=name)).)++) \\end\{(?P=name)\*?\}
    """,
    re.DOTALL | re.VERBOSE,
)
_CONTENTS = ("display", "dollars", "number", "round", "square", "rows")
_ROW_BREAK = re.compile(r"\\\\(?:\[[^\[\]]*+\])?")


class Formula(NamedTuple):
    """A formula in a text: `text[start:end]` with its delimiters, `content` without them."""

    content: str
    start: int
    end: int


def formulas(text: str) -> Iterator[Formula]:
    """Yield the formulas of a text in order; of several rows of equations the last one."""
    for found in _FORMULA.finditer(text):
        yield _formula(found)


def formula_at(text: str, start: int) -> Formula | None:
    """Return the formula that begins at `start`, or None."""
    found = _FORMULA.match(text, start)
    return None if found is None else _formula(found)


def _formula(found: re.Match[str]) -> Formula:
    content: str = next(found[name] for name in _CONTENTS if found[name] is not None)
    if found["rows"] is not None:
        content = _last_row(content)
    return Formula(content.strip(), found.start(), found.end())


def _last_row(rows: str) -> str:
    """The last row that says something, without alignment marks and without the sign that continues a chain."""
    for row in reversed(_ROW_BREAK.split(rows)):
        said = row.replace("\\&", "\0").replace("&", "").replace("\0", "\\&").strip()
        if said:
            return said.removeprefix("=").strip()
    return ""

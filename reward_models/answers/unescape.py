r"""Undo the escaping of JSON strings that hold LaTeX, which models get right and wrong in equal measure.

`"\\frac{1}{2}"` is escaped as JSON asks; in `"\frac{1}{2}"` the backslash was forgotten, and a JSON parser would
read a form feed and `rac`. An escape is taken for LaTeX where JSON does not know it, and where it reads as the
beginning of a LaTeX command: `\b` and `\f` before any letter, as nobody means a backspace or a form feed, and
`\n`, `\r`, `\t` where the letters behind are those of a command from `_COMMANDS`, to its end.
"""

from __future__ import annotations

import json
import re

# Commands of formulas that begin with n, r or t, without that letter.
_COMMANDS = {
    "n": "abla|atural|eg|e|eq|exists|geq|i|leq|mid|ot|otin|parallel|prec|sim|subset|subseteq|u|ewline",
    "r": "angle|brace|brack|ceil|floor|ho|ight|ightarrow|m|oot|vert",
    "t": "an|anh|au|binom|ext|extbf|extit|extrm|exttt|frac|herefore|heta|ilde|imes|o|op|riangle",
}
_BEFORE_COMMAND = "|".join(f"{letter}(?:{commands})(?![A-Za-z])" for letter, commands in _COMMANDS.items())
# One backslash with what it takes; what JSON allows first, then LaTeX, then all else.
_ESCAPE = re.compile(
    r"""(?P<json>\\(?:[\\"/]|u[0-9a-fA-F]{4}"""
    rf"|(?![bf][A-Za-z])(?!{_BEFORE_COMMAND})[bfnrt]))|\\(?P<latex>.?)",
    re.DOTALL,
)
_LONE_COMMAND = re.compile(r"(?<!\\)(?:\\\\)*\\[A-Za-z{}]")


def as_json(text: str) -> str:
    """Double each backslash that JSON would not read as it was meant."""
    return _ESCAPE.sub(lambda found: found["json"] or "\\\\" + found["latex"], text)


def unescape(text: str) -> str:
    """Return what a JSON string with this text between its quotes says; text that says nothing comes back as it is."""
    try:
        return str(json.loads(f'"{as_json(text)}"', strict=False))
    except ValueError:  # a quotation mark that was not escaped
        return text


def is_escaped(before: str, content: str) -> bool:
    r"""True if a command was escaped for JSON: one backslash too many before it, and no single one inside.

    `before` is what stands before the command, `content` what stands in its braces. Three backslashes are
    a line break and a command.
    """
    backslashes = len(before) - len(before.rstrip("\\"))
    return backslashes == 1 and not _LONE_COMMAND.search(content)

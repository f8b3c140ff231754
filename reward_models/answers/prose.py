"""The part of a response that is written to be read: without blocks of program code, their output and emphasis."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*```+[ \t]*(?P<language>[\w+#-]*)", re.MULTILINE)
# Languages of blocks that are part of the text; no language at all says nothing about the block.
_TEXT_LANGUAGES = frozenset({"", "json", "text", "txt", "plaintext", "latex", "tex", "math", "markdown", "md"})
# Between digits two asterisks are a power.
_EMPHASIS = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])|(?<!\w)__|__(?!\w)")


def without_emphasis(text: str) -> str:
    """Drop the marks of bold text."""
    return _EMPHASIS.sub("", text)


def without_code(text: str) -> str:
    """Drop fenced blocks of code and output; a block that is never closed goes on to the end."""
    if "```" not in text:
        return text
    kept: list[str] = []
    begin = 0
    code = inside = False
    for fence in _FENCE.finditer(text):
        if not inside:
            code = fence["language"].lower() not in _TEXT_LANGUAGES
            if code:
                kept.append(text[begin : fence.start()])
        elif code:
            begin = fence.end()
        inside = not inside
    if not (inside and code):
        kept.append(text[begin:])
    return "".join(kept)

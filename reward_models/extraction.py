"""Where the answer stands in a response."""

from __future__ import annotations


def after_thinking(response: str, thinking_end: str | None) -> str:
    """Return the text after the last `thinking_end`, or the whole text where it does not occur.

    A response that opens its thinking (`<think>` for `</think>`) and never closes it has said nothing: "".
    """
    if not thinking_end:
        return response
    _, found, rest = response.rpartition(thinking_end)
    if found:
        return rest
    thinking_start = thinking_end.replace("</", "<", 1)
    return "" if thinking_start != thinking_end and thinking_start in response else response

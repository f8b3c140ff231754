"""Special tokens that somebody wrote into a text: a tokenizer would read them as real ones."""

from __future__ import annotations

from typing import Any

_EXCHANGE = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokens that a judged text must not bring along, as text.

    These are all that the tokenizer calls special, and the added tokens between which the chat template writes
    messages: some models mark turns by tokens that are not called special. `<think>` and its like stay allowed.
    """
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    exchange = _written_exchange(tokenizer)
    return tuple(sorted(special | {token.content for token in added if token.content in exchange}))


def special_token_in(text: str, tokens: tuple[str, ...], start: int = 0) -> str | None:
    """Return a token that stands in the text and ends after `start`, so also one that a text before begins."""
    found = (token for token in tokens if text.find(token, max(0, start - len(token) + 1)) >= 0)
    return next(found, None)


def without_end(text: str, end: str | None) -> str:
    """Return the text without end tokens behind it, which finished answers often carry."""
    stop = len(text)
    while end and text.endswith(end, 0, stop):
        stop -= len(end)
    return text[:stop]


def _written_exchange(tokenizer: Any) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return ""
    try:
        return str(tokenizer.apply_chat_template(_EXCHANGE, tokenize=False))
    except (TemplateError, ValueError):  # no template for conversations; what is called special remains
        return ""

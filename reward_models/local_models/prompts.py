"""Prompts as text or chat messages: what is accepted, and how messages read as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
Prompt = str | Sequence[Message]

NAME_LENGTH = 60  # characters of a prompt that name it in a report


def text_problem(text: object, what: str) -> str | None:
    """Say why `text` cannot be read, None if it can: it must be a str that UTF-8 can write."""
    if not isinstance(text, str):
        return f"{what} is {type(text).__name__}, expected str"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{what} is no valid text: lone surrogate at character {error.start}"
    return None


def prompt_problem(prompt: object) -> str | None:
    """Say why a prompt cannot be read, None if it can: text, or messages with a role and a text as content."""
    if isinstance(prompt, str):
        return text_problem(prompt, "the prompt")
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes) or not prompt:
        return f"the prompt is {type(prompt).__name__}, expected str or a non-empty list of messages"
    for index, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"message {index} of the prompt has no role; expected a dict with role and content"
        problem = text_problem(_content(message), f"the content of message {index} of the prompt")
        if problem is not None:
            return problem
    return None


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """Return the prompt as messages with plain text as content; a text is one message of the user."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message["role"], "content": _content(message)} for message in prompt]


def plain_opening(prompt: Prompt) -> str:
    """Return the text that a response follows without a chat template.

    A text stays as it is, as in TRL's plain datasets; of messages each is `role: content` and a blank line, with
    `assistant: ` at the end.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [f"{message['role']}: {message['content']}\n\n" for message in as_messages(prompt)]
    return "".join(turns) + "assistant: "


def query_name(prompt: object) -> str:
    """Return a short name for messages and reports: the last text of the prompt, cut."""
    if not isinstance(prompt, str):
        last = prompt[-1] if isinstance(prompt, Sequence) and prompt else None
        prompt = _content(last) if isinstance(last, Mapping) else repr(prompt)
    text = " ".join(str(prompt)[: 4 * NAME_LENGTH].split())
    return text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "…"


def _content(message: Message) -> Any:
    """Return the content; a list of text parts is joined, anything else is left for the caller to refuse."""
    content = message.get("content")
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(content) else content

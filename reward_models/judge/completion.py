"""From the body of a chat completion to a reply; the server may have sent anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from reward_models.judge.judgement import JudgeOutcome
from reward_models.judge.reading import shown

MAX_TOKENS = 10**9


@dataclass(frozen=True)
class Reply:
    """How one question to the server ended: with `ok` the answer's text, still to be read, else what went wrong."""

    outcome: JudgeOutcome
    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_completion(body: str) -> Reply:
    """Read the body of an answer with status 200; anything but a chat completion is a server_error."""
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        return _no_completion(body)
    choice = _first_choice(completion)
    message = choice.get("message")
    if not isinstance(message, dict):
        return _no_completion(body)
    outcome, text = _outcome(choice.get("finish_reason"), message)
    usage = completion.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(outcome, text, token_count(usage.get("prompt_tokens")), token_count(usage.get("completion_tokens")))


def _first_choice(completion: object) -> dict[str, Any]:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _outcome(finish_reason: object, message: dict[str, Any]) -> tuple[JudgeOutcome, str]:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return JudgeOutcome.REFUSED, f"the model refuses: {shown(refusal)}"
    if finish_reason == "content_filter":
        return JudgeOutcome.REFUSED, "stopped by a content filter"
    text = content if isinstance(content, str) else ""
    if finish_reason == "length":
        return JudgeOutcome.TRUNCATED, f"cut off at max_tokens: {shown(text)}"
    return JudgeOutcome.OK, text


def _no_completion(body: str) -> Reply:
    return Reply(JudgeOutcome.SERVER_ERROR, f"status 200 without a chat completion: {shown(body)}")


def token_count(value: object) -> int | None:
    """A number of tokens from outside; None for what cannot be one, such as an integer beyond any float."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TOKENS:
        return None
    return value

"""From the JSON of a completion to samples; what does not fit the request is refused, never mended."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rltoolkit.rollout.servers.http import ServerError
from rltoolkit.types import Sample, StopReason

__all__ = ["Expected", "read_completion"]


@dataclass(frozen=True)
class Expected:
    """What an answer has to agree with."""

    prompt: Sequence[int]
    choices: int
    max_new_tokens: int
    eos_token_ids: Collection[int]
    vocabulary: int
    version: int


def read_completion(answer: Any, expected: Expected) -> list[Sample]:
    """Return the samples of a /v1/completions answer, in the order of the choices' numbers.

    Raises ServerError for a number of choices, token ids, log-probs or a finish reason that are not what
    the request asked for.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ServerError(f"the answer has no list of choices: {str(answer)[:200]}")
    by_index = {choice.get("index"): choice for choice in choices if type(choice.get("index")) is int}
    if len(choices) != expected.choices or set(by_index) != set(range(expected.choices)):
        found = [choice.get("index") for choice in choices]
        raise ServerError(f"the answer has choices {found}, {expected.choices} were asked for")
    return [_read_choice(by_index[k], k, expected) for k in range(expected.choices)]


def _read_choice(choice: dict[str, Any], k: int, expected: Expected) -> Sample:
    tokens = choice.get("token_ids")
    if not isinstance(tokens, list) or not tokens:
        raise ServerError(f"choice {k} has no token_ids but {str(tokens)[:80]}; vLLM 0.10.2 or later gives them")
    wrong = [t for t in tokens if type(t) is not int or not 0 <= t < expected.vocabulary]
    if wrong:
        raise ServerError(f"choice {k} has the token id {wrong[0]!r}; the model has 0 to {expected.vocabulary - 1}")
    echoed = choice.get("prompt_token_ids")
    if echoed is not None and list(echoed) != list(expected.prompt):
        raise ServerError(f"choice {k} answers another prompt: {str(echoed)[:80]}")
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) != len(tokens):
        found = len(values) if isinstance(values, list) else "no"
        raise ServerError(f"choice {k} has {found} log-probs for {len(tokens)} tokens")
    if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise ServerError(f"choice {k} has log-probs that are not finite numbers; check the policy's weights")
    reason = _stop_reason(choice.get("finish_reason"), tokens, k, expected)
    return Sample(tuple(tokens), tuple(map(float, values)), reason, expected.version)


def _stop_reason(given: Any, tokens: Sequence[int], k: int, expected: Expected) -> StopReason:
    """Check the finish reason against the tokens: an end-of-sequence token at the end, or the limit reached."""
    ends = [i for i, token in enumerate(tokens) if token in expected.eos_token_ids]
    if given == "stop" and ends == [len(tokens) - 1] and len(tokens) <= expected.max_new_tokens:
        return StopReason.STOP
    if given == "length" and not ends and len(tokens) == expected.max_new_tokens:
        return StopReason.LENGTH
    raise ServerError(
        f"choice {k} ended by {given!r} after {len(tokens)} of {expected.max_new_tokens} tokens, the last of them "
        f"{tokens[-1]}, end-of-sequence tokens at {ends[:5]}: expected one at the end alone, or the limit reached"
    )

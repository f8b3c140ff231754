"""The vocabulary that trainers, rollout backends and evaluation share: small frozen dataclasses."""

import math
from dataclasses import dataclass
from enum import StrEnum

from rltoolkit.errors import RolloutError

__all__ = ["VLLM_TEMPERATURES", "Sample", "SamplingParams", "StopReason"]

VLLM_TEMPERATURES = (0.01, 2.0)
"""Lowest and highest but 0: vLLM raises a lower one with only a warning, and refuses a higher one."""


class StopReason(StrEnum):
    """Why a sample ended."""

    STOP = "stop"
    """The policy drew an end-of-sequence token; it is the last of the sample's token ids."""
    LENGTH = "length"
    """The limit on new tokens was reached; no end-of-sequence token is added."""


@dataclass(frozen=True)
class SamplingParams:
    """How next tokens are drawn: temperature first, then top-k, top-p and min-p, each renormalised.

    A value out of range raises RolloutError.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token and draws nothing."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose probability reaches it; 1 keeps all."""
    top_k: int = 0
    """Keep that many most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens below this fraction of the most likely token's probability; 0 keeps all."""
    max_new_tokens: int = 256
    """At most so many tokens per sample, the end-of-sequence token included."""

    def __post_init__(self) -> None:
        """Refuse what no distribution corresponds to."""
        checks = (
            ("temperature", _is_number(self.temperature) and self.temperature >= 0, "a finite number >= 0"),
            ("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("top_k", _is_int(self.top_k) and self.top_k >= 0, "an integer >= 0 (0 keeps all tokens)"),
            ("min_p", _is_number(self.min_p) and 0 <= self.min_p < 1, "a number in [0, 1)"),
            ("max_new_tokens", _is_int(self.max_new_tokens) and self.max_new_tokens >= 1, "an integer >= 1"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise RolloutError(f"SamplingParams.{name} is {getattr(self, name)!r}; give {expected}")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken at every step."""
        return self.temperature == 0


@dataclass(frozen=True)
class Sample:
    """One response of a policy, as token ids; nothing is decoded and encoded again."""

    token_ids: tuple[int, ...]
    """The sampled tokens, without the prompt; the end-of-sequence token is included when it was sampled."""
    logprobs: tuple[float, ...]
    """Per token, its log-probability under the distribution it was drawn from (greedy: the model's own)."""
    stop_reason: StopReason
    version: int
    """The version of the policy's weights that drew it, as given to the backend's `sync`."""

    def __post_init__(self) -> None:
        """Refuse tokens and log-probabilities that do not belong together."""
        if len(self.token_ids) != len(self.logprobs):
            raise RolloutError(
                f"a Sample has {len(self.token_ids)} token ids and {len(self.logprobs)} log-probs; "
                "give one log-prob per token"
            )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""What a judge says, how asking it can end, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reward_models.errors import VerifierError


class JudgeOutcome(StrEnum):
    """How asking a judge ended; only `ok` carries a value."""

    OK = "ok"
    BAD_ANSWER = "bad_answer"  # prose, garbage, a number out of range, two answers that contradict each other
    TRUNCATED = "truncated"  # the answer reached max_tokens
    REFUSED = "refused"  # the model or a content filter declined
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"  # status 5xx, or 200 with something that is no chat completion
    UNREACHABLE = "unreachable"  # no connection, or one that broke
    UNAUTHORIZED = "unauthorized"  # the key is missing, wrong or not allowed
    BAD_REQUEST = "bad_request"  # the server rejects the request: unknown model, too long, no text to judge


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer of a judge.

    `value` is a score in [0, 1], a grade 1-5, or the probability that the text shown as A is better; None unless the
    outcome is `ok`. `reason` is the judge's own, or what went wrong. Tokens are those of the request that gave the
    answer, None where the server does not say; for a `cached` answer those of the request made back then.

    Raises:
        VerifierError: there is a value without `ok`, or `ok` without a value.
    """

    outcome: JudgeOutcome
    value: float | None
    reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached: bool = False

    def __post_init__(self) -> None:
        """Refuse a value that contradicts the outcome."""
        if (self.value is None) is (self.outcome is JudgeOutcome.OK):
            raise VerifierError(
                f"Judgement.value is {self.value!r} for {self.outcome!r}; expected a number for ok, else None"
            )


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A comparison of two texts, asked in both orders.

    In `as_given` the first text is shown as A, in `swapped` the second; each value is the probability that A is better
    (0.5 for a tie).
    """

    as_given: Judgement
    swapped: Judgement

    @property
    def probability(self) -> float | None:
        """That the first text is better, the mean over the orders; None if either of them failed."""
        if self.as_given.value is None or self.swapped.value is None:
            return None
        return (self.as_given.value + 1.0 - self.swapped.value) / 2.0

    @property
    def position_bias(self) -> float | None:
        """Mean over the orders of P(A) - 0.5: above 0 where the judge leans to what it reads first; None if failed."""
        if self.as_given.value is None or self.swapped.value is None:
            return None
        return (self.as_given.value + self.swapped.value) / 2.0 - 0.5


@dataclass(frozen=True)
class JudgeCounts:
    """What a judge has done so far.

    `outcomes` counts judgements handed out, cached ones included, every outcome listed. Tokens are those the server
    reported; `without_usage` counts answers it reported none for, and requests that ended without an answer (timeouts)
    may have cost something, too. `position_bias` is the mean over `pairs`, the comparisons with two answers.
    """

    outcomes: Mapping[JudgeOutcome, int]
    requests: int
    retries: int
    cache_hits: int
    cache_errors: int
    prompt_tokens: int
    completion_tokens: int
    without_usage: int
    cut: int  # questions in which a text was longer than max_text_chars
    pairs: int
    position_bias: float | None
    cost: float | None  # of the reported tokens, in the currency of the prices; None where these are unknown

    @property
    def judgements(self) -> int:
        """How many were handed out."""
        return sum(self.outcomes.values())

    @property
    def failures(self) -> int:
        """How many of them carry no value."""
        return self.judgements - self.outcomes[JudgeOutcome.OK]

"""Countdown, the embedded task: held-out problems, made on the spot."""

from eval.tasks.base import Question, Task
from reward_models.countdown import CountdownVerifier
from reward_models.exploration import count_attempts
from rltoolkit.embedded.countdown import ATTEMPT_PATTERN, countdown_rows
from rltoolkit.types import SamplingParams

__all__ = ["load"]

MAX_NEW_TOKENS = 160
"""Demonstrations stay below 100 tokens: room for a policy that tries more than they do."""


def load(limit: int | None = None, seed: int = 0) -> Task:
    """Return `limit` held-out problems (all if None), chosen and ordered by `seed`."""
    rows = countdown_rows("test", limit, seed)
    return Task(
        name="countdown",
        questions=tuple(Question(row["answer"], row["prompt"], row["answer"]) for row in rows),
        verifier=CountdownVerifier(),
        prompt_format="text",
        sampling=SamplingParams(max_new_tokens=MAX_NEW_TOKENS),
        count_attempts=attempts,
    )


def attempts(response: str) -> int:
    """Count the attempt lines of a response that stand before its answer."""
    return count_attempts(response, ATTEMPT_PATTERN)

"""Judged effort: an exploration reward that a language model gives (Ye et al., arXiv 2502.06773)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from reward_models.errors import VerifierError
from reward_models.judge import EFFORT, Judge, JudgeCounts, Judgement, JudgeOutcome, JudgeSettings


class JudgedEffort:
    """u in [0, 1]: how much thinking a judge sees in a response, right or wrong.

    The judge is shown the response and the criterion, nothing else: no prompt, and no reference, which none of the
    methods takes. A response that could not be judged has no score; it is counted and to be left out of the loss
    (the released code pays such a response 0.5, more than an honest 0.3). Trainers call `score_many`, which asks many
    at a time. Picklable: connections and counts stay behind.
    """

    def __init__(self, settings: JudgeSettings, criterion: str | None = None) -> None:
        if criterion is not None and (not isinstance(criterion, str) or not criterion.strip()):
            raise VerifierError(
                f"criterion is {criterion!r}; expected the text that tells the judge what to rate, or None for ours"
            )
        self.criterion = EFFORT if criterion is None else criterion
        self.judge = Judge(settings)
        self.last_judgements: list[Judgement] = []
        self._last_tokens = self._last_retries = 0

    @classmethod
    def from_options(cls, *, criterion: str | None = None, **settings: Any) -> JudgedEffort:
        """From the keys of a recipe: the fields of JudgeSettings, and `criterion`; says at once what would fail later.

        Raises:
            TypeError: a key is unknown or `model` is missing.
            VerifierError: a value cannot work, the key is not set, or the openai package is missing.
        """
        made = cls(JudgeSettings(**settings), criterion)
        made.judge.require_ready()
        return made

    def score(self, response: str, token_count: int) -> float:
        """Return u for one response.

        Raises:
            VerifierError: the judge gave no score; `score_many` returns None instead.
        """
        [score] = self.score_many([response], [token_count])
        if score is None:
            [judgement] = self.last_judgements
            raise VerifierError(
                f"the judge gave no score ({judgement.outcome}): {judgement.reason}. "
                "Call score_many, which returns None for such a response"
            )
        return score

    def score_many(
        self,
        responses: Sequence[str],
        token_counts: Sequence[int],  # noqa: ARG002  the protocol's argument
    ) -> list[float | None]:
        """Return u for each response, None where the judge gave none; `last_judgements` holds the reasons."""
        before = self.judge.counts()
        self.last_judgements = self.judge.score_many(self.criterion, responses)
        after = self.judge.counts()
        self._last_retries = after.retries - before.retries
        self._last_tokens = after.prompt_tokens + after.completion_tokens
        self._last_tokens -= before.prompt_tokens + before.completion_tokens
        return [judgement.value for judgement in self.last_judgements]

    def metrics(self) -> dict[str, float]:
        """Of the last call: the share of each outcome and of what came from disk; tokens and retries per judgement.

        Tokens are those of all that was asked, as `counts()` has them: what is equal is asked once.
        """
        count = max(1, len(self.last_judgements))
        outcomes = Counter(judgement.outcome for judgement in self.last_judgements)
        shares = {str(outcome): outcomes[outcome] / count for outcome in JudgeOutcome}
        cached = sum(judgement.cached for judgement in self.last_judgements)
        return {
            **shares,
            "cached": cached / count,
            "tokens": self._last_tokens / count,
            "retries": self._last_retries / count,
        }

    def counts(self) -> JudgeCounts:
        """What the judge has done so far."""
        return self.judge.counts()

    def close(self) -> None:
        """Close the connections; the next score opens them again."""
        self.judge.close()

"""A verifier as a reward function of TRL's trainers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reward_models.errors import VerifierError
from reward_models.verdict import Outcome, Verdict, Verifier, checked

if TYPE_CHECKING:
    from reward_models.pool import VerifierPool

Completion = str | Sequence[dict[str, Any]]

# What a trainer passes beside the columns of the dataset.
_NOT_COLUMNS = frozenset({"trainer_state", "log_extra", "log_metric", "environments"})


class RewardFunction:
    """Judges completions against a column of the dataset; what `as_reward_func` returns.

    Picklable; a started pool is not carried along, the copy starts its own at its first call.
    """

    def __init__(
        self, verifier: Verifier, *, column: str = "answer", pool: VerifierPool | Literal[False] | None = None
    ) -> None:
        if not callable(getattr(verifier, "check", None)):
            raise VerifierError(
                f"the verifier is {type(verifier).__name__}, which has no method check(response, reference); "
                "pass an object that has one"
            )
        self.verifier = verifier
        self.column = column
        self.last_verdicts: list[Verdict] = []
        self.__name__ = str(getattr(verifier, "__name__", type(verifier).__name__))
        self._pool = pool
        self._owns_pool = False

    def __call__(
        self,
        prompts: Sequence[Any],  # noqa: ARG002
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,  # noqa: ARG002  TRL passes it to every function
        **columns: Any,
    ) -> list[float | None]:
        """Return one score per completion, None for what cannot be judged.

        Raises:
            VerifierError: the reference column is missing or has another length than the completions.
        """
        references = self._references(columns, len(completions))
        self.last_verdicts = self.judge([completion_text(c) for c in completions], references)
        self._log(columns.get("log_extra"), columns.get("log_metric"))
        return [verdict.score for verdict in self.last_verdicts]

    def judge(self, responses: Sequence[str], references: Sequence[Any]) -> list[Verdict]:
        """Return one verdict per response; integers and floats are taken as their text."""
        texts = [reference_text(reference) for reference in references]
        if self._pool is False:
            return [checked(self.verifier, response, text) for response, text in zip(responses, texts, strict=True)]
        return self._started_pool().check_many(responses, texts)

    def close(self) -> None:
        """Stop the pool that this function started itself; a pool that was passed in is left alone."""
        if self._owns_pool and self._pool:
            self._pool.close()
            self._pool, self._owns_pool = None, False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the processes behind: a copy starts its own pool when it needs one."""
        return {**self.__dict__, "_pool": False if self._pool is False else None, "_owns_pool": False}

    def _started_pool(self) -> VerifierPool:
        if not self._pool:
            from reward_models.pool import VerifierPool

            self._pool, self._owns_pool = VerifierPool(self.verifier), True
        return self._pool

    def _references(self, columns: dict[str, Any], count: int) -> Sequence[Any]:
        if self.column not in columns:
            found = sorted(set(columns) - _NOT_COLUMNS)
            raise VerifierError(
                f"the dataset has no column {self.column!r} with the reference answers, only {found}. "
                "Name the right one with as_reward_func(..., column=...)"
            )
        references: Sequence[Any] = columns[self.column]
        if len(references) != count:
            raise VerifierError(
                f"column {self.column!r} has {len(references)} entries for {count} completions; give one per completion"
            )
        return references

    def _log(
        self,
        log_extra: Callable[[str, list[Any]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> None:
        if log_metric is not None and self.last_verdicts:
            counts = Counter(verdict.outcome for verdict in self.last_verdicts)
            for outcome in Outcome:  # all of them, zeros too: every rank must log the same keys
                log_metric(f"verdict/{outcome}", counts[outcome] / len(self.last_verdicts))
        if log_extra is not None:
            log_extra(f"{self.__name__}/verdict", [str(verdict.outcome) for verdict in self.last_verdicts])
            log_extra(f"{self.__name__}/extracted", [verdict.extracted for verdict in self.last_verdicts])


def as_reward_func(
    verifier: Verifier, *, column: str = "answer", pool: VerifierPool | Literal[False] | None = None
) -> RewardFunction:
    """Make a reward function for TRL out of a verifier.

    `column` names the dataset's column with the reference answers. `pool=None` starts a `VerifierPool`
    at the first call, a pool given is used and left open, `pool=False` judges in this process, without a time
    limit. `.last_verdicts` holds the verdicts of the last call, in order.
    """
    return RewardFunction(verifier, column=column, pool=pool)


def completion_text(completion: Completion) -> str:
    """Return the text of a completion: a string, or the last assistant message of a conversation."""
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role") == "assistant":
            return _content_text(message.get("content"))
    return ""


def reference_text(reference: Any) -> Any:
    """Return numbers as text, everything else as it is (the verifier's bad_reference, if it is no text)."""
    is_number = isinstance(reference, int | float) and not isinstance(reference, bool)
    return str(reference) if is_number else reference


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))

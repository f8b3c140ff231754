"""A verifier as a reward function of TRL's trainers."""

from __future__ import annotations

import asyncio
import math
import numbers
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reward_models.errors import VerifierError
from reward_models.verdict import Outcome, Verdict, Verifier, checked, require_verifier

if TYPE_CHECKING:
    from reward_models.pool import VerifierPool

Completion = str | Sequence[Mapping[str, Any]]

# What a trainer passes beside the columns of the dataset.
_NOT_COLUMNS = frozenset({"trainer_state", "log_extra", "log_metric", "environments"})
# Two threads that call a function for the first time must not start two pools. Not held during a check.
_LOCK = threading.Lock()


def _renew_lock() -> None:
    """Give a fork a lock of its own: it would wait without end for one that a thread of its parent holds."""
    global _LOCK
    _LOCK = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class RewardFunction:
    """Judges completions against a column of the dataset; what `as_reward_func` returns.

    `last_responses` and `last_verdicts` are the texts and the verdicts of the last call, in order; `counts` holds how
    many verdicts of each outcome there were in all calls. Picklable and deepcopy-able; a started pool is not carried
    along, the copy starts its own, of the same settings, at its first call.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        column: str = "answer",
        pool: VerifierPool | Literal[False] | None = None,
        name: str | None = None,
    ) -> None:
        require_verifier(verifier, "the verifier")
        kind = type(verifier)
        if pool and not pool.judges_like(verifier):
            other = " of other options" if pool.verifier_type is kind else ""
            raise VerifierError(
                f"the pool judges with {pool.verifier_type.__name__}, the reward function with {kind.__name__}{other}; "
                "give both the same object, or pool=None for a pool of its own"
            )
        self.verifier = verifier
        self.column = column
        self.last_responses: list[Any] = []
        self.last_verdicts: list[Verdict] = []
        self.counts: Counter[Outcome] = Counter()
        self.__name__ = name if name is not None else str(getattr(verifier, "__name__", kind.__name__))
        self._metrics = "verdict" if name is None else f"verdict/{name}"
        self._pool = pool
        self._owns_pool = False
        self._pool_options: dict[str, Any] = pool.settings.options() if pool else {}

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
        self.last_responses, self.last_verdicts = [], []
        references = self._references(columns, len(completions))
        responses = [response_of(completion) for completion in completions]
        verdicts = self.judge(responses, references)
        self.last_responses, self.last_verdicts = responses, verdicts
        with _LOCK:
            self.counts.update(verdict.outcome for verdict in verdicts)
        self._log(verdicts, columns.get("log_extra"), columns.get("log_metric"))
        return [verdict.score for verdict in verdicts]

    def judge(self, responses: Sequence[Any], references: Sequence[Any]) -> list[Verdict]:
        """Return one verdict per response; integers and floats are taken as their text."""
        texts = [reference_text(reference) for reference in references]
        if self._pool is False:
            return [checked(self.verifier, response, text) for response, text in zip(responses, texts, strict=True)]
        return self._started_pool().check_many(responses, texts)

    def as_async(self) -> AsyncRewardFunction:
        """Return this function as one that TRL awaits, beside its other async reward functions."""
        return AsyncRewardFunction(self)

    def close(self) -> None:
        """Stop the pool that this function started itself; a pool that was passed in is left alone."""
        with _LOCK:
            if self._owns_pool and self._pool:
                self._pool.close()
                self._pool, self._owns_pool = None, False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the processes behind: a copy starts its own pool when it needs one."""
        return {**self.__dict__, "_pool": False if self._pool is False else None, "_owns_pool": False}

    def _started_pool(self) -> VerifierPool:
        with _LOCK:
            if not self._pool:
                from reward_models.pool import VerifierPool

                self._pool, self._owns_pool = VerifierPool(self.verifier, **self._pool_options), True
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
        verdicts: Sequence[Verdict],
        log_extra: Callable[[str, list[Any]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> None:
        if log_metric is not None and verdicts:
            counts = Counter(verdict.outcome for verdict in verdicts)
            for outcome in Outcome:  # all of them, zeros too: every rank must log the same keys
                log_metric(f"{self._metrics}/{outcome}", counts[outcome] / len(verdicts))
        if log_extra is not None:
            log_extra(f"{self.__name__}/verdict", [str(verdict.outcome) for verdict in verdicts])
            log_extra(f"{self.__name__}/extracted", [verdict.extracted for verdict in verdicts])


class AsyncRewardFunction:
    """A reward function whose call is awaited; it judges in a thread, so that the event loop goes on."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.__name__ = function.__name__

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return what the function returns."""
        return await asyncio.to_thread(self.function, prompts, completions, completion_ids, **columns)

    @property
    def column(self) -> str:
        """The column with the reference answers."""
        return self.function.column

    @property
    def last_responses(self) -> list[Any]:
        """The texts of the last call, in order."""
        return self.function.last_responses

    @property
    def last_verdicts(self) -> list[Verdict]:
        """The verdicts of the last call, in order."""
        return self.function.last_verdicts

    @property
    def counts(self) -> Counter[Outcome]:
        """How many verdicts of each outcome there were in all calls."""
        return self.function.counts

    def close(self) -> None:
        """Stop the pool that the function started itself."""
        self.function.close()


def as_reward_func(
    verifier: Verifier,
    *,
    column: str = "answer",
    pool: VerifierPool | Literal[False] | None = None,
    name: str | None = None,
) -> RewardFunction:
    """Make a reward function for TRL out of a verifier.

    `column` names the dataset's column with the reference answers. `pool=None` starts a `VerifierPool`
    at the first call, a pool given is used and left open (several functions may share it), `pool=False` judges in this
    process, without a time limit. `.last_verdicts` holds the verdicts of the last call, in order.

    The share of each outcome is logged as `verdict/<outcome>`. `name` is needed where one trainer has two functions
    with verifiers of the same class: it is the name under which TRL logs, and makes that `verdict/<name>/<outcome>`.

    A trainer drops a completion for which every reward function returns None: TRL's GRPOTrainer and RLOOTrainer do,
    and so does RLSPTrainer where the outcome is None. Two limits of TRL: where another function pays for the same
    completion (use `as_exploration_func(..., outcome=...)`), None counts as 0 beside it; and the experimental
    OnlineDPOTrainer counts every None as 0, logs no outcomes and shows the pair to the loss; look at `.counts` there.
    """
    return RewardFunction(verifier, column=column, pool=pool, name=name)


def completion_text(completion: Completion) -> str:
    """Return the text of a completion: a string, or the last assistant message of a conversation.

    Of a message in parts (multimodal) the text parts count; a message that only calls a tool has no text.
    """
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role") == "assistant":
            return _content_text(message.get("content"))
    return ""


def reference_text(reference: Any) -> Any:
    """Return numbers as text, everything else as it is: the verifier's bad_reference, if it is no text.

    Not a number is no reference either: it is how tables spell a missing value. Nor is a number of more digits than
    Python writes out.
    """
    if isinstance(reference, bool) or not isinstance(reference, numbers.Real):
        return reference
    try:
        return str(reference) if isinstance(reference, numbers.Rational) or math.isfinite(reference) else reference
    except ValueError:
        return reference


def response_of(completion: Any) -> Any:
    """Return the text of a completion; what is neither text nor a conversation stays what it is, an ERROR verdict."""
    is_conversation = isinstance(completion, list | tuple) and all(isinstance(part, Mapping) for part in completion)
    return completion_text(completion) if is_conversation else completion


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else []
    return "".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))

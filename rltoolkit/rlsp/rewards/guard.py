"""What reward functions return is checked: they are the user's code, and every process must hear of what went wrong.

A function that raises, that returns another number of scores than there are responses, or something that is no score,
ends the training with an error that names it. A score that is not finite is no score: the response is left out, and
counted apart from those that the function itself gave None.
"""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import is_async_callable

from reward_models.errors import RLToolkitError, VerifierError
from reward_models.verdict import error_text
from rltoolkit.rollout.ranks import told_to_all

__all__ = [
    "MANY_IN_A_ROW",
    "AsyncRewardGuard",
    "RewardGuard",
    "UnscorableRollouts",
    "finite_or_nan",
    "guarded",
    "tell_failures",
]

MANY_IN_A_ROW = 5
"""Rollouts without a single response that can be scored, one after the other, that end the training."""

LogMetric = Callable[[str, float], None]
logger = logging.getLogger(__name__)


class RewardGuard:
    """Stands before a reward function; keeps a failure until `tell`, since the ranks wait for each other before."""

    def __init__(self, function: Callable[..., Any], role: str, *, within: tuple[float, float] | None = None) -> None:
        self._function = function
        self._within = within
        self._failure: Exception | None = None
        self._warned = False
        self._role = role
        self.__name__ = _name_of(function)  # TRL logs under it

    def __call__(self, *, completions: Sequence[Any], **given: Any) -> list[float | None]:
        """The scores; None for every response where the function failed."""
        try:
            returned = self._function(completions=completions, **given)
        except Exception as error:  # noqa: BLE001  foreign code; `tell` raises it on every process
            return self._failed(error, len(completions))
        return self._checked(returned, len(completions), given.get("log_metric"))

    def tell(self) -> None:
        """Raise what went wrong in the last call, on every process; each of them calls it."""
        failure, self._failure = self._failure, None
        with told_to_all(f"take the scores of the {self._role} reward"):
            if failure is not None:
                raise failure

    def _failed(self, error: Exception, count: int) -> list[float | None]:
        told = error
        if not isinstance(error, RLToolkitError):
            told = VerifierError(
                f"the {self._role} reward {self.__name__} raised {error_text(error)} when it was given {count} "
                "responses; a function that cannot score a response returns None for it"
            )
            told.__cause__ = error
        self._failure = told
        return [None] * count

    def _checked(
        self, returned: Any, count: int, log_metric: Callable[[str, float], None] | None
    ) -> list[float | None]:
        try:
            scores = self._numbers(returned, count)
        except Exception as error:  # noqa: BLE001  a generator runs foreign code only here; `tell` raises it
            return self._failed(error, count)
        infinite = [row for row, score in enumerate(scores) if score is not None and not math.isfinite(score)]
        if infinite and not self._warned:
            self._warned = True
            logger.warning(
                "the %s reward %s gave %d of %d responses a score that is not finite, first %s to response %d; "
                "they are left out, and counted as reward/%s_not_finite. Return None for what cannot be scored",
                self._role,
                self.__name__,
                len(infinite),
                count,
                scores[infinite[0]],
                infinite[0],
                self._role,
            )
        if log_metric is not None and count:
            log_metric(f"reward/{self._role}_not_finite", len(infinite) / count)
        left_out = set(infinite)
        return [None if row in left_out else score for row, score in enumerate(scores)]

    def _numbers(self, returned: Any, count: int) -> list[float | None]:
        who = f"the {self._role} reward {self.__name__}"
        scores = _iterator(returned)
        if scores is None:
            raise VerifierError(f"{who} returned {_short(returned)}; return a list of {count} scores, one per response")
        values = list(scores)
        if len(values) != count:
            raise VerifierError(f"{who} returned {len(values)} scores for {count} responses; return one per response")
        return [self._number(value, row, who) for row, value in enumerate(values)]

    def _number(self, value: Any, row: int, who: str) -> float | None:
        if value is None:
            return None
        try:
            score = None if isinstance(value, str) else float(value)
        except Exception:  # noqa: BLE001  foreign values raise what they like; the error below names this one
            score = None
        if score is None:
            raise VerifierError(
                f"{who} gave response {row} the score {_short(value)}; a score is a number that a float can hold, "
                "or None where there is none"
            )
        if self._within is not None and math.isfinite(score) and not self._within[0] <= score <= self._within[1]:
            low, high = self._within
            raise VerifierError(
                f"{who} gave response {row} the score {score}; give scores in [{low:g}, {high:g}], or None where there "
                "is none"
            )
        return score


class AsyncRewardGuard(RewardGuard):
    """The same before a reward function that TRL awaits."""

    async def __call__(self, *, completions: Sequence[Any], **given: Any) -> list[float | None]:  # type: ignore[override]
        """The scores; None for every response where the function failed."""
        try:
            returned = await self._function(completions=completions, **given)
        except Exception as error:  # noqa: BLE001  foreign code; `tell` raises it on every process
            return self._failed(error, len(completions))
        return self._checked(returned, len(completions), given.get("log_metric"))


def guarded(function: Any, role: str, *, within: tuple[float, float] | None = None) -> Any:
    """A guard before a reward function; reward models, which TRL itself calls, stay what they are."""
    if isinstance(function, nn.Module) or not callable(function):
        return function
    kind = AsyncRewardGuard if is_async_callable(function) else RewardGuard
    return kind(function, role, within=within)


def tell_failures(functions: Sequence[Any]) -> None:
    """Raise what went wrong in the last calls of guarded functions, on every process; each of them calls it."""
    for function in functions:
        if isinstance(function, RewardGuard):
            function.tell()


def finite_or_nan(rewards: Tensor) -> Tensor:
    """Rewards with NaN, which stands for no score, in the place of infinities."""
    return torch.where(rewards.isfinite(), rewards, torch.nan)


class UnscorableRollouts:
    """Counts rollouts without a response that could be scored: one is skipped, many in a row are an error."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def count(self, tokens: float, scored: float, outcome: Tensor, exploration: Tensor | None) -> None:
        """Take note of a rollout: tokens to learn from and responses with a score, over all ranks; parts (B,) of this.

        Raises VerifierError, on every rank, where MANY_IN_A_ROW had no score. Responses that all have a score but no
        token that counts, since every one was cut off, are no fault of the reward functions.
        """
        if scored > 0:
            self._in_a_row = 0
            if tokens == 0:
                logger.warning(
                    "a rollout whose %d responses with a score were all cut off at max_completion_length is skipped: "
                    "mask_truncated_completions leaves such responses out. Allow longer ones, or learn from these, too",
                    scored,
                )
            return
        self._in_a_row += 1
        parts = [("outcome", outcome)] + ([] if exploration is None else [("exploration", exploration)])
        said = ", ".join(
            f"no {role} for {int(part.isnan().sum())} of {part.numel()} responses of this process"
            for role, part in parts
        )
        if self._in_a_row >= MANY_IN_A_ROW:
            raise VerifierError(
                f"{self._in_a_row} rollouts in a row had no response that could be scored ({said}); look at the "
                "reward functions, at what they log (verdict/*, reward/*_not_finite) and at the samples"
            )
        logger.warning(
            "a rollout without a single response that can be scored is skipped, nothing is learned from it (%s)", said
        )

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self._in_a_row = state["in_a_row"]


def _iterator(returned: Any) -> Iterator[Any] | None:
    """None for what is no sequence of scores; a tensor of no dimension, say, which has `__iter__` all the same."""
    if isinstance(returned, str | bytes | dict):
        return None
    try:
        scores: Iterator[Any] = iter(returned)
    except TypeError:
        return None
    return scores


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

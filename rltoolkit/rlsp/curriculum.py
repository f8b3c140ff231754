"""The prompt curriculum: prompts that are solved always, or never, over their last visits get less of the training.

A visit is a rollout in which a prompt had at least one response that could be judged; what is kept of it is the mean
outcome of these responses, over all ranks. `skip` leaves settled prompts out of whole epochs, `down_weight` lets the
policy learn less from them. Prompts are known by what they say (and by their reference), not by their place, so that
the state in a checkpoint outlives a new order of the data.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from rltoolkit.errors import DataError
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.schedule import EPOCH_STRIDE

__all__ = ["MOST_TURNS", "PromptCurriculum", "Standing", "content_key", "curriculum_for", "standing_of"]

MOST_TURNS = 4
"""Turns that one prompt gets in an epoch at most: the slots of skipped prompts must not make a few others rule it."""

_ROUNDING = 1e-6  # an outcome so near to 0 or 1, the sum of parts in float32 say, is meant to be that

_REPLACEMENT_STREAM = 500_009  # apart from the seeds of the epochs' orders
_KEY_BYTES, _KEY_MASK = 8, (1 << 63) - 1  # 63 bits, so that a key fits into an int64 tensor

logger = logging.getLogger(__name__)


class Standing(StrEnum):
    """What the last visits say of a prompt."""

    SOLVED = "solved"
    UNSOLVED = "unsolved"
    ACTIVE = "active"


def standing_of(rates: Sequence[float], visits: int) -> Standing:
    """Solved or unsolved where each of the last `visits` rates is 1, or each 0; active before, and in between."""
    if len(rates) < visits:
        return Standing.ACTIVE
    last = set(rates[-visits:])
    return {frozenset({1.0}): Standing.SOLVED, frozenset({0.0}): Standing.UNSOLVED}.get(
        frozenset(last), Standing.ACTIVE
    )


def content_key(prompt: Any, reference: Any = None) -> int:
    """63 bits of a hash of prompt (text or messages) and reference; raises DataError for what JSON cannot hold."""
    try:
        text = json.dumps([prompt, reference], sort_keys=True, ensure_ascii=False)
    except TypeError as error:
        raise DataError(
            f"the prompt curriculum knows prompts by their text, and one of the prompts has something else ({error}); "
            "set prompt_curriculum to 'off', or give prompts and references as text or messages"
        ) from error
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_KEY_BYTES], "big") & _KEY_MASK


class PromptCurriculum:
    """The visits of the prompts of a training set, and what follows from them; the same on every rank.

    `reference` is the column with the reference answers, None where there is none.
    """

    def __init__(self, config: RLSPConfig, prompts: Dataset, reference: str | None) -> None:
        self._config = config
        self._reference = reference if reference in prompts.column_names else None
        columns = ["prompt"] if self._reference is None else ["prompt", self._reference]
        self._keys = [self.key(row) for row in prompts.select_columns(columns)]
        self._visits: dict[int, tuple[float, ...]] = dict.fromkeys(self._keys, ())
        self._counts = Counter({Standing.ACTIVE: len(self._visits)})
        self._epoch: int | None = None
        self._skipped: frozenset[int] = frozenset()

    def key(self, row: Mapping[str, Any]) -> int:
        """The key of a row of the training set."""
        return content_key(row["prompt"], None if self._reference is None else row[self._reference])

    def standing(self, key: int) -> Standing:
        """What the visits so far say; active for a prompt that is not known."""
        return standing_of(self._visits.get(key, ()), self._config.curriculum_visits)

    # ---- rollouts ---------------------------------------------------------------------------------------------------

    def take_in(self, rows: Sequence[Mapping[str, Any]], outcome: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """Note a rollout of this rank's rows with outcomes (B,), NaN where there is none; returns weights (B,).

        The weights, for the policy's loss, follow from the visits before this one. Every rank calls it; `gather` joins
        the ranks. Raises DataError, on every rank, where an outcome is no rate.
        """
        keys = [self.key(row) for row in rows]
        weights = torch.tensor([self._weight(key) for key in keys], device=outcome.device)
        all_keys = gather(torch.tensor(keys, dtype=torch.int64, device=outcome.device))
        self.record(all_keys.tolist(), gather(outcome).tolist())
        return weights

    def record(self, keys: Sequence[int], outcomes: Sequence[float]) -> None:
        """Add one visit to every prompt with an outcome that is not NaN; keys and outcomes of all ranks."""
        seen: dict[int, list[float]] = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if outcome == outcome:  # not NaN: a response that could not be judged says nothing of its prompt
                seen.setdefault(key, []).append(_as_rate(outcome))
        for key, outcomes_of_prompt in seen.items():
            if key in self._visits:
                self._set(key, (*self._visits[key], sum(outcomes_of_prompt) / len(outcomes_of_prompt)))

    def metrics(self) -> dict[str, float]:
        """Shares of the different prompts, for the log."""
        total = len(self._visits)
        return {f"curriculum/{standing}": self._counts[standing] / total for standing in Standing}

    def _weight(self, key: int) -> float:
        down = self._config.prompt_curriculum == "down_weight" and self.standing(key) is not Standing.ACTIVE
        return self._config.curriculum_weight if down else 1.0

    def _set(self, key: int, rates: tuple[float, ...]) -> None:
        self._counts[self.standing(key)] -= 1
        self._visits[key] = rates[-self._config.curriculum_visits :]
        self._counts[self.standing(key)] += 1

    # ---- epochs -----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget which prompts an epoch skips: a training begins, and its first epoch decides anew."""
        self._epoch = None

    def begin_epoch(self, epoch: int) -> None:
        """Decide which prompts this epoch skips; after a resume in its middle the decision at its beginning stands."""
        if epoch == self._epoch:
            return
        self._epoch, self._skipped = epoch, frozenset(key for key in self._visits if self._to_skip(key, epoch))
        if len(self._skipped) == len(self._visits):
            logger.warning(
                "epoch %d: all %d prompts are solved always or never, and none is left to take their place; all of "
                "them are visited. Stop here, or give other prompts",
                epoch,
                len(self._visits),
            )

    def replacements(self) -> dict[int, int]:
        """Row -> row that takes its place in this epoch, drawn from (seed, epoch).

        Every prompt that is not skipped gets at most MOST_TURNS turns, its own included. Slots that are left then keep
        their prompts, so an epoch has the same length whatever was skipped.
        """
        if not self._skipped:
            return {}
        freed = [row for row, key in enumerate(self._keys) if key in self._skipped]
        others = [row for row, key in enumerate(self._keys) if key not in self._skipped]
        seed = self._config.seed * EPOCH_STRIDE + (self._epoch or 0) + _REPLACEMENT_STREAM
        generator = torch.Generator().manual_seed(seed)
        turns = [row for _ in range(MOST_TURNS - 1) for row in _shuffled(others, generator)]
        return dict(zip(_shuffled(freed, generator), turns, strict=False))

    def _to_skip(self, key: int, epoch: int) -> bool:
        """Settled prompts come back every so many epochs, each in its own: as many in one epoch as in another."""
        skip = self._config.prompt_curriculum == "skip" and self.standing(key) is not Standing.ACTIVE
        return skip and (epoch + key) % self._config.curriculum_revisit != 0

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Visits by key, and the epoch's decision, from which a run that resumes inside the epoch goes on."""
        visits = {f"{key:016x}": list(rates) for key, rates in self._visits.items() if rates}
        return {"epoch": self._epoch, "skipped": [f"{key:016x}" for key in sorted(self._skipped)], "visits": visits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, whatever was visited since; prompts that the training set lost are forgotten."""
        for key in self._visits:
            self._set(key, tuple(state["visits"].get(f"{key:016x}", ())))
        self._epoch = state["epoch"]
        self._skipped = frozenset(int(name, 16) for name in state["skipped"]) & self._visits.keys()


def _shuffled(rows: Sequence[int], generator: torch.Generator) -> list[int]:
    return [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]


def _as_rate(outcome: float) -> float:
    for bound in (0.0, 1.0):
        if abs(outcome - bound) <= _ROUNDING:
            return bound
    if not 0.0 <= outcome <= 1.0:
        raise DataError(
            f"an outcome is {outcome}; the prompt curriculum takes outcomes as rates in [0, 1], 1 for solved. Give an "
            "outcome reward in [0, 1], or set prompt_curriculum to 'off'"
        )
    return outcome


def curriculum_for(config: RLSPConfig, prompts: Any, outcome_function: Any) -> PromptCurriculum | None:
    """The curriculum that the config asks for over the training set, None for "off"; DataError where it has no rows."""
    if config.prompt_curriculum == "off":
        return None
    if not isinstance(prompts, Dataset):
        raise DataError(
            f"prompt_curriculum is {config.prompt_curriculum!r} with a training set of type {type(prompts).__name__}, "
            "whose prompts cannot be visited by choice; pass a datasets.Dataset, or set prompt_curriculum to 'off'"
        )
    return PromptCurriculum(config, prompts, getattr(outcome_function, "column", "answer"))

"""Samples that another program drew: the gap to the trainer is logged, and the importance weights made and watched."""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.correction import (
    LARGE_DIFFERENCE,
    MUCH_DROPPED,
    WeightFacts,
    cut_distribution,
    difference_warning,
    dropped_warning,
    importance_ratio,
    logp_difference,
    missing_warning,
    weight_facts,
)
from rltoolkit.rlsp.refusals import refuse_unread_sampling

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["SamplerGap"]

logger = logging.getLogger(__name__)


class SamplerGap:
    """What lies between the sampler's log-probs and the trainer's, over all ranks; warns once of each fault."""

    def __init__(self, trainer: "RLSPTrainer") -> None:
        self._trainer = trainer
        self._warned: set[str] = set()

    def refuse_what_cannot_hold(self, *, elsewhere: bool) -> None:
        """Raise ModelError, before the first sample is drawn, for options of sampling that would not do what they say.

        No rollout backend reads all that TRL's own sampling does. Where the sampler is `elsewhere`, in another program,
        its samples of a cut distribution could not be corrected.
        """
        trainer = self._trainer
        refuse_unread_sampling(trainer.args)
        cut = cut_distribution(trainer.top_p, trainer.top_k, trainer.min_p)
        if elsewhere and cut is not None and trainer.vllm_importance_sampling_correction:
            raise ModelError(cut)

    def correct(self, output: dict[str, Any], logps: Tensor, mask: Tensor, metrics: dict[str, list[float]]) -> None:
        """Log how far the sampler is from `logps` (B, C), and weigh the policy loss where TRL would."""
        sampled = output["sampling_per_token_logps"]
        self._log_difference(logps, sampled, mask, metrics)
        if not self._trainer.vllm_importance_sampling_correction:
            return
        options = {
            "mode": self._trainer.vllm_importance_sampling_mode,
            "low": self._trainer.vllm_importance_sampling_clip_min,
            "high": self._trainer.vllm_importance_sampling_clip_max,
        }
        output["importance_sampling_ratio"] = ratio = importance_ratio(logps, sampled, mask, **options)
        self._log_weights(weight_facts(ratio, mask, **options), metrics)

    def _log_difference(self, logps: Tensor, sampled: Tensor, mask: Tensor, metrics: dict[str, list[float]]) -> None:
        """Log how far apart the log-probs are, and how many the sampler left out; nothing of what is not known."""
        accelerator, gap = self._trainer.accelerator, logp_difference(logps, sampled, mask)
        sums = torch.stack([gap.total, gap.tokens, mask.sum().to(gap.total)])
        total, told, counted = accelerator.reduce(sums, reduction="sum").tolist()
        largest = accelerator.gather(gap.largest).max().item()
        if counted > 0:
            metrics["sampling/without_logp"].append(1 - told / counted)
        if told < counted:
            self._warn_once("missing", missing_warning(1 - told / counted))
        if told == 0:
            return
        mean = total / told
        metrics["sampling/logp_difference_mean"].append(mean)
        metrics["sampling/logp_difference_max"].append(largest)
        if mean > LARGE_DIFFERENCE:
            self._warn_once("difference", difference_warning(mean, largest))

    def _log_weights(self, facts: WeightFacts, metrics: dict[str, list[float]]) -> None:
        """Log the importance weights of a rollout, and warn once where they leave much of it out."""
        accelerator = self._trainer.accelerator
        sums = torch.stack([facts.total, facts.clipped, facts.dropped, facts.tokens])
        total, clipped, dropped, tokens = accelerator.reduce(sums, reduction="sum").tolist()
        ends = accelerator.gather(torch.stack([facts.lowest, -facts.highest]).unsqueeze(0)).amin(0).tolist()
        if tokens == 0:
            return
        shares = {"weight_mean": total, "clipped": clipped, "dropped": dropped}
        values = {name: value / tokens for name, value in shares.items()}
        for name, value in (values | {"weight_min": ends[0], "weight_max": -ends[1]}).items():
            metrics[f"sampling/{name}"].append(value)
        if values["dropped"] > MUCH_DROPPED:
            self._warn_once("dropped", dropped_warning(values["dropped"], self._trainer.vllm_importance_sampling_mode))

    def _warn_once(self, what: str, text: str) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        if self._trainer.accelerator.is_main_process:
            logger.warning(text)

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
    weight_facts,
)

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["SamplerGap"]

logger = logging.getLogger(__name__)


class SamplerGap:
    """What lies between the sampler's log-probs and the trainer's, over all ranks; warns once of each fault."""

    def __init__(self, trainer: "RLSPTrainer") -> None:
        self._trainer = trainer
        self._warned: set[str] = set()

    def refuse_what_cannot_be_corrected(self) -> None:
        """Raise ModelError where samples of a cut distribution would be corrected; before the first is drawn."""
        trainer = self._trainer
        cut = cut_distribution(trainer.top_p, trainer.top_k, trainer.min_p)
        if cut is not None and trainer.vllm_importance_sampling_correction:
            raise ModelError(cut)

    def correct(self, output: dict[str, Any], logps: Tensor, mask: Tensor, metrics: dict[str, list[float]]) -> None:
        """Log how far the sampler is from `logps` (B, C), and weigh the policy loss where TRL would."""
        sampled, reduce = output["sampling_per_token_logps"], self._trainer.accelerator.reduce
        gap = logp_difference(logps, sampled, mask)
        total, tokens = reduce(torch.stack([gap.total, gap.tokens]), reduction="sum").tolist()
        mean, largest = total / max(1.0, tokens), self._trainer.accelerator.gather(gap.largest).max().item()
        metrics["sampling/logp_difference_mean"].append(mean)
        metrics["sampling/logp_difference_max"].append(largest)
        if mean > LARGE_DIFFERENCE:
            self._warn_once("difference", difference_warning(mean, largest))
        if not self._trainer.vllm_importance_sampling_correction:
            return
        options = {
            "mode": self._trainer.vllm_importance_sampling_mode,
            "low": self._trainer.vllm_importance_sampling_clip_min,
            "high": self._trainer.vllm_importance_sampling_clip_max,
        }
        output["importance_sampling_ratio"] = ratio = importance_ratio(logps, sampled, mask, **options)
        self._log_weights(weight_facts(ratio, mask, **options), metrics)

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

"""Watches a trainer's rollouts on all ranks: the log, the hacking alarm, the sample files."""

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rltoolkit.rlsp.advantages import Moments, correlation, masked_moments
from rltoolkit.rlsp.rewards.scoring import exploration_paid
from rltoolkit.rlsp.watch.alarm import NAMED, Alarm, HackingAlarm, Mean, Suspect
from rltoolkit.rlsp.watch.observe import Rollout, rollout_metrics, sample_rows

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["Observer"]

logger = logging.getLogger(__name__)

# TRL's own, of groups: with one response per prompt every group has no spread, and `reward` adds up parts unweighted.
MISLEADING = ("reward", "reward_std", "frac_reward_zero_std")
WRONG_BELOW = 0.5  # of the outcome reward: what an alarm may name as a wrong answer


class Observer:
    """Counts what a rollout shows, over all ranks, and hands it to the log, to the alarm and to the sample sink."""

    def __init__(self, trainer: "RLSPTrainer", alarm: HackingAlarm) -> None:
        self._trainer = trainer
        self.alarm = alarm
        self._held_out: list[Tensor] = []

    def see(self, rollout: Rollout, further: Mapping[str, float]) -> None:
        """Take in a rollout of training or of an evaluation; every rank calls it with its own responses."""
        trainer, mode = self._trainer, self._trainer._mode
        metrics = trainer._metrics[mode]
        for name in MISLEADING:
            metrics.pop(name, None)
        names, sums = rollout_metrics(rollout, trainer.args, trainer.eos_token_ids)
        paid = exploration_paid(rollout.exploration, rollout.facts, trainer.args, like=rollout.score)
        moments = _moments(rollout, paid, trainer.args.max_completion_length)
        summed = trainer.accelerator.reduce(torch.cat([sums.flatten(), moments.flatten()]), reduction="sum").cpu()
        means, by_quantity = summed[: sums.numel()].view(-1, 2), summed[sums.numel() :].view(-1, 3)
        values = {name: total / count for name, (total, count) in zip(names, means.tolist(), strict=True) if count > 0}
        lengths, outcomes, products, payments = (Moments(*row.unbind()) for row in by_quantity)
        linear = correlation(lengths, outcomes, products)
        values["length_outcome_correlation"] = math.copysign(1.0, linear) if abs(linear) > 1 else linear  # rounding
        for name, value in {**values, **further}.items():
            if math.isfinite(value):  # what is undefined is absent
                metrics[name].append(value)
        if mode == "eval":
            self._held_out.append(torch.stack(outcomes))
            return
        count, total, squares = torch.stack(payments).tolist()
        self.alarm.saw(count, total, squares, self._suspects(rollout, paid))
        self._keep_samples(rollout)

    def judge(self, name: str) -> Alarm | None:
        """End an evaluation of the Trainer's own: what its rollouts were worth is a held-out measurement."""
        sums, self._held_out = self._held_out, []
        if not sums:
            return None
        count, total, squares = torch.stack(sums).sum(0).tolist()
        event = self.alarm.judge(self._trainer.state.global_step, {name: Mean.of(count, total, squares)})
        if event is not None and self._trainer.accelerator.is_main_process:
            logger.warning(event.text(self.alarm.samples_dir))
        return event

    def add_to(self, logs: dict[str, Any]) -> None:
        """Say in a log of training or of an evaluation whether the alarm rings, once that can be known."""
        if self.alarm.ringing is None:
            return
        if "learning_rate" in logs:
            logs["alarm/hacking"] = float(self.alarm.ringing)
        elif any(key.startswith("eval_") for key in logs):
            logs["eval_alarm/hacking"] = float(self.alarm.ringing)

    def _suspects(self, rollout: Rollout, paid: Tensor) -> list[Suspect]:
        """The wrong answers of all ranks that exploration paid best, the same list on every rank."""
        trainer = self._trainer
        worth = torch.where(rollout.outcome < WRONG_BELOW, paid, torch.nan).double()
        worth = worth.nan_to_num(nan=-math.inf)
        best = worth.sort(descending=True, stable=True)
        table = torch.full((NAMED, 3), -math.inf, dtype=torch.float64, device=worth.device)
        kept = min(NAMED, worth.numel())
        table[:kept, 0] = best.values[:kept]
        table[:kept, 1] = best.indices[:kept].double()
        table[:, 2] = trainer.accelerator.process_index
        rows = trainer.accelerator.gather(table).tolist()
        step = trainer.state.global_step
        return [Suspect(value, step, int(rank), int(row)) for value, row, rank in rows if value > -math.inf]

    def _keep_samples(self, rollout: Rollout) -> None:
        trainer = self._trainer
        if trainer._sample_sink is None:
            return
        step = trainer.state.global_step
        rows = sample_rows(rollout, step, trainer._tokenizer, trainer.eos_token_ids)
        trainer._sample_sink(step, trainer.accelerator.process_index, rows)


def _moments(rollout: Rollout, paid: Tensor, longest: int) -> Tensor:
    """(4, 3) count, sum and squares: length, outcome and their product where scorable; paid exploration.

    Lengths are shares of the longest possible, so that their squares stay small.
    """
    outcome = rollout.outcome.double()
    lengths = rollout.lengths.double() / longest
    known = ~outcome.isnan()
    quantities = [(lengths, known), (outcome, known), (lengths * outcome, known), (paid, ~paid.isnan())]
    return torch.stack([torch.stack(masked_moments(values, chosen)) for values, chosen in quantities])

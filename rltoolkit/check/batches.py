"""The arithmetic of TRL's batches, written out, and what does not divide."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rltoolkit.recipe.contradictions import Finding


@dataclass(frozen=True)
class Batches:
    """The factors of a run's batches; responses are counted over all processes."""

    per_device: int
    processes: int
    accumulation: int
    steps_per_generation: int
    num_generations: int
    epochs_per_rollout: int

    @property
    def update(self) -> int:
        """Responses in one optimiser update."""
        return self.per_device * self.processes * self.accumulation

    @property
    def rollout(self) -> int:
        """Responses sampled at once."""
        return self.per_device * self.processes * self.steps_per_generation

    @property
    def updates_per_rollout(self) -> float:
        """Optimiser updates between two rollouts."""
        return self.steps_per_generation * self.epochs_per_rollout / self.accumulation

    def findings(self) -> list[Finding]:
        """What does not divide."""
        found = []
        if self.rollout % self.num_generations:
            what = f"is {self.num_generations}, which does not divide a rollout of {self.rollout} responses"
            found.append(Finding("train.num_generations", what, remedy="change it or train.steps_per_generation"))
        micro_steps = self.steps_per_generation * self.epochs_per_rollout
        if micro_steps % self.accumulation:
            what = f"is {self.accumulation}, which does not divide the {micro_steps} micro-steps of a rollout"
            remedy = "change it or train.steps_per_generation, or an update mixes two rollouts"
            found.append(Finding("train.gradient_accumulation_steps", what, remedy=remedy))
        return found

    def lines(self) -> list[str]:
        """The arithmetic in words."""
        device, processes = self.per_device, self.processes
        prompts = self.rollout // self.num_generations
        return [
            f"rollout: {device} per device x {processes} process(es) x {self.steps_per_generation} steps_per_generation"
            f" = {self.rollout} responses, {prompts} prompts x {self.num_generations}",
            f"update:  {device} per device x {processes} process(es) x {self.accumulation} accumulation"
            f" = {self.update} responses",
            f"updates per rollout: {self.rollout} / {self.update} x {self.epochs_per_rollout} epoch(s)"
            f" = {self.updates_per_rollout:g}",
        ]

    def schedule(self, prompts: int, *, max_steps: int, epochs: float) -> list[str]:
        """How long the run is on a dataset of so many prompts; `max_steps` is -1 where epochs decide."""
        per_rollout = self.rollout // self.num_generations
        per_epoch, left = divmod(prompts, per_rollout)
        lines = [f"one pass over {prompts} prompts: {per_epoch} rollout(s), {left} prompt(s) left out"]
        updates = max_steps if max_steps > 0 else math.ceil(per_epoch * self.updates_per_rollout * epochs)
        rollouts = math.ceil(updates / self.updates_per_rollout)
        why = "max_steps" if max_steps > 0 else f"num_train_epochs {epochs:g}"
        return [*lines, f"the run: {updates} update(s) in {rollouts} rollout(s), from {why}"]


def sft_lines(per_device: int, processes: int, accumulation: int) -> list[str]:
    """The arithmetic of supervised fine-tuning."""
    total = per_device * processes * accumulation
    return [f"update: {per_device} per device x {processes} process(es) x {accumulation} accumulation = {total} rows"]


def too_few(prompts: int, batches: Batches) -> Finding | None:
    """A dataset that does not fill one rollout."""
    wanted = batches.rollout // batches.num_generations
    if prompts >= wanted:
        return None
    remedy = "give more prompts, or lower train.steps_per_generation or train.per_device_train_batch_size"
    return Finding("data.train", f"has {prompts} prompts, and one rollout takes {wanted}", remedy=remedy)

"""Ending SFT at a measured accuracy, so that reinforcement learning has something left to learn."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopAtAccuracy(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Measures the model every `every_steps` optimiser steps and stops training once it reaches `target`.

    `measure(model)` returns an accuracy in [0, 1], the same on every process; it runs in evaluation mode and without
    touching the random numbers that training draws. The checkpoint of the step at which training stops is written,
    so that a run that dies right after it does not train on.
    """

    def __init__(self, measure: Callable[[PreTrainedModel], float], target: float, every_steps: int) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}; give a number of steps >= 1")
        self.measure = measure
        self.target = target
        self.every_steps = every_steps
        self.accuracy: float | None = None  # the last that was measured

    def on_step_end(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_kwargs: Any,
    ) -> TrainerControl:
        """Measure when it is time to."""
        if state.global_step % self.every_steps == 0:
            self.accuracy = self._measured(model)
            if self.accuracy >= self.target:
                control.should_training_stop = True
                control.should_save = True
        return control

    def _measured(self, model: PreTrainedModel) -> float:
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng():
                return self.measure(model)
        finally:
            model.train(was_training)

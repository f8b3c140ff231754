"""What makes a run of PPO resumable to the bit, and keeps weights still that an update has nothing to say of.

TRL's sampler draws from one generator over all epochs, and its buffer of generated responses is not in a checkpoint.
So the order of each epoch is drawn from (seed, epoch) here, and a checkpoint waits for the end of its rollout; one
that cannot wait, because training ends, keeps the rollout's rest (see in_flight.py).
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["EPOCH_STRIDE", "EpochSeededSampler", "RolloutSchedule"]

EPOCH_STRIDE = 1_000_003  # a prime: seeds of neighbouring runs and epochs do not coincide


class EpochSeededSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with an order that depends on seed and epoch alone; `instead_of` swaps rows of this epoch."""

    epoch = 0
    instead_of: Mapping[int, int] = {}

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) * EPOCH_STRIDE + self.epoch)
        for row in super().__iter__():
            yield self.instead_of.get(row, row)


class RolloutSchedule(TrainerCallback):  # type: ignore[misc]
    """Ties epochs, checkpoints and the critic's warm-up to the boundaries of rollouts."""

    def __init__(self, trainer: "RLSPTrainer") -> None:
        self._trainer = trainer
        self._save_pending = False

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Go on with the rollout that the checkpoint was made in; without one, begin with a new rollout."""
        self._save_pending = False
        self._trainer.in_flight.resume(self._trainer)
        if self._trainer.curriculum is not None and state.global_step == 0:
            self._trainer.curriculum.restart()

    def on_epoch_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Tell the sampler which epoch begins; counted in whole epochs also after a resume in the middle of one."""
        sampler, curriculum = self._trainer.sampler, self._trainer.curriculum
        if sampler is not None:
            sampler.epoch = int(state.epoch or 0)
        if sampler is not None and curriculum is not None:
            curriculum.begin_epoch(sampler.epoch)
            sampler.instead_of = curriculum.replacements()

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Drop gradients of what must not move: an optimiser skips parameters without one.

        A zero gradient would not do, momentum and weight decay move the weights all the same. The policy's are dropped
        while the critic warms up, all of them in an update whose responses could not be scored, on any rank.
        """
        kept_still = self._trainer.policy_parameters() if self._trainer.critic_warming_up(state.global_step) else []
        if self._trainer.nothing_to_learn():
            kept_still = list(self._trainer.model.parameters())
        for parameter in kept_still:
            parameter.grad = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> TrainerControl:
        """Put a checkpoint off to the end of the rollout whose responses are still being learned from."""
        micro_steps = state.global_step * args.gradient_accumulation_steps
        at_boundary = micro_steps % self._trainer.args.micro_steps_per_rollout == 0
        cannot_wait = state.global_step >= state.max_steps or control.should_training_stop
        wanted = control.should_save or self._save_pending
        self._save_pending = wanted and not (at_boundary or cannot_wait)
        control.should_save = wanted and (at_boundary or cannot_wait)
        return control

    def on_epoch_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> TrainerControl:
        """Write a checkpoint that still waits: epochs end with a rollout, except where training was stopped."""
        control.should_save = control.should_save or self._save_pending
        self._save_pending = False
        return control

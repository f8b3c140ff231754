"""What makes a run of PPO resumable to the bit, and keeps the policy still while the critic warms up.

TRL's sampler draws from one generator over all epochs, and its buffer of generated responses is not in a checkpoint.
So the order of each epoch is drawn from (seed, epoch) here, and a checkpoint waits for the end of its rollout.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["EpochSeededSampler", "RolloutSchedule"]

EPOCH_STRIDE = 1_000_003  # a prime: seeds of neighbouring runs and epochs do not coincide


class EpochSeededSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with an order that depends on seed and epoch alone."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) * EPOCH_STRIDE + self.epoch)
        yield from super().__iter__()


class RolloutSchedule(TrainerCallback):  # type: ignore[misc]
    """Ties epochs, checkpoints and the critic's warm-up to the boundaries of rollouts."""

    def __init__(self, trainer: "RLSPTrainer") -> None:
        self._trainer = trainer
        self._save_pending = False

    def on_epoch_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """Tell the sampler which epoch begins; counted in whole epochs also after a resume in the middle of one."""
        if self._trainer.sampler is not None:
            self._trainer.sampler.epoch = int(state.epoch or 0)

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        """While the critic warms up, drop the policy's gradients: an optimiser skips parameters without one.

        A zero gradient would not do, weight decay moves the weights all the same.
        """
        if self._trainer.critic_warming_up(state.global_step):
            for parameter in self._trainer.policy_parameters():
                parameter.grad = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_kwargs: Any
    ) -> TrainerControl:
        """Put a checkpoint off to the end of the rollout whose responses are still being learned from."""
        micro_steps = state.global_step * args.gradient_accumulation_steps
        at_boundary = micro_steps % self._trainer.args.micro_steps_per_rollout == 0
        wanted = control.should_save or self._save_pending
        is_last = state.global_step >= state.max_steps
        self._save_pending = wanted and not (at_boundary or is_last)
        control.should_save = wanted and (at_boundary or is_last)
        return control

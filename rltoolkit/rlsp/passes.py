"""Which passes through policy, reference and critic a rollout and an update need, and how their rows are divided."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rltoolkit.rlsp.batches import Budget, pass_overhead
from rltoolkit.rlsp.critics.critic import SharedCritic
from rltoolkit.rlsp.forward import Scored, adapters_off, in_parts, logps_of, row_lengths, score, values_of
from rltoolkit.rlsp.update import learning_parts

if TYPE_CHECKING:
    from rltoolkit.rlsp.trainer import RLSPTrainer

__all__ = ["Passes", "SamplerScored"]


class SamplerScored(NamedTuple):
    """What the models that sampled say of a rollout."""

    logps: Tensor
    """(B, C); zeros where nothing needs them."""
    values: Tensor
    """(B, C, S)."""


class Passes:
    """Asks the models of a trainer: rows of similar length together, and nothing twice."""

    def __init__(self, trainer: "RLSPTrainer") -> None:
        self._trainer = trainer
        self._values: Tensor | None = None

    def rollout_begins(self) -> None:
        """Forget the values of the rollout before."""
        self._values = None

    @torch.no_grad()
    def logps(self, model: nn.Module, ids: Tensor, attention: Tensor, width: int) -> Tensor:
        """Log-probs (B, width) of the last tokens of a rollout (B, T); the policy's bring the values along."""
        start = ids.size(1) - width
        inputs = {
            "prompt_ids": ids[:, :start],
            "prompt_mask": attention[:, :start],
            "completion_ids": ids[:, start:],
            "completion_mask": attention[:, start:],
        }
        if model is self._trainer.model and not adapters_off(model):
            return self._scored(inputs).logps
        return self._ask(logps_of, model, inputs)[0]

    @torch.no_grad()
    def sampler_scored(self, rollout: dict[str, Any], *, logps_needed: bool) -> SamplerScored:
        """Log-probs and values of a rollout, in one pass where that spares one.

        TRL leaves log-probs out where a rollout is learned from in one update, whose ratio is 1. Where nothing else
        needs them they are zeros, and not entered into the rollout.
        """
        if "old_per_token_logps" not in rollout and (logps_needed or self._forwards == 1):
            rollout["old_per_token_logps"] = self._scored(rollout).logps
        values = self._values
        if values is None:
            values = self._ask(values_of, self._trainer.critic, rollout)[0]
        return SamplerScored(rollout.get("old_per_token_logps", torch.zeros_like(values[..., 0])), values)

    def parts(self, minibatch: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a minibatch that count, divided for one forward and backward pass each."""
        rows = minibatch["loss_mask"].size(0)
        if self._trainer.is_deepspeed_enabled:  # its engine counts backward passes
            return learning_parts(minibatch, lambda lengths: [list(range(len(lengths)))])
        return learning_parts(minibatch, lambda lengths: self._budget.divide(lengths, rows=rows))

    def _scored(self, inputs: dict[str, Any]) -> Scored:
        scored = Scored(*self._ask(score, self._trainer.model, inputs))
        self._values = scored.values
        return scored

    def _ask(
        self, ask: Callable[[nn.Module, dict[str, Any]], tuple[Tensor, ...]], model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        rows = self._trainer.args.per_device_train_batch_size
        batches = self._budget.divide(row_lengths(inputs), rows=rows)
        with self._trainer.accelerator.autocast():
            return in_parts(ask, model, inputs, batches)

    @property
    def _forwards(self) -> int:
        return 1 if isinstance(self._trainer.critic, SharedCritic) else 2

    @property
    def _budget(self) -> Budget:
        return Budget(self._trainer.args.micro_batch_tokens, self._forwards, self._overhead)

    @functools.cached_property
    def _overhead(self) -> int:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        critics = {id(parameter) for parameter in self._trainer.critic.parameters()}
        parameters = sum(p.numel() for p in model.parameters() if id(p) not in critics)
        layers = getattr(model.config.get_text_config(), "num_hidden_layers", 1)
        return pass_overhead(layers, parameters, on_cpu=self._trainer.accelerator.device.type == "cpu")

"""The loss of one minibatch, and what is logged of it: pure functions of what the joint forward said."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from rltoolkit.rlsp.forward import Scored, row_lengths, rows_of
from rltoolkit.rlsp.losses import policy_loss, value_loss

__all__ = ["TOKENS", "MinibatchLoss", "learning_parts", "minibatch_loss", "token_sums"]

TOKENS = "tokens"


class MinibatchLoss(NamedTuple):
    """Sums over the counted tokens of a minibatch."""

    policy: Tensor
    value: Tensor
    logged: dict[str, Tensor]
    """Per token (B, C), detached, by the name of the metric."""


def minibatch_loss(
    scored: Scored, inputs: dict[str, Any], *, clip_low: float, clip_high: float, clip_value: float
) -> MinibatchLoss:
    """Clipped policy loss (B, C) and clipped value loss, summed over streams; where `loss_mask` counts.

    `inputs` has old_per_token_logps, advantages and loss_mask (B, C), old_values and returns (B, C, S), and
    importance_sampling_ratio where another program drew the samples. Without old log-probs the ratio is 1: a rollout
    that is learned from in one update.
    """
    mask, old_logps = inputs["loss_mask"], inputs.get("old_per_token_logps")
    if old_logps is None:
        old_logps = scored.logps.detach()
    policy = policy_loss(scored.logps, old_logps, inputs["advantages"], clip_low=clip_low, clip_high=clip_high)
    value = value_loss(scored.values, inputs["old_values"], inputs["returns"], clip=clip_value)
    policy_losses = policy.loss * inputs.get("importance_sampling_ratio", 1.0)
    value_losses = value.loss.sum(-1)
    log_ratio = (scored.logps - old_logps).detach()
    logged = {
        "policy/loss": policy_losses,
        "policy/clip_fraction": policy.clipped,
        "policy/approx_kl": log_ratio.exp() - 1 - log_ratio,
        "value/loss": value_losses,
        "value/clip_fraction": value.clipped.float().mean(-1),
        "entropy": scored.entropy,
    }
    return MinibatchLoss(
        (policy_losses * mask).sum(),
        (value_losses * mask).sum(),
        {name: tensor.detach().float() for name, tensor in logged.items()},
    )


def token_sums(per_token: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Sums over counted tokens by name, and their number under TOKENS, to be added over parts and ranks."""
    return {name: (tensor * mask).sum() for name, tensor in per_token.items()} | {TOKENS: mask.sum().float()}


def learning_parts(inputs: dict[str, Any], divide: Callable[[Sequence[int]], list[list[int]]]) -> list[dict[str, Any]]:
    """The rows of a minibatch that count, divided by their lengths; never empty, every rank needs a backward pass."""
    lengths = row_lengths(inputs)
    counted = inputs["loss_mask"].any(1).nonzero().squeeze(1).tolist()
    rows = counted or [min(range(len(lengths)), key=lengths.__getitem__)]
    batches = divide([lengths[row] for row in rows])
    return [rows_of(inputs, [rows[i] for i in batch]) for batch in batches]

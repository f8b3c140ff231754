"""The loss of one minibatch, and what is logged of it: pure functions of what the joint forward said."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rltoolkit.rlsp.forward import Scored
from rltoolkit.rlsp.losses import policy_loss, value_loss

__all__ = ["MinibatchLoss", "minibatch_loss", "token_sums"]


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
    importance_sampling_ratio where another program drew the samples.
    """
    mask, old_logps = inputs["loss_mask"], inputs["old_per_token_logps"]
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


def token_sums(per_token: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Sums over counted tokens in the order of the names, and last the number of tokens, to be added over ranks."""
    return torch.stack([*((tensor * mask).sum() for tensor in per_token.values()), mask.sum().float()])

"""The two clipped losses of PPO, per token: pure functions (Schulman et al., arXiv 1707.06347)."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TokenLoss", "policy_loss", "value_loss"]


class TokenLoss(NamedTuple):
    """A loss per token (B, T), and where the clip decided it."""

    loss: Tensor
    clipped: Tensor


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> TokenLoss:
    """-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = exp(logps - old_logps); all (B, T)."""
    ratio = torch.exp(logps - old_logps)
    free = ratio * advantages
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return TokenLoss(-torch.min(free, bounded), bounded < free)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> TokenLoss:
    """max((V - R)^2, (V_old + clip(V - V_old, +-clip) - R)^2) / 2; all (B, T)."""
    change = values - old_values
    bounded = old_values + change.clamp(-clip, clip)
    free_error, bounded_error = (values - returns) ** 2, (bounded - returns) ** 2
    # Within the clip the two differ by rounding, which is no clipping.
    clipped = (change.abs() > clip) & (bounded_error > free_error)
    return TokenLoss(0.5 * torch.max(free_error, bounded_error), clipped)

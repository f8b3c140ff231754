"""Advantages from rewards and values: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "correlation", "explained_variance", "gae", "masked_moments", "standard_deviation", "whiten"]

VARIANCE_FLOOR = 1e-8


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation; returns advantages and returns, zero where the mask is.

    All (B, T); mask is 1 where a token counts. Tokens that do not count (padding, a tool's words) are stepped over:
    the next counted token is the successor. delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1},
    return_t = A_t + V_t, with V = A = 0 behind the last token (Schulman et al., arXiv 1506.02438, eq. 16).
    """
    if values.dtype != torch.float64:
        rewards, values = rewards.float(), values.float()
    keep = mask.bool()
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(values[:, 0])
    for t in range(values.size(1) - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(keep[:, t], delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(keep[:, t], values[:, t], next_value)
        advantages[:, t] = next_advantage
    zero = torch.zeros_like(values)
    return torch.where(keep, advantages, zero), torch.where(keep, advantages + values, zero)


class Moments(NamedTuple):
    """Sums over counted tokens, to be added up over ranks before they are used."""

    tokens: Tensor
    total: Tensor
    squares: Tensor


def masked_moments(values: Tensor, mask: Tensor) -> Moments:
    """Count, sum and sum of squares of the counted entries, in float64 so that ranks can simply be added."""
    chosen = values[mask.bool()].double()
    return Moments(torch.tensor(float(chosen.numel()), device=values.device).double(), chosen.sum(), (chosen**2).sum())


def whiten(values: Tensor, mask: Tensor, moments: Moments | None = None, *, least_spread: float = 0.0) -> Tensor:
    """Shift and scale to mean 0 and population variance 1 over all counted tokens, zero elsewhere.

    values and mask (B, T). `moments` are those of all ranks; without them the tensor is all there is. What spreads
    less than `least_spread` is divided by that, and the variance is floored at 1e-8. Whitening is over the whole
    rollout: per sequence it would erase the reward.
    """
    tokens, total, squares = moments if moments is not None else masked_moments(values, mask)
    mean = total / tokens.clamp(min=1)
    variance = (squares / tokens.clamp(min=1) - mean**2).clamp(min=max(VARIANCE_FLOOR, least_spread**2))
    whitened = (values - mean.to(values.dtype)) * variance.rsqrt().to(values.dtype)
    return torch.where(mask.bool(), whitened, torch.zeros_like(values))


def explained_variance(returns: Moments, errors: Moments) -> float:
    """1 - Var(return - value) / Var(return): 1 for a perfect critic, 0 for a constant one, NaN without variance."""
    variance = _variance(returns)
    return float("nan") if variance < VARIANCE_FLOOR else 1.0 - _variance(errors) / variance


def correlation(first: Moments, second: Moments, products: Moments) -> float:
    """Pearson's correlation from the moments of two quantities and of their product; NaN where one does not vary."""
    spread = _variance(first) * _variance(second)
    if min(_variance(first), _variance(second)) < VARIANCE_FLOOR:
        return float("nan")
    tokens = max(1.0, products.tokens.item())
    covariance = products.total.item() / tokens - (first.total.item() / tokens) * (second.total.item() / tokens)
    return float(covariance / spread**0.5)


def standard_deviation(moments: Moments) -> float:
    """Of the counted entries; NaN where nothing counts."""
    return float("nan") if moments.tokens.item() == 0 else float(max(0.0, _variance(moments)) ** 0.5)


def _variance(moments: Moments) -> float:
    tokens = max(1.0, moments.tokens.item())
    return moments.squares.item() / tokens - (moments.total.item() / tokens) ** 2

"""From scores, log-probs and values to what PPO learns from: advantages and returns of a rollout."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rltoolkit.rlsp.advantages import Moments, explained_variance, gae, masked_moments, whiten
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.reward import token_rewards

__all__ = ["Estimate", "estimate"]

OverRanks = Callable[[Moments], Moments]


@dataclass(frozen=True)
class Estimate:
    """What a rollout is worth, token by token."""

    advantages: Tensor
    """(B, C), what the policy learns from."""
    returns: Tensor
    """(B, C, S), what the critic learns from."""
    metrics: dict[str, float]


def estimate(
    score: Tensor,
    logps: Tensor,
    ref_logps: Tensor | None,
    values: Tensor,
    mask: Tensor,
    config: RLSPConfig,
    over_ranks: OverRanks,
) -> Estimate:
    """The paper's single scalar: score (B,) on the last token, KL on every token, GAE, whitening over all ranks."""
    rewards = token_rewards(score.nan_to_num(nan=0.0), logps, ref_logps, mask, kl_coef=config.kl_coef)
    advantages, returns = gae(rewards, values[..., 0], mask, gamma=config.gamma, lam=config.gae_lambda)
    variance = explained_variance(
        over_ranks(masked_moments(returns, mask)), over_ranks(masked_moments(returns - values[..., 0], mask))
    )
    if config.whiten_advantages:
        advantages = whiten(advantages, mask, over_ranks(masked_moments(advantages, mask)))
    return Estimate(advantages, returns.unsqueeze(-1), {"value/explained_variance": variance})

"""From scores, log-probs and values to what PPO learns from: advantages and returns of a rollout.

One stream is the paper's: one scalar reward, one value, one advantage. Decoupled, the same reward is kept in its two
parts, correctness with the KL term and exploration, and each part has a value head, discounts and statistics of its
own; the policy learns from their weighted sum. GAE is linear in rewards and values, so with equal discounts, weight 1
and no normalisation both agree wherever the values add up too, as least squares makes them for a linear critic.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rltoolkit.rlsp.advantages import (
    Moments,
    correlation,
    explained_variance,
    gae,
    masked_moments,
    standard_deviation,
    whiten,
)
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.rewards.reward import token_rewards

__all__ = ["STREAMS", "Estimate", "estimate", "outcome_rate"]

STREAMS = ("correctness", "exploration")
LEAST_SPREAD = 0.05
"""The least standard deviation that a stream's advantages are divided by, as a part of the stream's largest reward.

Where hardly anything happens in a stream, all scores alike, its advantages are the critic's errors; scaled to variance
1 they would count as much as a real signal. On Countdown exploration spreads 0.16 of its largest reward and more.
"""
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
    scores: Tensor,
    logps: Tensor,
    ref_logps: Tensor | None,
    values: Tensor,
    mask: Tensor,
    config: RLSPConfig,
    over_ranks: OverRanks,
    *,
    exploration_weight: float = 1.0,
) -> Estimate:
    """Scores (B, S) on the last token and KL on every token become advantages, whitened over all ranks, and returns.

    values (B, C, S), the rest (B, C). The streams are those of STREAMS where there are two.
    """
    scores = scores.nan_to_num(nan=0.0)  # unscorable: such a row has no counted token
    if scores.size(1) == 1:
        return _single(scores[:, 0], logps, ref_logps, values, mask, config, over_ranks)
    return _decoupled(scores, logps, ref_logps, values, mask, config, over_ranks, exploration_weight)


def outcome_rate(outcome: Tensor, over_ranks: OverRanks) -> float | None:
    """Mean outcome (B,) of the responses of all ranks that could be judged; None where there is none."""
    known = over_ranks(masked_moments(outcome, ~outcome.isnan()))
    return float(known.total / known.tokens) if known.tokens > 0 else None


def _single(
    score: Tensor,
    logps: Tensor,
    ref_logps: Tensor | None,
    values: Tensor,
    mask: Tensor,
    config: RLSPConfig,
    over_ranks: OverRanks,
) -> Estimate:
    """The paper's single scalar: score (B,) on the last token, KL on every token, GAE, whitening over all ranks."""
    rewards = token_rewards(score, logps, ref_logps, mask, kl_coef=config.kl_coef)
    advantages, returns = gae(rewards, values[..., 0], mask, gamma=config.gamma, lam=config.gae_lambda)
    variance = explained_variance(
        over_ranks(masked_moments(returns, mask)), over_ranks(masked_moments(returns - values[..., 0], mask))
    )
    if config.whiten_advantages:
        advantages = whiten(advantages, mask, over_ranks(masked_moments(advantages, mask)))
    return Estimate(advantages, returns.unsqueeze(-1), {"value/explained_variance": variance})


def _decoupled(
    scores: Tensor,
    logps: Tensor,
    ref_logps: Tensor | None,
    values: Tensor,
    mask: Tensor,
    config: RLSPConfig,
    over_ranks: OverRanks,
    weight: float,
) -> Estimate:
    """A = A_C + w A_E, or with `normalize_streams` alpha whiten(A_C) + w (1 - alpha) whiten(A_E)."""
    gammas = (config.gamma, _or(config.exploration_gamma, config.gamma))
    lams = (config.gae_lambda, _or(config.exploration_gae_lambda, config.gae_lambda))
    references = (ref_logps, None)  # straying from the start model is charged once, to correctness
    streams = []
    for stream, reference in enumerate(references):
        rewards = token_rewards(scores[:, stream], logps, reference, mask, kl_coef=config.kl_coef)
        streams.append(gae(rewards, values[..., stream], mask, gamma=gammas[stream], lam=lams[stream]))
    (correctness, correct_returns), (exploration, explored_returns) = streams
    returns = torch.stack([correct_returns, explored_returns], dim=-1)
    told = _moments_over_ranks(
        {
            **_by_stream("returns", returns),
            **_by_stream("errors", returns - values),
            **_by_stream("advantages", torch.stack([correctness, exploration], dim=-1)),
            "products": correctness * exploration,
        },
        mask,
        over_ranks,
    )
    if config.normalize_streams:
        correctness = _normalised(correctness, config.alpha, mask, told["advantages_correctness"])
        exploration = _normalised(exploration, 1 - config.alpha, mask, told["advantages_exploration"])
    advantages = correctness + weight * exploration
    if config.whiten_advantages:
        advantages = whiten(advantages, mask, over_ranks(masked_moments(advantages, mask)))
    return Estimate(advantages, returns, _stream_metrics(told))


def _normalised(advantages: Tensor, share: float, mask: Tensor, moments: Moments) -> Tensor:
    """Advantages of a stream that pays at most `share`, with that standard deviation, or less where little happens."""
    return share * whiten(advantages, mask, moments, least_spread=LEAST_SPREAD * share)


def _by_stream(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """(B, C, S) -> one (B, C) per stream; and their sum, where it has a meaning of its own."""
    parts = {f"{name}_{stream}": tensor[..., index] for index, stream in enumerate(STREAMS)}
    return parts if name == "advantages" else {**parts, name: tensor.sum(-1)}


def _moments_over_ranks(tensors: dict[str, Tensor], mask: Tensor, over_ranks: OverRanks) -> dict[str, Moments]:
    """Moments of many quantities, added over ranks in one exchange."""
    own = [masked_moments(tensor, mask) for tensor in tensors.values()]
    summed = over_ranks(Moments(*(torch.stack(column) for column in zip(*own, strict=True))))
    return {name: Moments(*(column[index] for column in summed)) for index, name in enumerate(tensors)}


def _stream_metrics(told: dict[str, Moments]) -> dict[str, float]:
    """Explained variance of the sum and per stream, spread and correlation of the advantages; without the undefined."""
    metrics = {"value/explained_variance": explained_variance(told["returns"], told["errors"])}
    for stream in STREAMS:
        name = f"value/explained_variance_{stream}"
        metrics[name] = explained_variance(told[f"returns_{stream}"], told[f"errors_{stream}"])
        metrics[f"advantage/std_{stream}"] = standard_deviation(told[f"advantages_{stream}"])
    metrics["advantage/stream_correlation"] = correlation(
        told["advantages_correctness"], told["advantages_exploration"], told["products"]
    )
    return {name: value for name, value in metrics.items() if value == value}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value

"""Where the sampler is another program than the trainer: how far their log-probs are apart, and what makes up for it.

Pure functions on (B, T); a mask is 1 where a token counts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RATIO_MODES", "Difference", "importance_ratio", "logp_difference"]

RATIO_MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""The values of `vllm_importance_sampling_mode`."""


def importance_ratio(
    trainer_logps: Tensor,
    sampler_logps: Tensor,
    mask: Tensor,
    *,
    mode: str,
    low: float | None = None,
    high: float | None = 3.0,
) -> Tensor:
    """Weights of the policy loss for samples of another distribution: pi_trainer / pi_sampler, kept within bounds.

    With d = (trainer_logps - sampler_logps) * mask the ratio is exp(d) per token, (B, T), in modes `token_*`, and
    exp(sum of d over the response), (B, 1), in modes `sequence_*`. Modes `*_truncate` clamp it to [low, high];
    modes `*_mask` set it to 0 outside. A bound of None does not bind. A log-prob that is NaN leaves its token's
    ratio at 1. The same as TRL makes of its own vLLM samples, from the same options.
    """
    if mode not in RATIO_MODES:
        raise ValueError(f"mode is {mode!r}; give one of {', '.join(RATIO_MODES)}")
    difference = ((trainer_logps - sampler_logps) * mask).nan_to_num(nan=0.0)
    if mode.startswith("sequence"):
        difference = difference.sum(dim=-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio if low is None and high is None else ratio.clamp(min=low, max=high)
    refused = torch.zeros_like(ratio, dtype=torch.bool)
    if low is not None:
        refused |= ratio < low
    if high is not None:
        refused |= ratio > high
    return ratio.masked_fill(refused, 0.0)


class Difference(NamedTuple):
    """|trainer - sampler| over counted tokens; sums are added and the largest is compared over ranks."""

    total: Tensor
    tokens: Tensor
    largest: Tensor


def logp_difference(trainer_logps: Tensor, sampler_logps: Tensor, mask: Tensor) -> Difference:
    """Absolute differences of the log-probs of the sampled tokens, in nats; tokens without a log-prob do not count."""
    gap = (trainer_logps.double() - sampler_logps.double()).abs()[mask.bool()]
    gap = gap[~gap.isnan()]
    largest = gap.max() if gap.numel() else gap.new_zeros(())
    return Difference(gap.sum(), gap.new_tensor(float(gap.numel())), largest)

"""Where the sampler is another program than the trainer: how far their log-probs are apart, and what makes up for it.

Pure functions on (B, T); a mask is 1 where a token counts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "LARGE_DIFFERENCE",
    "MUCH_DROPPED",
    "RATIO_MODES",
    "Difference",
    "WeightFacts",
    "cut_distribution",
    "difference_warning",
    "dropped_warning",
    "importance_ratio",
    "logp_difference",
    "missing_warning",
    "weight_facts",
]

RATIO_MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
"""The values of `vllm_importance_sampling_mode`."""

LARGE_DIFFERENCE = 0.1
"""Mean nats between the sampler's and the trainer's log-probs from which on the user is warned.

bfloat16 alone makes about 0.01; weights that were not taken over make 0.1 and more within a few updates.
"""

MUCH_DROPPED = 0.1
"""Share of a rollout's response tokens without weight from which on the user is warned."""


def cut_distribution(top_p: float | None, top_k: int | None, min_p: float | None) -> str | None:
    """Say why samples of a cut distribution cannot be corrected; None where none of the options cuts.

    The sampler reports log-probs of what it left over, the trainer those of the whole distribution: a ratio of the two
    would "correct" for the cut, and fall below 1 on every token however well both agree.
    """
    cuts = {
        "top_p": top_p if top_p is not None and top_p < 1 else None,
        "top_k": top_k if top_k is not None and top_k > 0 else None,
        "min_p": min_p if min_p is not None and min_p > 0 else None,
    }
    given = ", ".join(f"{name} is {value!r}" for name, value in cuts.items() if value is not None)
    if not given:
        return None
    return (
        f"{given} while another program samples and its log-probs correct the ratio, which takes samples of the whole "
        "distribution; leave top_p at 1, top_k at 0 and min_p unset, or turn vllm_importance_sampling_correction off"
    )


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

    TRL's default, `sequence_mask` with 3.0 above and nothing below, is one-sided: a response that the trainer finds
    more than 3 times as likely as the sampler did is dropped, while one that it finds less likely stays, with its
    small weight. Sums over long responses spread, so that ever more of them are dropped; the lower half stays. RLSP's
    default is `token_truncate`, which drops nothing.
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


class WeightFacts(NamedTuple):
    """Importance weights over counted tokens; `total`, `clipped`, `dropped` and `tokens` are added over ranks."""

    total: Tensor
    clipped: Tensor
    """Tokens whose weight is a bound (modes `*_truncate`)."""
    dropped: Tensor
    """Tokens with weight 0 (modes `*_mask`)."""
    tokens: Tensor
    lowest: Tensor
    """inf where no token counts."""
    highest: Tensor
    """-inf where no token counts."""


def weight_facts(
    ratio: Tensor, mask: Tensor, *, mode: str, low: float | None = None, high: float | None = 3.0
) -> WeightFacts:
    """What `importance_ratio` with these options made: `ratio` is (B, T) or (B, 1), `mask` is (B, T)."""
    weights = ratio.expand(mask.shape)[mask.bool()]
    bounds = [weights.new_tensor(bound) for bound in (low, high) if bound is not None]
    clipped = torch.zeros_like(weights, dtype=torch.bool)
    if mode.endswith("truncate"):
        for bound in bounds:
            clipped |= weights == bound
    ends = torch.cat([weights.double(), weights.new_tensor([torch.inf, -torch.inf]).double()])
    lowest, highest = ends[ends > -torch.inf].min(), ends[ends < torch.inf].max()
    return WeightFacts(
        weights.double().sum(),
        clipped.sum().double(),
        (weights == 0).sum().double() if mode.endswith("mask") else weights.new_zeros(()).double(),
        weights.new_tensor(float(weights.numel())).double(),
        lowest,
        highest,
    )


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


def difference_warning(mean: float, largest: float) -> str:
    """What the user is told from `LARGE_DIFFERENCE` on."""
    return (
        f"the sampler's log-probs differ from the trainer's by {mean:.3f} nats per token on average, {largest:.3f} at "
        f"most, expected below {LARGE_DIFFERENCE}: it has other weights, another dtype or another kind of log-probs. "
        "Give rollout.engine.dtype the dtype of the model, and start servers by `rltoolkit serve`; until then "
        "sampling/logp_difference_mean and sampling/dropped show what importance weights have to make up for"
    )


def missing_warning(share: float) -> str:
    """What the user is told where the sampler left out log-probs."""
    return (
        f"the sampler gave no log-prob for {share:.0%} of the response tokens (sampling/without_logp); they are not "
        "corrected, their importance weight is 1. Let the sampler report the log-prob of every token"
    )


def dropped_warning(dropped: float, mode: str) -> str:
    """What the user is told from `MUCH_DROPPED` on."""
    return (
        f"{dropped:.0%} of the response tokens have no weight (sampling/dropped, mode {mode}): the sampler is too far "
        "from the trainer, or the responses are too long for a weight of the whole response. See to "
        "sampling/logp_difference_mean first; if it is small, set train.vllm_importance_sampling_mode=token_truncate"
    )

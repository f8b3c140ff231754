"""Scalar rewards of RLSP and their placement on tokens: pure functions (Ye et al., arXiv 2502.06773)."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["RewardParts", "decoupled_reward", "paper_reward", "reward_parts", "token_rewards"]

NO_BOX_PENALTY = 0.5  # of the released code; flat, correctness is not looked at
JUDGE_FAILED_SCORE = 0.5  # what the released code takes for a judge that did not answer


class RewardParts(NamedTuple):
    """The two parts of the safe reward, (B,) each; the scalar is their sum."""

    correctness: Tensor
    exploration: Tensor


def reward_parts(
    outcome: Tensor,
    exploration: Tensor,
    has_answer: Tensor,
    *,
    alpha: float = 0.8,
    no_answer_penalty: float = 0.5,
) -> RewardParts:
    """`alpha*outcome - no_answer_penalty*(1-has_answer)`, and `(1-alpha)*exploration*has_answer`; all arguments (B,).

    outcome and exploration lie in [0, 1], has_answer in {0, 1}. NaN (unscorable) stays NaN in its own part.
    """
    outcome = _at_least_float32(outcome)
    gate = has_answer.to(outcome.dtype)
    correctness = alpha * outcome - no_answer_penalty * (1 - gate)
    return RewardParts(correctness, (1 - alpha) * exploration.to(outcome.dtype) * gate)


def decoupled_reward(
    outcome: Tensor,
    exploration: Tensor,
    has_answer: Tensor,
    *,
    alpha: float = 0.8,
    no_answer_penalty: float = 0.5,
) -> Tensor:
    """Combine outcome and gated exploration; the safe mode, in which a correct answer always outranks a wrong one.

    The sum of `reward_parts`, same arguments. NaN (unscorable) in one of them is NaN in the sum.
    """
    parts = reward_parts(outcome, exploration, has_answer, alpha=alpha, no_answer_penalty=no_answer_penalty)
    return parts.correctness + parts.exploration


def paper_reward(
    outcome: Tensor,
    has_box: Tensor,
    length: Tensor,
    judge: Tensor | None = None,
    *,
    c: float = 1000.0,
    alpha: float = 0.8,
    clip: float = 10.0,
) -> Tensor:
    """The reward of the released code: base - C/L, mixed with the judge's score where there is one, clipped.

    All arguments (B,). `length` is L, characters before the first box over 4; it is floored at 1, unlike there:
    the released code divides by zero there and maps the error to a neutral 0. A NaN judge score counts as 0.5.
    """
    outcome = _at_least_float32(outcome)
    base = torch.where(has_box.bool(), outcome, torch.full_like(outcome, -NO_BOX_PENALTY))
    effort = base - c / length.to(outcome.dtype).clamp(min=1.0) if c != 0 else base
    if judge is not None:
        score = judge.to(outcome.dtype).nan_to_num(nan=JUDGE_FAILED_SCORE)
        effort = alpha * effort + (1 - alpha) * score
    return effort.clamp(-clip, clip)


def token_rewards(score: Tensor, logps: Tensor, ref_logps: Tensor | None, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Per-token rewards: -kl_coef*(log pi_old - log pi_ref) on every token, plus the score on the last one.

    score (B,), the rest (B, T); mask is 1 where a response token counts. Without a reference only the score is left.
    A row without tokens stays zero. Source: the per-token reward of the released PPO (k1 estimator).
    """
    rewards = torch.zeros_like(_at_least_float32(logps))
    if ref_logps is not None and kl_coef != 0:
        rewards = -kl_coef * (logps - ref_logps).to(rewards.dtype)
    keep = mask.to(rewards.dtype)
    # the last counted token: no counted token follows it
    following = keep.flip(1).cumsum(1).flip(1)
    is_last = (following == 1) & mask.bool()
    return rewards * keep + is_last.to(rewards.dtype) * score.to(rewards.dtype).unsqueeze(1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()

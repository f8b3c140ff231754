"""From responses to the reward parts of RLSP: what is asked of the reward functions, and the scalar they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reward_models.answers.boxes import first_simple_box, last_box
from reward_models.exploration import attempt_lines, paper_length
from reward_models.reward_func import AsyncRewardFunction, RewardFunction, as_reward_func, completion_text
from reward_models.verdict import Outcome, Verdict, Verifier
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.rewards.reward import decoupled_reward, paper_reward, reward_parts

__all__ = [
    "ResponseFacts",
    "as_outcome_function",
    "combine",
    "describe",
    "stream_scores",
]

RewardCallable = Callable[..., list[float | None]]


@dataclass(frozen=True)
class ResponseFacts:
    """What is known about one response beside its rewards."""

    text: str
    has_answer: bool
    paper_length: float
    attempts: int
    verdict: Verdict | None


def as_outcome_function(reward: Any) -> Any:
    """A verifier becomes a reward function with a pool of its own; a function or a reward model stays what it is."""
    return as_reward_func(reward) if isinstance(reward, Verifier) else reward


def describe(completions: Sequence[Any], outcome_function: RewardCallable, *, paper: bool) -> list[ResponseFacts]:
    """Collect the facts about responses that have just been judged."""
    verdicts: Sequence[Verdict | None] = [None] * len(completions)
    if isinstance(outcome_function, RewardFunction | AsyncRewardFunction):
        verdicts = outcome_function.last_verdicts
    facts = []
    for completion, verdict in zip(completions, verdicts, strict=True):
        text = completion_text(completion)
        if paper:
            has_answer = first_simple_box(text) is not None
        elif verdict is not None:
            has_answer = verdict.outcome is not Outcome.NO_ANSWER
        else:
            has_answer = last_box(text) is not None
        facts.append(ResponseFacts(text, has_answer, paper_length(text), len(attempt_lines(text)), verdict))
    return facts


def combine(outcome: Tensor, exploration: Tensor | None, facts: Sequence[ResponseFacts], config: RLSPConfig) -> Tensor:
    """The scalar reward per response, (B,); see rlsp/rewards/reward.py for the two forms.

    NaN where the outcome is, and in safe mode where the exploration reward failed: such a response is left out. In
    paper mode the exploration reward is the judge's score, and a failed judge counts as the released code has it.
    """
    has_answer = torch.tensor([fact.has_answer for fact in facts], device=outcome.device)
    if config.paper_compat:
        length = torch.tensor([fact.paper_length for fact in facts], device=outcome.device)
        reward = paper_reward(
            outcome,
            has_answer,
            length,
            exploration,
            c=config.length_constant,
            alpha=config.alpha,
            clip=config.reward_clip,
        )
        return torch.where(outcome.isnan(), outcome, reward)
    effort = torch.zeros_like(outcome) if exploration is None else exploration
    return decoupled_reward(outcome, effort, has_answer, alpha=config.alpha, no_answer_penalty=config.no_answer_penalty)


def stream_scores(
    outcome: Tensor, exploration: Tensor | None, facts: Sequence[ResponseFacts], config: RLSPConfig
) -> Tensor:
    """What each advantage stream pays a response for, (B, S); their sum is the scalar of `combine`."""
    if config.streams == 1:
        return combine(outcome, exploration, facts, config).unsqueeze(1)
    has_answer = torch.tensor([fact.has_answer for fact in facts], device=outcome.device)
    effort = torch.zeros_like(outcome) if exploration is None else exploration
    parts = reward_parts(outcome, effort, has_answer, alpha=config.alpha, no_answer_penalty=config.no_answer_penalty)
    return torch.stack(parts, dim=1)


def exploration_paid(
    exploration: Tensor | None, facts: Sequence[ResponseFacts], config: RLSPConfig, *, like: Tensor
) -> Tensor:
    """What exploration earned each response, (B,), apart from the outcome; NaN where none is paid or it failed.

    In safe mode the gated exploration reward, in [0, 1]. In paper mode the released reward of a wrong answer, which is
    its length term and the judge's part. `like` gives device and dtype.
    """
    if config.paper_compat:
        if exploration is None and config.length_constant == 0:
            return torch.full_like(like, torch.nan)
        length = torch.tensor([fact.paper_length for fact in facts], device=like.device)
        wrong = torch.zeros_like(like)
        return paper_reward(
            wrong,
            torch.ones_like(like),
            length,
            exploration,
            c=config.length_constant,
            alpha=config.alpha,
            clip=config.reward_clip,
        )
    if exploration is None:
        return torch.full_like(like, torch.nan)
    return exploration * torch.tensor([fact.has_answer for fact in facts], dtype=like.dtype, device=like.device)

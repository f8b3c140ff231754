"""Verifiers, exploration rewards and oracles: text in, judgement out.

Importing this package loads no torch and no sympy; `reward_models.value_head` needs torch and is imported by
its own name.
"""

from reward_models.countdown import CountdownProblem, CountdownVerifier
from reward_models.errors import RLToolkitError, VerifierError
from reward_models.exploration import (
    DistinctSteps,
    ExplorationReward,
    LengthExploration,
    count_attempts,
    paper_length,
)
from reward_models.math_answers import MathVerifier
from reward_models.pool import VerifierPool
from reward_models.reward_func import RewardFunction, as_reward_func
from reward_models.verdict import Outcome, Verdict, Verifier

__all__ = [
    "CountdownProblem",
    "CountdownVerifier",
    "DistinctSteps",
    "ExplorationReward",
    "LengthExploration",
    "MathVerifier",
    "Outcome",
    "RLToolkitError",
    "RewardFunction",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifierPool",
    "as_reward_func",
    "count_attempts",
    "paper_length",
]

"""Verifiers, exploration rewards, judges and oracles: text in, judgement out.

Importing this package loads no torch, sympy, jsonschema or openai. What needs torch is imported by its own name:
`reward_models.preference`, `reward_models.critics`, `reward_models.value_head`.
"""

from reward_models.choice import ChoiceVerifier
from reward_models.combine import AllOf, AnyOf
from reward_models.countdown import CountdownProblem, CountdownVerifier
from reward_models.errors import RLToolkitError, VerifierError
from reward_models.exploration import (
    DistinctSteps,
    ExplorationReward,
    LengthExploration,
    count_attempts,
    paper_length,
)
from reward_models.exploration_func import ExplorationFunction, as_exploration_func
from reward_models.gold import GoldCheck
from reward_models.integer import IntegerVerifier
from reward_models.json_schema import JsonSchemaVerifier
from reward_models.judge import Judge, Judgement, JudgeOutcome, JudgeSettings
from reward_models.judged_effort import JudgedEffort
from reward_models.math_answers import MathVerifier
from reward_models.numeric import NumericVerifier
from reward_models.pool import VerifierPool
from reward_models.regex import RegexVerifier
from reward_models.repetition import repeated_share
from reward_models.reward_func import AsyncRewardFunction, RewardFunction, as_reward_func
from reward_models.text_match import ExactVerifier
from reward_models.verdict import Outcome, Verdict, Verifier

__all__ = [
    "AllOf",
    "AnyOf",
    "AsyncRewardFunction",
    "ChoiceVerifier",
    "CountdownProblem",
    "CountdownVerifier",
    "DistinctSteps",
    "ExactVerifier",
    "ExplorationFunction",
    "ExplorationReward",
    "GoldCheck",
    "IntegerVerifier",
    "JsonSchemaVerifier",
    "Judge",
    "JudgeOutcome",
    "JudgeSettings",
    "JudgedEffort",
    "Judgement",
    "LengthExploration",
    "MathVerifier",
    "NumericVerifier",
    "Outcome",
    "RLToolkitError",
    "RegexVerifier",
    "RewardFunction",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifierPool",
    "as_exploration_func",
    "as_reward_func",
    "count_attempts",
    "paper_length",
    "repeated_share",
]

"""Preference oracles: the probability that one response to a prompt beats another.

Importing this package loads no torch; oracles that ask a model import it when they are made.
"""

from reward_models.preference.bradley_terry import BradleyTerryOracle
from reward_models.preference.foreign import CheckedOracle, checked_oracle
from reward_models.preference.judge_oracle import JudgeOracle
from reward_models.preference.matrix import MatrixOracle
from reward_models.preference.oracle import BaseOracle, PreferenceOracle
from reward_models.preference.pairwise_model import PairwiseModelOracle
from reward_models.preference.preference import Preference
from reward_models.preference.report import OracleReport
from reward_models.preference.verifier_oracle import VerifierOracle

__all__ = [
    "BaseOracle",
    "BradleyTerryOracle",
    "CheckedOracle",
    "JudgeOracle",
    "MatrixOracle",
    "OracleReport",
    "PairwiseModelOracle",
    "Preference",
    "PreferenceOracle",
    "VerifierOracle",
    "checked_oracle",
]

"""Critics for search: a number for each partial solution, in a stated range.

Importing this package loads no torch. `reward_models.critics.value_model` (the network under `ValueCritic`, and its
loss) needs torch and is imported by its own name.
"""

from reward_models.critics.critic import BaseCritic, CheckedCritic, Critic, checked_critic
from reward_models.critics.process import ProcessCritic
from reward_models.critics.report import CriticReport, Refusal
from reward_models.critics.value import ValueCritic

__all__ = [
    "BaseCritic",
    "CheckedCritic",
    "Critic",
    "CriticReport",
    "ProcessCritic",
    "Refusal",
    "ValueCritic",
    "checked_critic",
]

"""A language model as judge, over any endpoint that speaks OpenAI's chat completions.

Scores in [0, 1], rubric grades 1-5 and pairwise preferences in both orders. A failure has an outcome of its own and
never a number. Importing this package does not load openai: the first request does.
"""

from reward_models.judge.judge import Judge
from reward_models.judge.judgement import JudgeCounts, JudgedPair, Judgement, JudgeOutcome
from reward_models.judge.prompts import BETTER_ANSWER, EFFORT
from reward_models.judge.settings import JudgeSettings

__all__ = [
    "BETTER_ANSWER",
    "EFFORT",
    "Judge",
    "JudgeCounts",
    "JudgeOutcome",
    "JudgeSettings",
    "JudgedPair",
    "Judgement",
]

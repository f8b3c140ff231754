"""A language model judge as a preference oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reward_models.local_models.prompts import Prompt, as_messages
from reward_models.preference.oracle import BaseOracle
from reward_models.preference.preference import Preference

if TYPE_CHECKING:
    from reward_models.judge import Judge, Judgement


class JudgeOracle(BaseOracle):
    """Compares by a `Judge`, which is asked in both orders; the answers are averaged and the order's effect reported.

    A judge says A, B or tie, so that a probability is 0, 0.25, 0.5, 0.75 or 1: a verdict that turns with the order is
    a tie. If either order fails, the pair has no probability. `criterion` None is the judge's own. Tokens and cost are
    in `judge.counts()`; the judge is left open.
    """

    def __init__(self, judge: Judge, *, criterion: str | None = None) -> None:
        super().__init__()
        self.judge = judge
        self._options = {} if criterion is None else {"criterion": criterion}

    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        asked = [conversation(prompt) for prompt in prompts]
        answers = self.judge.prefer_many(asked, firsts, seconds, **self._options)
        return [_from_judgements(answer.as_given, answer.swapped) for answer in answers]


def conversation(prompt: Prompt) -> str:
    """Write a prompt as one text for a judge: messages as `role: content`, a single message of the user bare."""
    messages = as_messages(prompt)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _from_judgements(as_given: Judgement, swapped: Judgement) -> Preference:
    if as_given.value is None:
        return Preference.failed(f"judge with the first text in front: {as_given.outcome}, {as_given.reason}")
    if swapped.value is None:
        return Preference.failed(f"judge with the second text in front: {swapped.outcome}, {swapped.reason}")
    return Preference.from_both_orders(as_given.value, swapped.value)

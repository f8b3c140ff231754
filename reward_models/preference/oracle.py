"""The protocol of preference oracles, and what all of ours share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reward_models.errors import VerifierError
from reward_models.local_models.encoding import same_length
from reward_models.local_models.prompts import Prompt, prompt_problem, text_problem
from reward_models.preference.preference import Preference
from reward_models.preference.report import OracleReport


@runtime_checkable
class PreferenceOracle(Protocol):
    """Anything that says how probable it is that one response beats another.

    A prompt is a text or a list of chat messages, a response is a text. `prefer_many` keeps the order, has one
    answer per pair, and P(a, b) + P(b, a) = 1 must hold; wrap an oracle of your own in `checked_oracle`, which sees
    to that.
    """

    def prefer(self, prompt: Prompt, first: str, second: str) -> float | None:
        """Return the probability that `first` beats `second`, None where it cannot be found out."""
        ...

    def prefer_many(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        """Compare many pairs at once."""
        ...


class BaseOracle(ABC):
    """Checks the pairs, answers equal texts, counts; a subclass compares the rest. For one thread at a time."""

    def __init__(self) -> None:
        self._report = OracleReport()

    @property
    def report(self) -> OracleReport:
        """Counts and position bias since the start or the last `reset_report`."""
        return self._report

    def reset_report(self) -> None:
        """Start counting anew."""
        self._report = OracleReport()

    def prefer(self, prompt: Prompt, first: str, second: str) -> float | None:
        """Return the probability that `first` beats `second`, None where it cannot be found out."""
        return self.prefer_many([prompt], [first], [second])[0].probability

    def prefer_many(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        """Compare many pairs at once: one preference per pair, in order; equal texts are a tie without asking.

        Raises:
            VerifierError: the lengths differ.
        """
        same_length(prompts=prompts, firsts=firsts, seconds=seconds)
        answers = [_without_asking(*pair) for pair in zip(prompts, firsts, seconds, strict=True)]
        identical = sum(answer is not None and answer.is_tie for answer in answers)
        asked = [index for index, answer in enumerate(answers) if answer is None]
        if asked:
            compared = self._compare(
                [prompts[i] for i in asked], [firsts[i] for i in asked], [seconds[i] for i in asked]
            )
            if len(compared) != len(asked):
                raise VerifierError(
                    f"{type(self).__name__} gave {len(compared)} answers to {len(asked)} pairs; give one per pair"
                )
            for index, preference in zip(asked, compared, strict=True):
                answers[index] = preference
        complete = [answer for answer in answers if answer is not None]
        self._report = self._report.plus(complete, identical=identical)
        return complete

    @abstractmethod
    def _compare(self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        """Compare pairs of valid, different texts; one preference per pair, in order."""


def _without_asking(prompt: object, first: object, second: object) -> Preference | None:
    problem = prompt_problem(prompt) or text_problem(first, "the first text") or text_problem(second, "the second text")
    if problem is not None:
        return Preference.failed(problem)
    return Preference.tie("the texts are equal") if first == second else None

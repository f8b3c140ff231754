"""The protocol of critics, and what all of ours share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from reward_models.critics.report import CriticReport, Refusal
from reward_models.errors import VerifierError
from reward_models.local_models.answers import number_in, one_each
from reward_models.local_models.encoding import Reading, same_length
from reward_models.local_models.prompts import Prompt, prompt_problem, query_name, text_problem

Path = Sequence[str]


@runtime_checkable
class Critic(Protocol):
    """Anything that scores partial solutions.

    A prompt is a text or a list of chat messages. A path holds the steps from the root down, each with its separator,
    so that the solution so far is their concatenation; an empty path is the root.
    """

    @property
    def value_range(self) -> tuple[float, float]:
        """The lowest and the highest score, infinite where there is no bound."""
        ...

    def score_many(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[float | None]:
        """Score many states: one number per state, in order; None where there is none."""
        ...


class BaseCritic(ABC):
    """Checks states and scores, counts refusals; a subclass scores. For one thread at a time.

    A score that is NaN or outside `value_range` is refused: it becomes None, counted in `report` with its query.
    """

    def __init__(self) -> None:
        self._report = CriticReport()
        self._reasons: list[str] = []

    @property
    @abstractmethod
    def value_range(self) -> tuple[float, float]:
        """The lowest and the highest score, infinite where there is no bound."""

    @property
    def report(self) -> CriticReport:
        """Counts since the start or the last `reset_report`."""
        return self._report

    @property
    def last_reasons(self) -> list[str]:
        """Of the last call, one text per state: why it has no score, empty where it has one."""
        return list(self._reasons)

    def reset_report(self) -> None:
        """Start counting anew."""
        self._report = CriticReport()

    def score_many(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[float | None]:
        """Score many states: one number in `value_range` per state, in order; None where there is none.

        Raises:
            VerifierError: the lengths differ, or the critic did not give one score per state.
        """
        same_length(prompts=prompts, paths=paths)
        problems = [_state_problem(prompt, path) for prompt, path in zip(prompts, paths, strict=True)]
        good = [index for index, problem in enumerate(problems) if problem is None]
        found = self._score([prompts[i] for i in good], [paths[i] for i in good]) if good else []
        if len(found) != len(good):
            raise VerifierError(f"{self._name} gave {len(found)} scores for {len(good)} states; give one each")
        readings = [Reading(None, problem or "") for problem in problems]
        for index, reading in zip(good, found, strict=True):
            readings[index] = self._checked(reading)
        self._reasons = [reading.problem for reading in readings]
        refused = zip(prompts, readings, strict=True)
        self._report = self._report.plus(
            len(readings), [Refusal(query_name(prompt), r.problem) for prompt, r in refused if r.value is None]
        )
        return [reading.value for reading in readings]

    @abstractmethod
    def _score(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[Reading]:
        """Score valid states; one reading per state, in order."""

    def _checked(self, reading: Reading) -> Reading:
        if reading.value is None:
            return Reading(None, reading.problem or "no score")
        return self._number(reading.value)

    def _number(self, raw: Any) -> Reading:
        """Read what the critic gave as a score."""
        number = number_in(raw, *self.value_range)
        return number if number.value is not None else Reading(None, f"{self._name} gave {number.problem}")

    @property
    def _name(self) -> str:
        """Return the class that scores, for messages."""
        return type(self).__name__


class CheckedCritic(BaseCritic):
    """Makes a foreign critic keep the contract: what is no number in its own `value_range` is refused and counted.

    What the critic raises is not caught.

    Raises:
        VerifierError: `score_many` or `value_range` is missing, or the range is none.
    """

    def __init__(self, critic: Any) -> None:
        super().__init__()
        if not callable(getattr(critic, "score_many", None)) or not hasattr(critic, "value_range"):
            raise VerifierError(
                f"the critic is {type(critic).__name__}; expected an object with score_many(prompts, paths) and "
                "value_range, the lowest and the highest score"
            )
        low, high = critic.value_range
        if not low < high:
            raise VerifierError(f"{type(critic).__name__}.value_range is ({low}, {high}); give lowest < highest")
        self.critic = critic

    @property
    def value_range(self) -> tuple[float, float]:
        """That of the foreign critic."""
        low, high = self.critic.value_range
        return float(low), float(high)

    @property
    def _name(self) -> str:
        return type(self.critic).__name__

    def _score(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[Reading]:
        answers = one_each(self.critic.score_many(prompts, paths), len(paths), f"{self._name}.score_many", "states")
        return [Reading(None, "no score") if raw is None else self._number(raw) for raw in answers]


def checked_critic(critic: Any) -> BaseCritic:
    """Return one of our own critics as it is, any other in a `CheckedCritic`."""
    return critic if isinstance(critic, BaseCritic) else CheckedCritic(critic)


def _state_problem(prompt: object, path: object) -> str | None:
    problem = prompt_problem(prompt)
    if problem is not None:
        return problem
    if isinstance(path, str | bytes) or not isinstance(path, Sequence):
        return f"the path is {type(path).__name__}, expected a list of steps"
    problems = (text_problem(step, f"step {index}") for index, step in enumerate(path))
    return next((problem for problem in problems if problem is not None), None)

"""What a task is: questions with references, the verifier that judges, and how a model is asked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from reward_models.verdict import Verifier
from rltoolkit.errors import DataError
from rltoolkit.types import SamplingParams

__all__ = ["PromptFormat", "Question", "Task"]

PromptFormat = Literal["chat", "text"]


@dataclass(frozen=True)
class Question:
    """One question of a task."""

    id: str
    """Unique within the task, the same whenever the task is loaded."""
    prompt_text: str
    reference: str
    """The gold answer, as the task's verifier reads it."""


@dataclass(frozen=True)
class Task:
    """Questions, their verifier, and the way to ask. Raises DataError for an empty task and for equal ids."""

    name: str
    questions: tuple[Question, ...]
    verifier: Verifier
    prompt_format: PromptFormat = "chat"
    """chat: a user's message through the model's chat template; text: the text as it is."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """Used where the caller says nothing else."""
    count_attempts: Callable[[str], int] | None = None
    """Number of attempts that a response shows, where the task can tell."""

    def __post_init__(self) -> None:
        """Refuse tasks on which no number could be trusted."""
        if not self.questions:
            raise DataError(f"task {self.name} has no questions; check its file and the limit")
        repeated = [key for key, times in Counter(q.id for q in self.questions).items() if times > 1]
        if repeated:
            raise DataError(
                f"task {self.name} has {len(repeated)} ids more than once, for instance {repeated[0]!r}; "
                "give every question an id of its own"
            )

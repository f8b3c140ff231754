"""A language model asked whether the last step is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from reward_models.critics.critic import BaseCritic, Path
from reward_models.errors import VerifierError
from reward_models.local_models.encoding import Reading
from reward_models.local_models.loading import load_model, load_tokenizer
from reward_models.local_models.prompts import Prompt, as_messages

Aggregation = Literal["latest", "mean", "max", "min"]

DEFAULT_QUESTION = """\
Problem:
{prompt}

Solution so far:
{before}

Next step:
{step}

Is this step right? Answer Yes or No.
"""
FIELDS = {"prompt", "before", "step"}


class ProcessCritic(BaseCritic):
    """Scores a state by P(yes) / (P(yes) + P(no)) for its steps, in [0, 1] (methods: AlphaLLM-CPL §2.4).

    `question` has the fields {prompt}, {before} (the steps before) and {step}; it is asked as a message of the user
    through the tokenizer's chat template, or as plain text where there is none; `labels` are the yes and the no.
    `aggregation` "latest" asks about the last step only; "mean", "max" and "min" ask about every step of the path, one
    forward pass per step. A step without an answer leaves the state without a score, and so does an empty path,
    and a special token in prompt or steps: give messages or their bare text, no rendered conversation.

    Raises:
        VerifierError: a label is not one token after the question, the question lacks a field, or the aggregation is
            unknown.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        aggregation: Aggregation = "latest",
        labels: tuple[str, str] = ("Yes", "No"),
        question: str = DEFAULT_QUESTION,
        temperature: float = 1.0,
        batch_size: int = 8,
        max_length: int | None = None,
    ) -> None:
        from reward_models.local_models.labels import LabelReader

        super().__init__()
        if aggregation not in get_args(Aggregation):
            raise VerifierError(f"aggregation is {aggregation!r}; expected one of {get_args(Aggregation)}")
        self.model = model
        self._aggregation = aggregation
        self._reader = LabelReader(
            model,
            tokenizer,
            labels,
            question,
            FIELDS,
            temperature=temperature,
            batch_size=batch_size,
            max_length=max_length,
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, device: str | None = None, dtype: Any = None, **options: Any
    ) -> ProcessCritic:
        """Load a model and its tokenizer from a folder or a hub name; `options` are those of the class."""
        model = load_model("AutoModelForCausalLM", name_or_path, device=device, dtype=dtype)
        return cls(model, load_tokenizer(name_or_path), **options)

    @property
    def value_range(self) -> tuple[float, float]:
        """A probability."""
        return 0.0, 1.0

    def _score(self, prompts: Sequence[Prompt], paths: Sequence[Path]) -> list[Reading]:
        asked = [self._questions(prompt, path) for prompt, path in zip(prompts, paths, strict=True)]
        answers = iter(self._reader.read([question for questions in asked for question in questions]))
        return [aggregated([next(answers) for _ in questions], self._aggregation) for questions in asked]

    def _questions(self, prompt: Prompt, path: Path) -> list[dict[str, str]]:
        first = max(len(path) - 1, 0) if self._aggregation == "latest" else 0
        shown = problem_text(prompt)
        return [
            {"prompt": shown, "before": "".join(path[:index]), "step": path[index]} for index in range(first, len(path))
        ]


def aggregated(steps: Sequence[Reading], aggregation: Aggregation) -> Reading:
    """Return one reading for a path from those of its steps, in order."""
    if not steps:
        return Reading(None, "the path is empty: there is no step to judge")
    last = steps[-1]
    if aggregation == "latest":
        return last if last.value is not None else Reading(None, f"the last step: {last.problem}")
    values = []
    for index, step in enumerate(steps):
        if step.value is None:
            return Reading(None, f"step {index}: {step.problem}")
        values.append(step.value)
    match aggregation:
        case "mean":
            return Reading(sum(values) / len(values))
        case "max":
            return Reading(max(values))
        case "min":
            return Reading(min(values))


def problem_text(prompt: Prompt) -> str:
    """Write a prompt as one text: its messages, without roles."""
    return "\n\n".join(message["content"] for message in as_messages(prompt))

"""What the verifiers that compare one stated answer share: finding it, showing it, refusing wrong options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from reward_models.answers.extraction import Extracted, ExtractionPolicy, after_thinking, extract
from reward_models.errors import VerifierError
from reward_models.verdict import Verdict

# Where the answer stands: a policy of `reward_models.answers.extraction`, or all of the text.
AnswerPlace = Literal["boxed", "marked", "lenient", "whole"]

# Answers are kept in verdicts for people to read; longer ones are cut there, not where they are compared.
MAX_SHOWN_CHARS = 500


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """Finds the answer in a response; `owner` is the verifier that error messages name.

    Raises:
        VerifierError: `extraction` or `thinking_end` has a value that does not exist.
    """

    owner: str
    extraction: AnswerPlace
    thinking_end: str | None

    def __post_init__(self) -> None:
        """Refuse wrong options where they are given, not at the first answer."""
        require_one_of(self.owner, "extraction", self.extraction, get_args(AnswerPlace))
        if self.thinking_end is not None and not isinstance(self.thinking_end, str):
            raise VerifierError(f"{self.owner} thinking_end is {self.thinking_end!r}; expected a text or None")

    def text(self, response: str) -> str:
        """The response behind its thinking part."""
        return after_thinking(response, self.thinking_end)

    def read(self, response: str) -> Extracted | None:
        """The stated answer and the rule that found it, or None."""
        text = self.text(response)
        if self.extraction == "whole":
            answer = text.strip()
            return Extracted(answer, "whole response") if answer else None
        policy: ExtractionPolicy = self.extraction
        return extract(text, policy)

    def missing(self) -> Verdict:
        """The verdict where `read` finds nothing."""
        return Verdict.no_answer(f"no answer in the form that extraction={self.extraction!r} reads")

    def stating(self, answer: str) -> str | None:
        """A response that states this answer; None where it would be read as another, such as `{` in a box."""
        response = answer if self.extraction == "whole" else f"\\boxed{{{answer}}}"
        found = self.read(response)
        return response if found is not None and found.text.split() == answer.split() else None


def shown(answer: str) -> str:
    """An answer as verdicts keep it."""
    return answer if len(answer) <= MAX_SHOWN_CHARS else answer[:MAX_SHOWN_CHARS] + "…"


def require_one_of(owner: str, name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise VerifierError unless an option has one of its values."""
    if value not in allowed:
        raise VerifierError(f"{owner} {name} is {value!r}; expected one of {', '.join(allowed)}")


def require_bool(owner: str, name: str, value: object) -> None:
    """Raise VerifierError unless an option is true or false."""
    if not isinstance(value, bool):
        raise VerifierError(f"{owner} {name} is {value!r}; expected True or False")


def unreadable(reference: str, expected: str) -> Verdict:
    """The verdict on a reference that is not what the verifier compares with."""
    return Verdict.bad_reference(f"reference {reference[:80]!r}; expected {expected}")

"""What a verifier says about one answer, and what a verifier is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from reward_models.errors import VerifierError

MAX_ERROR_CHARS = 300


class Outcome(StrEnum):
    """How a check ended; only the first three carry a score."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    BAD_REFERENCE = "bad_reference"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def score(self) -> float | None:
        """1.0, 0.0, or None where nothing can be said about the answer."""
        return _SCORES[self]


_SCORES: dict[Outcome, float | None] = {
    Outcome.CORRECT: 1.0,
    Outcome.WRONG: 0.0,
    Outcome.NO_ANSWER: 0.0,
    Outcome.BAD_REFERENCE: None,
    Outcome.TIMEOUT: None,
    Outcome.ERROR: None,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one answer; a failure has an outcome of its own and never a number.

    `score` is 1.0 for correct, 0.0 for wrong and no_answer, None for the rest: such a sample is left out
    of loss and whitening, and counted. `extracted` is the answer that was read, `detail` says why.

    Raises:
        VerifierError: the score is not the one that belongs to the outcome.
    """

    outcome: Outcome
    score: float | None
    extracted: str | None
    detail: str = ""

    def __post_init__(self) -> None:
        """Refuse a score that contradicts the outcome."""
        if not isinstance(self.outcome, Outcome):
            raise VerifierError(
                f"Verdict.outcome is {self.outcome!r}; expected one of {[str(o) for o in Outcome]}. "
                "Give a member of reward_models.Outcome"
            )
        if self.score != self.outcome.score or isinstance(self.score, bool):
            raise VerifierError(
                f"Verdict.score is {self.score!r} for {self.outcome}; expected {self.outcome.score!r}. "
                f"Build verdicts with Verdict.{self.outcome}(...)"
            )

    @property
    def is_scorable(self) -> bool:
        """False where the sample must be left out of the loss."""
        return self.score is not None

    @classmethod
    def correct(cls, extracted: str, detail: str = "") -> Verdict:
        """The answer equals the reference."""
        return cls(Outcome.CORRECT, 1.0, extracted, detail)

    @classmethod
    def wrong(cls, extracted: str, detail: str = "") -> Verdict:
        """There is an answer, and it does not equal the reference."""
        return cls(Outcome.WRONG, 0.0, extracted, detail)

    @classmethod
    def no_answer(cls, detail: str = "") -> Verdict:
        """The response states no answer in the form that is asked for."""
        return cls(Outcome.NO_ANSWER, 0.0, None, detail)

    @classmethod
    def bad_reference(cls, detail: str) -> Verdict:
        """The reference cannot be read, so nothing can be said about the answer."""
        return cls(Outcome.BAD_REFERENCE, None, None, detail)

    @classmethod
    def timeout(cls, detail: str) -> Verdict:
        """The check was killed at its time limit."""
        return cls(Outcome.TIMEOUT, None, None, detail)

    @classmethod
    def error(cls, detail: str) -> Verdict:
        """The check itself failed."""
        return cls(Outcome.ERROR, None, None, detail)


@runtime_checkable
class Verifier(Protocol):
    r"""Anything with a pure, picklable `check`; no I/O, no state between calls.

    Two more methods are optional, which is why they are not members of this protocol:

    `warm_up() -> None`: a pool calls it once in each worker before the first answer, so that slow imports do not
    count against the time limit of an answer. What it raises is reported as a pool that cannot be started.

    `gold_response(reference: str) -> str | None`: a response that must be judged correct for this reference, None
    where none can be written. `VerifierPool.check_gold` and `rltoolkit check` have it written and judged in the pool
    before training, within the time limit of an answer. Without the method they try `\boxed{reference}` and blame
    nobody if it fails.
    """

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one response against the reference answer."""
        ...


def require_verifier(verifier: object, name: str) -> None:
    """Refuse what cannot judge; `name` says in the message what it was given as.

    Raises:
        VerifierError: it is a class, or has no method `check`.
    """
    if isinstance(verifier, type):
        raise VerifierError(f"{name} is the class {verifier.__name__}; give an instance, {verifier.__name__}(...)")
    if not callable(getattr(verifier, "check", None)):
        raise VerifierError(
            f"{name} is {type(verifier).__name__}, which has no method check(response, reference); "
            "give an object that has one"
        )


def refusal(response: object, reference: object) -> Verdict | None:
    """Judge what is no text, which no verifier needs to see; the reference first, as everywhere."""
    if not isinstance(reference, str):
        return Verdict.bad_reference(f"the reference is {type(reference).__name__}, expected str")
    if not isinstance(response, str):
        return Verdict.error(f"the response is {type(response).__name__}, expected str")
    return None


def checked(verifier: Verifier, response: Any, reference: Any) -> Verdict:
    """Call `verifier.check`; whatever goes wrong inside becomes an ERROR verdict with the reason."""
    refused = refusal(response, reference)
    if refused is not None:
        return refused
    try:
        verdict: object = verifier.check(response, reference)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a verifier is foreign code; its failure is counted
        return Verdict.error(f"{type(verifier).__name__}.check raised {error_text(error)}")
    if not isinstance(verdict, Verdict):
        return Verdict.error(f"{type(verifier).__name__}.check returned {type(verdict).__name__}, expected Verdict")
    texts: tuple[object, object] = (verdict.extracted, verdict.detail)  # foreign code may have put anything there
    extracted, detail = texts
    if not isinstance(extracted, str | None) or not isinstance(detail, str):
        found = f"extracted {type(extracted).__name__} and detail {type(detail).__name__}"
        return Verdict.error(f"{type(verifier).__name__}.check returned a Verdict with {found}, expected str")
    return verdict


def error_text(error: BaseException) -> str:
    """Return the kind of an error and what it says, which foreign code may have made unprintable."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  such as the digits of a huge integer
        text = "(its text cannot be printed)"
    return f"{type(error).__name__}: {text[:MAX_ERROR_CHARS]}"

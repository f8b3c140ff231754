"""Does a verifier accept the gold answers? A row on which it does not teaches the model that right is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reward_models.verdict import Outcome, Verdict, Verifier, checked, error_text

# Of a reference that can be read and to which the verifier cannot write a right response.
UNTRIED = Verdict.no_answer("gold: no right response can be written")
# Failures that are told one by one, and characters of a reference that are shown.
MAX_TOLD = 5
MAX_SHOWN_CHARS = 60


@dataclass(frozen=True)
class GoldCheck:
    """What the verifier said about the gold answers.

    `outcomes` counts the verdicts, `failures` are (row from 1, reference, verdict) of those that were not accepted,
    `untried` rows are those for which no right response could be written. `sure` is False where a failure may mean
    only that the verifier reads another form than a box: it has no method `gold_response`.
    """

    outcomes: Counter[Outcome]
    failures: tuple[tuple[int, str, Verdict], ...]
    untried: int
    sure: bool

    @property
    def certain_failures(self) -> tuple[tuple[int, str, Verdict], ...]:
        """The failures that mean what they say: all if `sure`, else those in which nothing could be judged."""
        return tuple(failure for failure in self.failures if self.sure or not failure[2].is_scorable)

    def lines(self) -> list[str]:
        """The result in words, with the first failures."""
        text = [f"{self.outcomes[Outcome.CORRECT]} of {self.outcomes.total()} gold answers accepted"]
        for row, reference, verdict in self.failures[:MAX_TOLD]:
            text.append(f"row {row}: gold {_shown(reference)} is judged {verdict.outcome} ({verdict.detail})")
        if len(self.failures) > MAX_TOLD:
            text.append(f"and {len(self.failures) - MAX_TOLD} more")
        if self.untried:
            text.append(f"{self.untried} row(s) not tried: the verifier cannot write a right response to them")
        return text


def gold_response(verifier: Verifier, reference: str) -> str | None:
    r"""A response that must be judged correct, from the verifier's own `gold_response`, else `\boxed{reference}`.

    None where the verifier says that it can write none.
    """
    own: Callable[[str], str | None] | None = getattr(verifier, "gold_response", None)
    return f"\\boxed{{{reference}}}" if own is None else own(reference)


def gold_verdict(verifier: Verifier, reference: str) -> Verdict:
    """Judge the response that the verifier writes for a reference; a `gold_response` that fails is an ERROR.

    Where it writes none, an empty one shows whether the reference can be read: UNTRIED if so, BAD_REFERENCE if not.
    Foreign code without a time limit: a pool calls this in its workers.
    """
    name = type(verifier).__name__
    try:
        text: object = gold_response(verifier, reference)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a verifier is foreign code; its failure is counted
        return Verdict.error(f"{name}.gold_response raised {error_text(error)}")
    if text is None:
        verdict = checked(verifier, "", reference)
        return verdict if verdict.outcome is Outcome.BAD_REFERENCE else UNTRIED
    if not isinstance(text, str):
        return Verdict.error(f"{name}.gold_response returned {type(text).__name__}, expected str")
    return checked(verifier, text, reference)


def gold_check(verifier: Verifier, references: Sequence[str], verdicts: Sequence[Verdict]) -> GoldCheck:
    """Sum up what `gold_verdict` said of each reference."""
    judged = [(row, verdict) for row, verdict in enumerate(verdicts) if verdict != UNTRIED]
    failures = tuple((row + 1, references[row], v) for row, v in judged if v.outcome is not Outcome.CORRECT)
    outcomes = Counter(verdict.outcome for _, verdict in judged)
    return GoldCheck(outcomes, failures, len(references) - len(judged), sure=hasattr(verifier, "gold_response"))


def _shown(reference: object) -> str:
    text = repr(reference)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 3]}..."

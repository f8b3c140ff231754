"""Does a verifier accept the gold answers? A row on which it does not teaches the model that right is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reward_models.verdict import Outcome, Verdict, Verifier, error_text

Judge = Callable[[Sequence[str], Sequence[str]], list[Verdict]]
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


def judge_gold(verifier: Verifier, references: Sequence[str], judge: Judge) -> GoldCheck:
    """Judge every reference against the response that `verifier` writes for it; `judge` is a pool's, as a rule.

    A row without such a response is judged on an empty one, which shows whether its reference can be read; it is
    untried where it can. A `gold_response` that fails is an ERROR of its row.
    """
    written = [_written(verifier, reference) for reference in references]
    verdicts = judge([text if isinstance(text, str) else "" for text in written], references)
    judged: list[tuple[int, Verdict]] = []
    for row, (text, verdict) in enumerate(zip(written, verdicts, strict=True)):
        if isinstance(text, Verdict):
            judged.append((row, text))
        elif text is not None or verdict.outcome is Outcome.BAD_REFERENCE:
            judged.append((row, verdict))
    failures = tuple((row + 1, references[row], v) for row, v in judged if v.outcome is not Outcome.CORRECT)
    outcomes = Counter(verdict.outcome for _, verdict in judged)
    return GoldCheck(outcomes, failures, len(references) - len(judged), sure=hasattr(verifier, "gold_response"))


def _written(verifier: Verifier, reference: object) -> str | Verdict | None:
    """The gold response, or the verdict on a reference or a method that gives none."""
    if not isinstance(reference, str):
        return None  # the judge says what is wrong with it
    try:
        text: object = gold_response(verifier, reference)
    except Exception as error:  # noqa: BLE001  a verifier is foreign code; its failure is reported with its row
        return Verdict.error(f"{type(verifier).__name__}.gold_response raised {error_text(error)}")
    if text is None or isinstance(text, str):
        return text
    return Verdict.error(f"{type(verifier).__name__}.gold_response returned {type(text).__name__}, expected str")


def _shown(reference: object) -> str:
    text = repr(reference)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 3]}..."

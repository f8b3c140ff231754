"""From judged samples to numbers: outcome counts, rates and lengths. Pure functions on plain data."""

from collections.abc import Sequence
from dataclasses import dataclass

from reward_models.verdict import Outcome, Verdict
from rltoolkit.types import Sample, StopReason

__all__ = ["JudgedSample", "mean", "outcome_counts", "scores_by_question", "truncated_fraction"]


@dataclass(frozen=True)
class JudgedSample:
    """One response with what the verifier says about it."""

    question: int
    """Place of the question in the task."""
    index: int
    """k of this sample among those of its question."""
    sample: Sample
    text: str
    """The response, decoded without special tokens."""
    verdict: Verdict
    attempts: int | None = None


def outcome_counts(judged: Sequence[JudgedSample]) -> dict[str, int]:
    """Count every outcome, those that did not occur as 0."""
    counts = {str(outcome): 0 for outcome in Outcome}
    for one in judged:
        counts[str(one.verdict.outcome)] += 1
    return counts


def scores_by_question(judged: Sequence[JudgedSample]) -> list[list[float]]:
    """Collect the scores of each question, without samples that could not be scored.

    A question of which no sample could be scored is left out: see `outcome_counts` for how many samples
    that is.
    """
    scores: dict[int, list[float]] = {}
    for one in judged:
        if one.verdict.score is not None:
            scores.setdefault(one.question, []).append(one.verdict.score)
    return [scores[question] for question in sorted(scores)]


def truncated_fraction(judged: Sequence[JudgedSample]) -> float:
    """Return the fraction of samples that the limit on new tokens cut off."""
    return mean([float(one.sample.stop_reason is StopReason.LENGTH) for one in judged])


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")

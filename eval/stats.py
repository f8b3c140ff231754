"""Statistics of an evaluation: pass@k, means with an interval, paired differences. Pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rltoolkit.errors import DataError

__all__ = ["Estimate", "mean_with_interval", "paired_difference", "pass_at_k"]


class Estimate(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    n: int
    """Questions, not samples: the samples of one question are no independent evidence."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of P(at least one of k samples is right) from c right among n samples.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1), in exact integers. NaN if k > n:
    so few samples say nothing about k. Raises DataError unless 0 <= c <= n and k >= 1.
    """
    if not 0 <= c <= n:
        raise DataError(f"pass_at_k: {c} right of {n} samples; the number right lies between 0 and n")
    if k < 1:
        raise DataError(f"pass_at_k: k is {k}; give k >= 1")
    if k > n:
        return math.nan
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def mean_with_interval(scores_by_question: Sequence[Sequence[float]], *, confidence: float = 0.95) -> Estimate:
    """Return the mean over questions of each question's mean score, with an interval clustered by question.

    The interval is mean +- t * s / sqrt(n), with s the standard deviation of the questions' means and t the
    quantile of Student's distribution with n - 1 degrees of freedom; a question weighs the same however many
    samples it has. It is not cut at 0 and 1. Edge cases: one question has a mean and a NaN interval; no
    question gives NaN throughout; equal means give an interval of width 0, which says only that these
    questions do not differ. Raises DataError for a question without scores and for a score that is None or
    not finite: what could not be scored has to be left out, and counted, before.
    """
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}; give a number between 0 and 1, for instance 0.95")
    means = [_question_mean(scores, i) for i, scores in enumerate(scores_by_question)]
    return _interval(means, confidence)


def paired_difference(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, confidence: float = 0.95
) -> Estimate:
    """Return the mean over questions of (second - first), with its interval.

    Both hold the same questions in the same order. Far narrower than the two intervals apart when both runs
    find the same questions hard. Raises DataError if the numbers of questions differ, and as
    `mean_with_interval` does.
    """
    if len(first) != len(second):
        raise DataError(
            f"a paired difference of {len(first)} and {len(second)} questions; give the same questions twice"
        )
    differences = [
        [_question_mean(after, i) - _question_mean(before, i)]
        for i, (before, after) in enumerate(zip(first, second, strict=True))
    ]
    return mean_with_interval(differences, confidence=confidence)


def _question_mean(scores: Sequence[float], question: int) -> float:
    if len(scores) == 0:
        raise DataError(f"question {question} has no scores; leave out questions that could not be scored")
    for score in scores:
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise DataError(
                f"question {question} has the score {score!r}; expected finite numbers. Leave out samples that "
                "could not be scored, and count them"
            )
    return math.fsum(scores) / len(scores)


def _interval(means: Sequence[float], confidence: float) -> Estimate:
    n = len(means)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(means) / n
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    from scipy.stats import t  # 0.3 s, which the command line's --help need not pay

    variance = math.fsum((value - mean) ** 2 for value in means) / (n - 1)
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)

"""Results as a table, for the terminal and for a model card."""

import math
from collections.abc import Sequence

from eval.runner import TaskResult
from eval.stats import Estimate

__all__ = ["format_estimate", "markdown_table"]

HEADER = (
    "task",
    "questions",
    "samples each",
    "temperature",
    "accuracy, 95 % interval",
    "no answer",
    "truncated",
    "not scored",
    "tokens",
)


def format_estimate(estimate: Estimate) -> str:
    """Return a proportion as per cent with its interval, such as `42.0 % [38.1, 45.9]`."""
    if math.isnan(estimate.mean):
        return "-"
    if math.isnan(estimate.low):
        return f"{100 * estimate.mean:.1f} % [one question: no interval]"
    return f"{100 * estimate.mean:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def markdown_table(results: Sequence[TaskResult]) -> str:
    """Return one row per result, in columns of equal width, so that it also reads well as plain text."""
    rows = [HEADER, *(_cells(result) for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cells(result: TaskResult) -> tuple[str, ...]:
    samples = result.n_questions * result.samples_per_question
    return (
        result.task,
        str(result.n_questions),
        str(result.samples_per_question),
        f"{result.sampling.temperature:g}",
        format_estimate(result.estimate),
        f"{100 * result.outcomes['no_answer'] / samples:.1f} %",
        f"{100 * result.truncated:.1f} %",
        str(result.unscorable),
        f"{result.mean_tokens:.1f}",
    )

"""Which rows are read together: work in proportion to real tokens, within a budget of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Budget", "micro_batches", "padded_tokens", "pass_overhead"]

PARAMETER_TOKENS_PER_LAYER = {"cpu": 2e7, "other": 5e10}
"""Parameters x tokens that a model computes in the time that one of its layers takes before its first token.

That time goes to calls and to launching kernels; one parameter x token is 6 floating-point operations, forward and
backward pass together. "cpu" is measured on one core with 4M parameters (12 ms for 6 layers, 0.39 ms a token). "other"
is reckoned, not measured: 1 ms a layer at 300 TFLOP/s.
"""

MOST_OVERHEAD_ON_CPU = 512
"""In tokens. Matrices so small that the rule above says more do not reach the speed it assumes (300 tokens at 30k
parameters). A GPU gets no such bound: with too few tokens to fill it, the launches are all that a pass costs."""


def pass_overhead(layers: int, parameters: int, *, on_cpu: bool) -> int:
    """What a forward and backward pass costs before its first token, in tokens."""
    overhead = round(layers * PARAMETER_TOKENS_PER_LAYER["cpu" if on_cpu else "other"] / max(1, parameters))
    return min(MOST_OVERHEAD_ON_CPU, overhead) if on_cpu else overhead


@dataclass(frozen=True)
class Budget:
    """How many tokens, padding included, go through the models together."""

    tokens: int | None
    """None: as many as the plain batch of `rows` would have, divided among `passes`."""
    passes: int
    """Models that keep activations of the same rows: 1 where the critic shares the policy's, else 2."""
    overhead: int
    """See `micro_batches`."""

    def divide(self, lengths: Sequence[int], *, rows: int) -> list[list[int]]:
        """Divide rows of these lengths; `rows` of the longest are what the user's batch size allows for."""
        budget = self.tokens if self.tokens is not None else rows * max(lengths, default=0) // self.passes
        return micro_batches(lengths, budget=budget, overhead=self.overhead)


def micro_batches(lengths: Sequence[int], *, budget: int, overhead: int = 0) -> list[list[int]]:
    """Divide rows into batches of similar length, at the least cost; returns indices into `lengths`.

    A batch costs rows x longest, which is what padding makes of it, and `overhead`: what a pass costs before its first
    token, in tokens. None costs more than `budget` without the overhead, save a single row that is longer. Every row is
    in exactly one batch; the longest come first, so that memory that does not suffice shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    longest = np.array([lengths[row] for row in order], dtype=np.int64)
    # least[j] is the least cost of the first j rows in that order, whose last batch begins at begin[j]
    least, begin = np.zeros(len(order) + 1, dtype=np.int64), np.zeros(len(order) + 1, dtype=np.int64)
    for end in range(1, len(order) + 1):
        starts = np.arange(end)
        padded = (end - starts) * longest[:end]
        fits = (padded <= budget) | (starts == end - 1)
        costs = np.where(fits, least[:end] + padded + overhead, np.iinfo(np.int64).max)
        begin[end] = int(costs.argmin())
        least[end] = costs[begin[end]]
    batches: list[list[int]] = []
    end = len(order)
    while end > 0:
        batches.append(order[begin[end] : end])
        end = int(begin[end])
    return batches[::-1]


def padded_tokens(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Positions that are computed for these batches, padding included."""
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)

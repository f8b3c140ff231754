"""Which rows go through the models together: every row once, within the budget, at the least cost."""

import itertools
import random

import pytest

from rltoolkit.rlsp.batches import Budget, micro_batches, padded_tokens, pass_overhead


def cost(lengths, batches, overhead):
    return padded_tokens(lengths, batches) + overhead * len(batches)


def every_division(rows):
    """All ways to cut a sequence into runs."""
    for size in range(len(rows)):
        for cuts in itertools.combinations(range(1, len(rows)), size):
            edges = [0, *cuts, len(rows)]
            yield [rows[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("seed", range(6))
def test_no_division_of_the_sorted_rows_costs_less(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(9)]
    overhead, budget = draw.choice([0, 5, 40]), draw.choice([60, 120, 10_000])
    batches = micro_batches(lengths, budget=budget, overhead=overhead)
    assert sorted(itertools.chain(*batches)) == list(range(9))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)
    rows = sorted(range(9), key=lambda row: -lengths[row])
    allowed = [
        division
        for division in every_division(rows)
        if all(len(run) == 1 or padded_tokens(lengths, [run]) <= budget for run in division)
    ]
    assert cost(lengths, batches, overhead) == min(cost(lengths, division, overhead) for division in allowed)


def test_equal_rows_stay_together_and_ragged_ones_part():
    assert len(micro_batches([10] * 8, budget=80, overhead=1)) == 1
    assert micro_batches([100, 10, 10, 10], budget=10_000, overhead=1) == [[0], [1, 2, 3]]
    assert len(micro_batches([100, 90, 80, 70], budget=10_000, overhead=1000)) == 1


def test_the_longest_come_first_and_a_row_above_the_budget_is_alone():
    assert micro_batches([3, 50, 4], budget=8, overhead=0)[0] == [1]
    assert micro_batches([], budget=8) == []


def test_the_budget_of_none_is_that_of_the_plain_batch_shared_among_the_models():
    lengths = [10] * 8
    assert Budget(None, 1, 32).divide(lengths, rows=8) == [list(range(8))]
    assert [len(batch) for batch in Budget(None, 2, 32).divide(lengths, rows=8)] == [4, 4]
    assert [len(batch) for batch in Budget(20, 1, 32).divide(lengths, rows=8)] == [2] * 4


def test_a_pass_costs_more_tokens_the_smaller_the_model_and_the_faster_the_device():
    assert pass_overhead(6, 3_715_776, on_cpu=True) == 32
    assert pass_overhead(2, 30_000, on_cpu=True) == 512
    assert pass_overhead(24, 494_000_000, on_cpu=False) == 2429
    assert pass_overhead(32, 8_000_000_000, on_cpu=False) == 200

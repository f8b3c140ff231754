from hypothesis import given
from hypothesis import strategies as st

from rltoolkit.rollout.batching import plan_batches


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 30), st.integers(1, 600))
def test_every_row_is_decoded_once_within_the_budget_and_with_its_like(lengths, new_tokens, budget):
    batches = plan_batches(lengths, new_tokens, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        width = max(lengths[row] for row in batch) + new_tokens
        assert len(batch) == 1 or len(batch) * width <= budget
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths, reverse=True)


def test_batches_are_filled():
    assert plan_batches([4] * 10, 6, 50) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]

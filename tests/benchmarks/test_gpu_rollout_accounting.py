"""The accounting of benchmarks/gpu/rollout.py: what is asked, what must be moved, and what counts as a number."""

import pytest


def test_bytes_by_hand(accounting):
    """Prompts of 3 and 5 tokens, answers of 1 and 3: the prompts' pass, then two steps of the second row alone."""
    traffic = accounting.Traffic(weight_bytes=1000, kv_bytes=10)
    prompts_pass = 1000 + 10 * (3 + 5)
    second_token = 1000 + 10 * (5 + 1)  # reads the prompt, writes the first drawn token
    third_token = 1000 + 10 * (5 + 2)
    assert accounting.least_bytes([3, 5], [1, 3], traffic) == prompts_pass + second_token + third_token


def test_ceiling_is_tokens_over_the_time_of_the_bytes(accounting):
    work = accounting.Work(prompts=[[1] * 3, [1] * 5], limits=[1, 3])
    traffic = accounting.Traffic(weight_bytes=1000, kv_bytes=10)
    moved = accounting.least_bytes([3, 5], [1, 3], traffic)
    assert accounting.ceiling_tokens_per_second(work, traffic, bytes_per_second=moved / 2) == pytest.approx(4 / 2)


def test_a_step_reads_a_tied_table_as_the__an_untied_one_not(accounting, model_of):
    tied, untied = model_of(), model_of(tie_word_embeddings=False)
    assert accounting.decode_traffic(tied).weight_bytes == accounting.decode_traffic(untied).weight_bytes
    assert accounting.decode_traffic(tied).weight_bytes == 4 * sum(p.numel() for p in tied.parameters())
    assert accounting.decode_traffic(tied).kv_bytes == 2 * 2 * 1 * 32 * 4  # keys and values, layers, heads, size, bytes


@pytest.mark.parametrize("name", ["tiny", "0.5b", "1.5b"])
def test_work_is_ragged_distinct_and_repeatable(accounting, name):
    work, again = accounting.make_work(accounting.SIZES[name]), accounting.make_work(accounting.SIZES[name])
    assert work == again
    assert len({tuple(prompt) for prompt in work.prompts}) == len(work.prompts)
    most = accounting.SIZES[name].most_new_tokens
    assert 0.8 * most < max(work.limits) <= most
    assert min(work.limits) < max(work.limits) / 4
    assert min(map(len, work.prompts)) < max(map(len, work.prompts)) / 3


def test_an_engine_that_is_absent_gives_no_speed(accounting):
    assert accounting.summary({"outcome": "not installed"}, 100, 10.0) == {"outcome": "not installed"}
    row = accounting.summary({"seconds": [1.0, 4.0, 2.0]}, 100, 200.0)
    assert row["tokens_per_second"] == {"median": 50, "min": 25, "max": 100}
    assert row["fraction_of_ceiling"] == 0.25

"""The accounting of benchmarks/gpu/rollout.py: what is asked, what must be moved, and what counts as a number."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rltoolkit.rollout.transformers_backend import TransformersBackend
from rltoolkit.types import SamplingParams

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "rollout.py"


@pytest.fixture(scope="module")
def script():
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("gpu_rollout_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def model_of(script, **changes):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(eos_token_id=None, **(script.SIZES["tiny"].shape | changes))).eval()


def test_bytes_by_hand(script):
    """Prompts of 3 and 5 tokens, answers of 1 and 3: the prompts' pass, then two steps of the second row alone."""
    traffic = script.Traffic(weight_bytes=1000, kv_bytes=10)
    prompts_pass = 1000 + 10 * (3 + 5)
    second_token = 1000 + 10 * (5 + 1)  # reads the prompt, writes the first drawn token
    third_token = 1000 + 10 * (5 + 2)
    assert script.least_bytes([3, 5], [1, 3], traffic) == prompts_pass + second_token + third_token


def test_ceiling_is_tokens_over_the_time_of_the_bytes(script):
    work = script.Work(prompts=[[1] * 3, [1] * 5], limits=[1, 3])
    traffic = script.Traffic(weight_bytes=1000, kv_bytes=10)
    moved = script.least_bytes([3, 5], [1, 3], traffic)
    assert script.ceiling_tokens_per_second(work, traffic, bytes_per_second=moved / 2) == pytest.approx(4 / 2)


def test_a_step_reads_a_tied_table_as_the_head_and_an_untied_one_not(script):
    tied, untied = model_of(script), model_of(script, tie_word_embeddings=False)
    assert script.decode_traffic(tied).weight_bytes == script.decode_traffic(untied).weight_bytes
    assert script.decode_traffic(tied).weight_bytes == 4 * sum(p.numel() for p in tied.parameters())
    assert script.decode_traffic(tied).kv_bytes == 2 * 2 * 1 * 32 * 4  # keys and values, layers, heads, size, bytes


@pytest.mark.parametrize("name", ["tiny", "0.5b", "1.5b"])
def test_work_is_ragged_distinct_and_repeatable(script, name):
    work, again = script.make_work(script.SIZES[name]), script.make_work(script.SIZES[name])
    assert work == again
    assert len({tuple(prompt) for prompt in work.prompts}) == len(work.prompts)
    most = script.SIZES[name].most_new_tokens
    assert 0.8 * most < max(work.limits) <= most
    assert min(work.limits) < max(work.limits) / 4
    assert min(map(len, work.prompts)) < max(map(len, work.prompts)) / 3


@pytest.mark.parametrize("batch_tokens", [1 << 20, 150])
def test_the_hook_ends_each_row_at_its_limit(script, batch_tokens):
    """In one batch that loses rows as they finish, and in several."""
    work, model = script.make_work(script.SIZES["tiny"]), model_of(script)
    backend = TransformersBackend(model, eos_token_ids=[2], pad_token_id=0, batch_tokens=batch_tokens)
    model.register_forward_hook(script.EndAtLimit(work, 2), with_kwargs=True)
    answers = backend.generate(work.prompts, 1, SamplingParams(max_new_tokens=max(work.limits)), range(16))
    assert [len(answer.token_ids) for (answer,) in answers] == work.limits
    assert all(answer.token_ids.index(2) == len(answer.token_ids) - 1 for (answer,) in answers)


def test_an_engine_of_other_lengths_gives_no_speed(script):
    work = script.Work(prompts=[[1], [2]], limits=[2, 4])
    assert script.timed(lambda seed: [2, 4], 0, work) >= 0
    with pytest.raises(RuntimeError, match="drew 6 tokens"):
        script.timed(lambda seed: [4, 2], 0, work)


def test_an_engine_that_is_absent_gives_no_speed(script):
    assert script.summary({"outcome": "not installed"}, 100, 10.0) == {"outcome": "not installed"}
    row = script.summary({"seconds": [1.0, 4.0, 2.0]}, 100, 200.0)
    assert row["tokens_per_second"] == {"median": 50, "min": 25, "max": 100}
    assert row["fraction_of_ceiling"] == 0.25

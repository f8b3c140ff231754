import copy
import pickle
import subprocess
import sys

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.types import Sample, SamplingParams, StopReason


def test_defaults_are_plain_sampling_at_temperature_one():
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k, params.min_p, params.max_new_tokens) == (
        1.0,
        1.0,
        0,
        0.0,
        256,
    )
    assert not params.greedy
    assert SamplingParams(temperature=0).greedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2.0),
        ("min_p", 1.0),
        ("min_p", -0.1),
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("max_new_tokens", "8"),
    ],
)
def test_a_value_out_of_range_is_named_in_the_error(name, value):
    with pytest.raises(RolloutError, match=rf"SamplingParams\.{name} is {value!r}; give "):
        SamplingParams(**{name: value})


def test_a_sample_needs_one_logprob_per_token():
    with pytest.raises(RolloutError, match="2 token ids and 1 log-probs"):
        Sample(token_ids=(1, 2), logprobs=(-0.1,), stop_reason=StopReason.LENGTH, version=0)


def test_samples_travel_between_processes():
    sample = Sample(token_ids=(1, 2), logprobs=(-0.1, -0.2), stop_reason=StopReason.STOP, version=3)
    assert pickle.loads(pickle.dumps(sample)) == sample == copy.deepcopy(sample)


def test_importing_the_vocabulary_imports_no_torch():
    code = "import sys, rltoolkit.types, rltoolkit.rollout.base; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

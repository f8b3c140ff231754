import pytest
import torch

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.sampling import filter_logits
from rltoolkit.rollout.vllm_sampling import choices_asked, completion_request, sampling_fields
from rltoolkit.types import SamplingParams


def test_every_parameter_is_passed_on_and_none_is_left_to_the_server():
    sampling = SamplingParams(temperature=0.7, top_k=5, min_p=0.1, max_new_tokens=17)
    assert sampling_fields(SamplingParams(top_p=0.9), 1, 11, (2,))["top_p"] == 0.9
    fields = sampling_fields(sampling, 3, 11, (2, 7))
    seed = fields.pop("seed")
    assert 0 <= seed < 2**62
    assert fields == {
        "n": 3,
        "max_tokens": 17,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 5,
        "min_p": 0.1,
        "logprobs": 0,
        "stop_token_ids": [2, 7],
        "ignore_eos": True,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_no_two_samples_of_neighbouring_seeds_share_a_stream():
    sampling = SamplingParams()
    streams = {sampling_fields(sampling, 8, seed, (2,))["seed"] + k for seed in range(200) for k in range(8)}
    assert len(streams) == 1600
    edges = [sampling_fields(sampling, 1, seed, (2,))["seed"] for seed in (0, 2**63 - 1)]
    assert len(set(edges)) == 2
    assert all(0 <= s < 2**62 for s in edges)


def test_a_seed_gives_the_same_request_in_every_process():
    assert sampling_fields(SamplingParams(), 1, 12345, (2,))["seed"] == 4192515831072257680


def test_greedy_asks_once_without_filters():
    greedy = SamplingParams(temperature=0, top_p=0.5, top_k=3, min_p=0.2)
    fields = sampling_fields(greedy, 4, 0, (2,))
    assert (fields["n"], fields["temperature"], fields["top_p"], fields["top_k"], fields["min_p"]) == (1, 0, 1, 0, 0)
    assert choices_asked(greedy, 4) == 1
    assert choices_asked(SamplingParams(), 4) == 4


@pytest.mark.parametrize("temperature", [0.0099, 2.5])
def test_a_temperature_that_vllm_would_change_or_refuse_is_refused(temperature):
    with pytest.raises(RolloutError, match=r"temperature is .*, vLLM samples at 0.01 to 2.0; give"):
        sampling_fields(SamplingParams(temperature=temperature), 1, 0, (2,))


def test_filters_that_vllm_applies_in_another_order_are_refused():
    """Of 0.5, 0.3, 0.1, 0.1 the nucleus of 0.6 is two tokens, of what min-p leaves it is one; top-k commutes."""
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()
    both = SamplingParams(top_p=0.6, min_p=0.5)
    ours = filter_logits(logits, both)
    theirs = filter_logits(filter_logits(logits, SamplingParams(min_p=0.5)), SamplingParams(top_p=0.6))
    assert not torch.equal(ours.isfinite(), theirs.isfinite())
    with pytest.raises(RolloutError, match=r"top_p is 0.6 and min_p is 0.5, which vLLM applies in the other order"):
        sampling_fields(both, 1, 0, (2,))
    one = filter_logits(logits, SamplingParams(top_k=2, min_p=0.5))
    other = filter_logits(filter_logits(logits, SamplingParams(min_p=0.5)), SamplingParams(top_k=2))
    assert torch.equal(one, other)
    assert sampling_fields(SamplingParams(top_k=2, min_p=0.5), 1, 0, (2,))["min_p"] == 0.5


def test_a_completion_request_is_plain_json_with_the_prompt_as_token_ids():
    body = completion_request("policy", (5, 6), SamplingParams(), 2, 3, (2,))
    assert (body["model"], body["prompt"], body["return_token_ids"], body["n"]) == ("policy", [5, 6], True, 2)
    assert body["stop_token_ids"] == [2]

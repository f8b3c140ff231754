import pytest
import torch
from scipy import stats
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rltoolkit.rollout import sampling as module
from rltoolkit.rollout.sampling import draw, filter_logits, uniforms
from rltoolkit.types import SamplingParams

PLAIN = SamplingParams()


def _logits(rows=6, tokens=40, dtype=torch.float64, seed=0):
    return 3 * torch.randn(rows, tokens, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_stream_depends_on_its_seed_alone_and_a_longer_one_begins_like_a_shorter_one():
    numbers = uniforms([5, 6, 2**63 - 1], 300)
    assert torch.equal(uniforms([6], 20)[0], numbers[1, :20])
    assert len(numbers.unique()) == 900
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < 0.05
    assert 0.95 < numbers.max() < 1


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.7),
        SamplingParams(top_k=5),
        SamplingParams(top_k=400),
        SamplingParams(top_p=0.8),
        SamplingParams(top_p=1e-9),
        SamplingParams(top_p=1e-20),
        SamplingParams(min_p=0.1),
        SamplingParams(temperature=1.5, top_k=12, top_p=0.9, min_p=0.05),
    ],
)
def test_filters_are_those_of_transformers(params):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(params.temperature))])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    logits = _logits()
    ours = filter_logits(logits, params)
    torch.testing.assert_close(ours, warpers(None, logits), rtol=1e-12, atol=1e-12)
    assert ours.isfinite().any(1).all()


def test_drawn_frequencies_follow_the_distribution():
    logits = _logits(rows=1, tokens=8)
    u = uniforms([3], 20_000)[0]
    tokens = draw(logits.expand(20_000, -1), PLAIN, u).tokens
    expected = 20_000 * logits.softmax(-1)[0].numpy()
    assert stats.chisquare(tokens.bincount(minlength=8).numpy(), expected).pvalue > 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_logprobs_are_those_of_the_distribution_drawn_from(dtype):
    params = SamplingParams(temperature=0.8, top_p=0.9)
    logits = _logits(dtype=dtype)
    drawn = draw(logits, params, uniforms([1], 6)[0])
    wide = logits if dtype == torch.float64 else logits.float()
    expected = filter_logits(wide, params).log_softmax(-1).gather(1, drawn.tokens[:, None])[:, 0]
    assert drawn.logprobs.dtype == wide.dtype
    torch.testing.assert_close(drawn.logprobs, expected, rtol=0, atol=0)
    assert (drawn.logprobs < -0.01).any()


def test_a_token_without_probability_is_never_drawn():
    logits = torch.full((3, 5), -torch.inf)
    logits[:, 2] = 1.0
    logits[:, 3] = 0.5
    edges = torch.tensor([0.0, 0.5, module.LARGEST_UNIFORM], dtype=torch.float64)
    assert draw(logits, PLAIN, edges).tokens.tolist() == [2, 2, 3]


def test_a_large_vocabulary_is_done_in_parts_with_the_same_result(monkeypatch):
    logits, u = _logits(rows=7, tokens=50), uniforms([4], 7)[0]
    whole = draw(logits, PLAIN, u)
    monkeypatch.setattr(module, "CDF_ELEMENTS", 100)
    assert torch.equal(draw(logits, PLAIN, u).tokens, whole.tokens)


def test_greedy_takes_the_most_likely_token_under_the_models_own_distribution():
    logits = _logits()
    drawn = draw(logits, SamplingParams(temperature=0), None)
    assert torch.equal(drawn.tokens, logits.argmax(-1))
    torch.testing.assert_close(drawn.logprobs, logits.log_softmax(-1).amax(-1))


def test_logits_that_are_not_numbers_show_in_the_logprob():
    logits = torch.full((2, 4), torch.nan)
    assert draw(logits, PLAIN, uniforms([0], 2)[0]).logprobs.isnan().all()

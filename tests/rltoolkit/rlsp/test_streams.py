"""Decoupled advantages: exactly the single one where theory says so, worked numbers, statistics per stream."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rltoolkit.rlsp.advantages import Moments, masked_moments
from rltoolkit.rlsp.config import RLSPConfig
from rltoolkit.rlsp.streams import estimate, outcome_rate


@pytest.fixture
def config(tmp_path):
    def make(**options):
        cpu = {"use_cpu": True, "bf16": False, "report_to": [], "per_device_train_batch_size": 4}
        plain = {"advantage": "decoupled", "normalize_streams": False, "whiten_advantages": False}
        return RLSPConfig(str(tmp_path), **cpu, **{**plain, **options})

    return make


def alone(moments):
    return moments


def drawn(seed, rows=6, tokens=9):
    """A ragged rollout in float64: scores of both streams, log-probs, reference, mask with holes."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, 2, generator=generator, dtype=torch.float64)
    logps, ref_logps = -torch.rand(2, rows, tokens, generator=generator, dtype=torch.float64)
    mask = (torch.rand(rows, tokens, generator=generator) < 0.7).long()
    mask[0] = 0  # a response that does not count
    return scores, logps, ref_logps, mask


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 0.0), (0.97, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_with_values_that_add_up_it_is_the_single_advantage(config, seed, gamma, lam, whiten):
    scores, logps, ref_logps, mask = drawn(seed)
    values = torch.randn(*mask.shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    options = {"gamma": gamma, "gae_lambda": lam, "whiten_advantages": whiten}
    one = {"advantage": "single", "normalize_streams": True}
    apart = estimate(scores, logps, ref_logps, values, mask, config(**options), alone)
    total, value = scores.sum(1, keepdim=True), values.sum(-1, keepdim=True)
    single = estimate(total, logps, ref_logps, value, mask, config(**options, **one), alone)
    torch.testing.assert_close(apart.advantages, single.advantages, rtol=0, atol=1e-12)
    torch.testing.assert_close(apart.returns.sum(-1), single.returns[..., 0], rtol=0, atol=1e-12)
    explained = "value/explained_variance"
    assert apart.metrics[explained] == pytest.approx(single.metrics[explained], abs=1e-12)
    assert apart.advantages[0].abs().sum() == 0


def test_linear_critics_stay_in_agreement_while_they_learn(config):
    """Least squares is linear in its targets: fitted again and again on their own returns, the values still add up."""
    scores, logps, ref_logps, mask = drawn(7, rows=12)
    features = torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    counted = mask.bool()
    joint, parts = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    for _ in range(5):
        single = config(advantage="single", normalize_streams=True)
        one = estimate(scores.sum(1, keepdim=True), logps, ref_logps, features @ joint, mask, single, alone)
        two = estimate(scores, logps, ref_logps, features @ parts, mask, config(), alone)
        torch.testing.assert_close(two.advantages, one.advantages, rtol=0, atol=1e-12)
        joint = torch.linalg.lstsq(features[counted], one.returns[counted]).solution
        parts = torch.linalg.lstsq(features[counted], two.returns[counted]).solution
    assert joint.abs().max() > 0.01  # they did learn something
    assert parts[:, 1].abs().max() > 0.01


# The worked example of one response with four tokens: kl_coef 0.05, gamma 1, lambda 0.95, R = 0.94 = 0.8 + 0.14.
LOGPS = torch.tensor([[-1.0, -0.5, -2.0, -0.1]], dtype=torch.float64)
REF = torch.tensor([[-1.2, -0.4, -2.4, -0.2]], dtype=torch.float64)
SCORES = torch.tensor([[0.8, 0.14]], dtype=torch.float64)
VALUES = torch.tensor([[[0.2, 0.1], [0.3, 0.1], [0.4, 0.1], [0.5, 0.1]]], dtype=torch.float64)
SINGLE = [0.549171, 0.483337, 0.398250, 0.335000]
EXPLORATION = [0.04 * 0.95**3, 0.04 * 0.95**2, 0.04 * 0.95, 0.04]  # the value stays: only the end is a surprise


def worked(config, weight=1.0, **options):
    mask = torch.ones(1, 4)
    return estimate(SCORES, LOGPS, REF, VALUES, mask, config(**options), alone, exploration_weight=weight)


def test_worked_numbers(config):
    assert worked(config).advantages[0].tolist() == pytest.approx(SINGLE, abs=1e-6)
    correctness = worked(config, weight=0.0).advantages[0].tolist()
    assert correctness == pytest.approx([a - b for a, b in zip(SINGLE, EXPLORATION, strict=True)], abs=1e-6)
    heavy = worked(config, weight=3.0).advantages[0].tolist()
    assert heavy == pytest.approx([a + 3 * b for a, b in zip(correctness, EXPLORATION, strict=True)], abs=1e-9)


def test_the_exploration_stream_has_discounts_of_its_own(config):
    both = worked(config, exploration_gamma=0.5, exploration_gae_lambda=0.0)
    correctness = torch.tensor(worked(config, weight=0.0).advantages[0].tolist())
    rest = both.advantages[0] - correctness
    # lambda 0: each token's own surprise, 0.5 * 0.1 - 0.1 within, 0.14 - 0.1 at the end
    assert rest.tolist() == pytest.approx([-0.05, -0.05, -0.05, 0.04], abs=1e-7)
    assert both.returns[0, :, 1].tolist() == pytest.approx([0.05, 0.05, 0.05, 0.14], abs=1e-7)


def test_the_kl_is_charged_to_correctness_alone(config):
    free = worked(config, kl_coef=0.0).returns[0]
    paid = worked(config, kl_coef=5.0).returns[0]
    assert (paid[:3, 0] != free[:3, 0]).all()
    assert torch.equal(paid[:, 1], free[:, 1])


def whitened(values):
    return (values - values.mean()) / values.std(correction=0)


def test_normalised_streams_count_by_their_weights_and_not_by_their_size(config):
    scores, logps, ref_logps, mask = drawn(3)
    values = torch.zeros(*mask.shape, 2, dtype=torch.float64)
    counted = mask.bool()
    streams = []
    for stream in (0, 1):
        only = scores * torch.eye(2, dtype=torch.float64)[stream]
        reference = ref_logps if stream == 0 else None
        streams.append(estimate(only, logps, reference, values, mask, config(), alone).advantages[counted])
    expected = 0.7 * whitened(streams[0]) + 2.5 * 0.3 * whitened(streams[1])
    options = {"normalize_streams": True, "alpha": 0.7}
    for size in (1.0, 0.2):  # an exploration reward a fifth as large counts as much
        sized = scores * torch.tensor([1.0, size])
        found = estimate(sized, logps, ref_logps, values, mask, config(**options), alone, exploration_weight=2.5)
        torch.testing.assert_close(found.advantages[counted], expected, rtol=1e-9, atol=1e-9)
        assert found.advantages[~counted].abs().sum() == 0


def test_a_stream_in_which_nothing_happens_does_not_turn_the_critics_noise_into_a_signal(config):
    """No response explored: what is left of exploration are the value head's errors, which stay small."""
    draw = torch.Generator().manual_seed(0)
    mask, scores = torch.ones(32, 20), torch.zeros(32, 2, dtype=torch.float64)
    scores[::2, 0] = 0.8
    values = torch.randn(32, 20, 2, generator=draw, dtype=torch.float64) * 1e-3
    logps = torch.zeros(32, 20, dtype=torch.float64)

    def spread(weight, **options):
        whole = config(normalize_streams=True, alpha=0.8, **options)
        return estimate(scores, logps, None, values, mask, whole, alone, exploration_weight=weight).advantages

    noise = (spread(1.0) - spread(0.0)).std(correction=0)
    assert 0 < noise < 0.05  # a real signal counts 0.2
    assert spread(0.0).std(correction=0) == pytest.approx(0.8)
    scores[:] = 0.0
    assert spread(1.0).std(correction=0) < 0.1  # nor is correctness made up where every answer is wrong


def test_at_the_least_spread_the_scale_goes_over_without_a_step(config):
    """A stream is divided by its own spread above 0.05 of what it can pay, by that below."""
    draw = torch.Generator().manual_seed(0)
    values = torch.zeros(32, 20, 2, dtype=torch.float64)
    logps, mask = torch.zeros(32, 20, dtype=torch.float64), torch.ones(32, 20)
    plain = torch.randn(32, generator=draw, dtype=torch.float64)
    plain = (plain - plain.mean()) / plain.std(correction=0)
    found = []
    for size in (0.04, 0.02, 0.01, 0.005):  # with alpha 0.8 the bound is 0.01
        scores = torch.stack([torch.zeros_like(plain), size * plain], dim=1)
        whole = config(normalize_streams=True, alpha=0.8, gae_lambda=1.0)
        found.append(estimate(scores, logps, None, values, mask, whole, alone).advantages.std(correction=0).item())
    assert found == pytest.approx([0.2, 0.2, 0.2, 0.1])


def on_two_ranks(function):
    """Call function(rank, over_ranks) on two threads whose exchanges add up; their results."""
    together, sent = threading.Barrier(2, timeout=60), [None, None]

    def run(rank):
        def over_ranks(own):
            sent[rank] = own
            together.wait()
            total = Moments(*(a + b for a, b in zip(*sent, strict=True)))
            together.wait()
            return total

        return function(rank, over_ranks)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (0, 1)))


def test_statistics_are_those_of_all_ranks(config):
    """Two ranks, with two and four of the rows, end with the advantages of one that has all of them."""
    scores, logps, ref_logps, mask = drawn(5)
    values = torch.randn(*mask.shape, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    options = config(normalize_streams=True, whiten_advantages=True)

    def part(rows, over_ranks):
        mine = (tensor[rows] for tensor in (scores, logps, ref_logps, values, mask))
        return estimate(*mine, options, over_ranks, exploration_weight=1.5)

    halves = (slice(0, 2), slice(2, 6))
    first, second = on_two_ranks(lambda rank, over_ranks: part(halves[rank], over_ranks))
    whole = part(slice(0, 6), alone)
    both = torch.cat([first.advantages, second.advantages])
    torch.testing.assert_close(both, whole.advantages, rtol=0, atol=1e-12)
    assert first.metrics == second.metrics == pytest.approx(whole.metrics, abs=1e-12)


def test_what_is_logged_of_the_streams(config):
    scores, logps, ref_logps, mask = drawn(1)
    values = torch.zeros(*mask.shape, 2, dtype=torch.float64)
    good = estimate(scores, logps, ref_logps, values, mask, config(gae_lambda=1.0), alone)
    again = estimate(scores, logps, ref_logps, good.returns, mask, config(gae_lambda=1.0), alone).metrics
    for name in ("", "_correctness", "_exploration"):
        assert good.metrics[f"value/explained_variance{name}"] == pytest.approx(0)  # constant values
    assert again["value/explained_variance_exploration"] == pytest.approx(1)  # told exactly
    assert -1 < good.metrics["advantage/stream_correlation"] < 1
    same = scores[:, :1].expand(-1, 2)
    alike = estimate(same, logps, None, values, mask, config(), alone).metrics
    assert alike["advantage/stream_correlation"] == pytest.approx(1)
    assert alike["advantage/std_correctness"] == pytest.approx(alike["advantage/std_exploration"])


def test_a_stream_that_does_not_vary_is_not_logged_as_nan(config):
    scores, logps, ref_logps, mask = drawn(2)
    silent = scores * torch.tensor([1.0, 0.0])
    values = torch.zeros(*mask.shape, 2, dtype=torch.float64)
    found = estimate(silent, logps, ref_logps, values, mask, config(normalize_streams=True), alone)
    assert "value/explained_variance_exploration" not in found.metrics
    assert "advantage/stream_correlation" not in found.metrics
    assert all(value == value for value in found.metrics.values())
    assert found.advantages.isfinite().all()


def test_a_rollout_without_a_counted_token_is_zero_everywhere(config):
    scores, logps, ref_logps, mask = drawn(2)
    values = torch.randn(*mask.shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = config(normalize_streams=True, whiten_advantages=True)
    found = estimate(scores * torch.nan, logps, ref_logps, values, mask * 0, whole, alone)
    assert found.advantages.abs().sum() == 0
    assert found.returns.abs().sum() == 0
    assert found.metrics == {}  # nothing is known of it, neither a spread of 0


def test_the_outcome_rate_is_of_what_could_be_judged():
    outcome = torch.tensor([1.0, torch.nan, 0.0, 1.0])
    assert outcome_rate(outcome, alone) == pytest.approx(2 / 3)
    assert outcome_rate(outcome * torch.nan, alone) is None
    other = masked_moments(torch.zeros(5), torch.ones(5))
    summed = outcome_rate(outcome, lambda own: Moments(*(a + b for a, b in zip(own, other, strict=True))))
    assert summed == pytest.approx(2 / 8)

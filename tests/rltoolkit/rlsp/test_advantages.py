"""GAE and whitening against worked numbers, a slow reference and their identities."""

import pytest
import torch

from rltoolkit.rlsp.advantages import Moments, explained_variance, gae, masked_moments, whiten

VALUES = torch.tensor([[0.3, 0.4, 0.5, 0.6]], dtype=torch.float64)
REWARDS = torch.tensor([[-0.010, 0.005, -0.020, 0.935], [-0.010, 0.005, -0.020, -0.749]], dtype=torch.float64)
ADVANTAGES = [[0.549171, 0.483337, 0.398250, 0.335000], [-0.894649, -1.036473, -1.201550, -1.349000]]
RETURNS = [[0.849171, 0.883337, 0.898250, 0.935000], [-0.594649, -0.636473, -0.701550, -0.749000]]
MONTE_CARLO = [[0.610, 0.520, 0.415, 0.335], [-1.074, -1.164, -1.269, -1.349]]
DELTAS = [[0.09, 0.105, 0.08, 0.335], [0.09, 0.105, 0.08, -1.349]]


def both(lam=0.95, gamma=1.0):
    values = VALUES.expand(2, 4)
    return gae(REWARDS, values, torch.ones(2, 4), gamma=gamma, lam=lam)


def slow_gae(rewards, values, gamma, lam):
    """The definition, one sequence at a time: A_t = sum over k of (gamma lam)^k delta_{t+k}."""
    length = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < length else 0.0) - values[t] for t in range(length)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t)) for t in range(length)]


def test_worked_numbers():
    advantages, returns = both()
    torch.testing.assert_close(advantages, torch.tensor(ADVANTAGES, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(returns, torch.tensor(RETURNS, dtype=torch.float64), rtol=0, atol=1e-6)


def test_lambda_one_is_the_sum_of_rewards_minus_the_value():
    torch.testing.assert_close(both(lam=1.0)[0], torch.tensor(MONTE_CARLO, dtype=torch.float64), rtol=0, atol=1e-9)


def test_lambda_zero_is_the_one_step_error():
    torch.testing.assert_close(both(lam=0.0)[0], torch.tensor(DELTAS, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_the_last_advantage_is_reward_minus_value_for_every_lambda(lam):
    assert both(lam)[0][:, -1].tolist() == pytest.approx([0.335, -1.349])


@pytest.mark.parametrize("seed", range(5))
def test_against_the_slow_definition_with_ragged_rows_and_holes(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    mask = (torch.rand(6, 9, generator=generator) < 0.7).long()
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    for row in range(6):
        keep = mask[row].bool()
        expected = slow_gae(rewards[row][keep].tolist(), values[row][keep].tolist(), 0.9, 0.8)
        assert advantages[row][keep].tolist() == pytest.approx(expected, abs=1e-12)
    assert advantages[mask == 0].abs().sum() == 0
    torch.testing.assert_close(returns, (advantages + values) * mask)


def test_half_precision_is_computed_in_float32():
    advantages, _ = gae(REWARDS.half(), VALUES.expand(2, 4).half(), torch.ones(2, 4))
    assert advantages.dtype == torch.float32


def test_whitening_is_over_the_whole_rollout():
    advantages = torch.tensor(ADVANTAGES, dtype=torch.float64)
    whitened = whiten(advantages, torch.ones(2, 4))
    assert whitened.mean().item() == pytest.approx(0, abs=1e-12)
    assert whitened.var(correction=0).item() == pytest.approx(1)
    assert (whitened[0] > 0).all()  # per sequence both rows would get the same pattern around zero
    assert (whitened[1] < 0).all()


def test_per_sequence_whitening_would_erase_the_reward():
    first = whiten(torch.tensor(ADVANTAGES[:1], dtype=torch.float64), torch.ones(1, 4))
    second = whiten(torch.tensor(ADVANTAGES[1:], dtype=torch.float64), torch.ones(1, 4))
    assert first[0].tolist() == pytest.approx([1.322, 0.514, -0.530, -1.306], abs=1e-3)
    assert second[0].tolist() == pytest.approx([1.321, 0.491, -0.475, -1.337], abs=1e-3)


def test_whitening_leaves_padding_out():
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    values = torch.tensor([[1.0, 2.0, 99.0, 99.0], [3.0, 4.0, 5.0, 6.0]], dtype=torch.float64)
    whitened = whiten(values, mask)
    assert whitened[mask == 0].abs().sum() == 0
    assert whitened[mask == 1].mean().item() == pytest.approx(0, abs=1e-12)
    assert whitened[mask == 1].var(correction=0).item() == pytest.approx(1)


def test_moments_of_ranks_add_up():
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(6, 5)
    parts = [masked_moments(values[:2], mask[:2]), masked_moments(values[2:], mask[2:])]
    summed = Moments(*(a + b for a, b in zip(*parts, strict=True)))
    torch.testing.assert_close(whiten(values[:2], mask[:2], summed), whiten(values, mask)[:2])


def test_equal_advantages_whiten_to_zero_not_to_infinity():
    assert whiten(torch.full((2, 3), 0.7), torch.ones(2, 3)).abs().max() < 1e-2


def test_explained_variance():
    returns = torch.tensor([[1.0, 2.0, 3.0]])
    ones = torch.ones(1, 3)

    def explained(values):
        return explained_variance(masked_moments(returns, ones), masked_moments(returns - values, ones))

    assert explained(returns) == pytest.approx(1)
    assert explained(torch.full((1, 3), 2.0)) == pytest.approx(0)
    assert explained(-returns) < 0
    flat = masked_moments(torch.ones(1, 3), ones)
    assert explained_variance(flat, flat) != explained_variance(flat, flat)  # NaN: nothing to explain

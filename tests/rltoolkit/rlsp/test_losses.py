"""The clip tables of PPO, with gradients."""

import math

import pytest
import torch

from rltoolkit.rlsp.losses import policy_loss, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [(1.5, 1.0, -1.2, False), (0.5, 1.0, -0.5, True), (1.5, -1.0, 1.5, True), (0.5, -1.0, 0.8, False)],
)
def test_policy_clip_table(ratio, advantage, loss, has_gradient):
    logps = torch.tensor([[math.log(ratio)]], requires_grad=True)
    result = policy_loss(logps, torch.zeros(1, 1), torch.tensor([[advantage]]))
    result.loss.sum().backward()
    assert result.loss.item() == pytest.approx(loss)
    assert (logps.grad.abs().item() > 0) is has_gradient
    assert bool(result.clipped) is not has_gradient


def test_first_minibatch_is_minus_the_mean_advantage():
    advantages = torch.tensor([[0.5, -2.0, 1.0]])
    logps = torch.tensor([[-1.0, -0.3, -2.0]])
    assert policy_loss(logps, logps, advantages).loss.mean().item() == pytest.approx(-advantages.mean().item())


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "has_gradient"),
    [
        (0.1, 0.0, 1.0, 0.405, True),  # inside the clip: plain squared error
        (0.5, 0.0, 1.0, 0.32, False),  # moved further than 0.2 towards the target: no more pay
        (-0.5, 0.0, 1.0, 1.125, True),  # moved away from the target: the larger error counts
        (1.0, 0.9, 1.0, 0.0, True),
    ],
)
def test_value_clip_table(value, old, target, loss, has_gradient):
    values = torch.tensor([[value]], requires_grad=True)
    result = value_loss(values, torch.tensor([[old]]), torch.tensor([[target]]))
    result.loss.sum().backward()
    assert result.loss.item() == pytest.approx(loss, abs=1e-6)
    assert bool(result.clipped) is not has_gradient
    if loss > 0:
        assert (values.grad.abs().item() > 0) is has_gradient


def test_rounding_within_the_value_clip_counts_as_no_clipping():
    draw = torch.Generator().manual_seed(0)
    old = torch.randn(1000, generator=draw)
    values = old + 0.1 * (torch.rand(1000, generator=draw) - 0.5)
    assert not value_loss(values, old, torch.randn(1000, generator=draw), clip=0.2).clipped.any()
    assert value_loss(old + 0.3, old, old + 1, clip=0.2).clipped.all()

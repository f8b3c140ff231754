"""The scalar head: its start, its shape, its dtype."""

import pytest
import torch

from reward_models.errors import VerifierError
from reward_models.value_head import ValueHead


def test_weights_start_at_the_stated_spread() -> None:
    hidden = 4000
    head = ValueHead(hidden, generator=torch.Generator().manual_seed(0))
    weight = head.linear.weight
    assert weight.shape == (1, hidden)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight"]
    # The sample spread of 4000 draws is within 5 % of the true one, more than four standard errors.
    assert weight.std().item() == pytest.approx(1 / (hidden + 1), rel=0.05)
    assert abs(weight.mean().item()) < 5 / (hidden + 1) / hidden**0.5


def test_values_are_one_per_token() -> None:
    head = ValueHead(8, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    values = head(hidden)
    assert values.shape == (2, 5)
    assert torch.allclose(values, torch.einsum("bth,h->bt", hidden, head.linear.weight[0]), atol=1e-6)


def test_values_have_the_dtype_of_the_head() -> None:
    assert ValueHead(8)(torch.zeros(1, 2, 8, dtype=torch.bfloat16)).dtype is torch.float32


def test_same_seed_same_head() -> None:
    first, second, other = (ValueHead(8, generator=torch.Generator().manual_seed(s)).linear.weight for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_no_width_is_refused() -> None:
    with pytest.raises(VerifierError, match="hidden_size is 0"):
        ValueHead(0)

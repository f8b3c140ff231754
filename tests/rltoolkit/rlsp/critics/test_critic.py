"""The critic: where it starts, which names are its own, and that it survives its files."""

from types import SimpleNamespace

import pytest
import torch

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.critics.critic import Critic, hide_critic, split_state
from rltoolkit.rlsp.critics.files import load_critic, save_critic
from rltoolkit.rlsp.critics.start import critic_from

IDS = torch.tensor([[5, 6, 7, 8]])
MASK = torch.ones_like(IDS)


def test_fresh_values_are_near_zero_and_repeat_with_the_seed(policy):
    first, again, other = (Critic.from_policy(policy, seed=seed) for seed in (0, 0, 1))
    values = first(IDS, MASK)
    assert values.shape == (1, 4)
    assert values.dtype == torch.float32
    assert values.abs().max() < 1
    assert torch.equal(values, again(IDS, MASK))
    assert not torch.equal(values, other(IDS, MASK))


def test_the_copy_is_apart_from_the_policy(policy):
    critic = Critic.from_policy(policy)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(1.0)
    assert torch.equal(policy.model.norm.weight, torch.ones_like(policy.model.norm.weight))


def test_a_saved_critic_is_where_another_run_can_start(policy, tmp_path):
    critic = Critic.from_policy(policy, seed=3)
    save_critic(tmp_path, critic, critic.state_dict())
    reloaded = critic_from(str(tmp_path / "critic"), seed=9, dtype=torch.float32)
    torch.testing.assert_close(reloaded(IDS, MASK), critic(IDS, MASK))


def test_a_policys_backbone_starts_a_critic_too(policy, tmp_path):
    policy.save_pretrained(tmp_path)
    critic = critic_from(str(tmp_path), dtype=torch.float32)
    assert torch.equal(critic.backbone.embed_tokens.weight, policy.model.embed_tokens.weight)


def test_a_missing_or_foreign_file_is_named(policy, tmp_path):
    critic = Critic.from_policy(policy)
    with pytest.raises(ModelError, match="does not exist"):
        load_critic(tmp_path, critic)
    save_critic(tmp_path, critic, {"head.linear.weight": torch.zeros(1, 3)})
    with pytest.raises(ModelError, match="does not fit this critic"):
        load_critic(tmp_path, critic)


def test_names_are_split_with_and_without_adapters():
    state = {
        name: torch.zeros(1)
        for name in ("lm_head.weight", "critic.head.w", "base.model.critic.head.w", "model.critical.w")
    }
    policy, critic = split_state(state)
    assert list(policy) == ["lm_head.weight", "model.critical.w"]
    assert list(critic) == ["head.w"]


def test_vllm_is_not_sent_the_critic():
    names = ["model.norm.weight", "critic.head.linear.weight", "base_model.model.critic.backbone.norm.weight"]
    generation = SimpleNamespace(_iter_named_params=lambda: iter([(name, torch.zeros(1)) for name in names]))
    hide_critic(generation)
    assert [name for name, _ in generation._iter_named_params()] == ["model.norm.weight"]

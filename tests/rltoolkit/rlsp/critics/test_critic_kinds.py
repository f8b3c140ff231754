"""The critics that share the policy's weights: what they see, what they train, what their files hold."""

import copy

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rltoolkit.rlsp.advantages import explained_variance, masked_moments

IDS = torch.tensor([[0, 5, 6, 7, 8], [4, 5, 9, 3, 6]])
MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def weights(model, *, critic):
    named = model.named_parameters()
    return {name: p.detach().clone() for name, p in named if ("critic." in name) is critic}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def joint(trainer, ids=IDS, mask=MASK):
    labels = ids.masked_fill(mask == 0, -100)
    return trainer.model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, return_values=True)


def test_shared_values_come_out_of_the_policys_own_pass(make_trainer):
    trainer = make_trainer(critic="shared")
    passes = []
    trainer.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    values = joint(trainer).state_values
    assert len(passes) == 1
    hidden = trainer.model(IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[-1]
    expected = (hidden @ trainer.critic.head.linear.weight.T).squeeze(-1)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(trainer.critic(IDS, MASK), values)


def test_the_shared_critics_value_loss_trains_the_trunk(make_trainer):
    trainer = make_trainer(critic="shared")
    joint(trainer).state_values.square().sum().backward()
    trunk = {name: p for name, p in trainer.model.named_parameters() if name != "lm_head.weight"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.values())


def test_only_the_shared_critics_head_has_the_critics_learning_rate(make_trainer):
    trainer = make_trainer(critic="shared")
    trainer.create_optimizer()
    groups = [(g["lr"], p) for g in trainer.optimizer.param_groups for p in g["params"]]
    assert [p is trainer.critic.head.linear.weight for rate, p in groups if rate == 1e-2] == [True]
    assert len(groups) == len(list(trainer.model.parameters()))


def test_shared_warm_up_moves_the_head_alone(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, critic="shared", critic_warmup_rollouts=2, weight_decay=0.1)
    policy, critic = weights(trainer.model, critic=False), weights(trainer.model, critic=True)
    trainer.train()
    assert changed(policy, weights(trainer.model, critic=False)) == set()
    assert changed(critic, weights(trainer.model, critic=True)) == {"critic.head.linear.weight"}


def test_in_shared_warm_up_the_trunk_has_no_share_in_the_clipped_gradient(make_trainer):
    """The value loss pulls at the trunk far more than at the head; none of it is learned from, nor clipped by."""
    trainer = make_trainer(
        outcome=lengths_reward, critic="shared", critic_warmup_rollouts=1, max_steps=1, max_grad_norm=0.01, optim="sgd"
    )
    head = trainer.critic.head.linear.weight
    before, clip, norms = head.detach().clone(), trainer._clip_grad_norm, []

    def clipped(model):
        norms.append((clip(model).item(), head.grad.norm().item()))
        return torch.tensor(norms[-1][0])

    trainer._clip_grad_norm = clipped
    trainer.train()
    assert norms[0][0] > 0.01  # or nothing is clipped here
    assert norms[0][1] == pytest.approx(0.01, rel=1e-3)
    assert (before - head).norm().item() == pytest.approx(1e-2 * 0.01, rel=1e-2)  # learning rate times norm


def test_a_shared_critic_trains_the_trunk_again_after_its_warm_up(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, critic="shared", critic_warmup_rollouts=1, max_steps=3)
    trainer.train()
    assert trainer.critic.trains_trunk


def test_a_shared_critics_folder_holds_the_head_alone(make_trainer, tmp_path):
    trainer = make_trainer(outcome=lengths_reward, critic="shared", max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    reloaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    assert changed(weights(trainer.model, critic=False), dict(reloaded.named_parameters())) == set()
    saved = load_file(tmp_path / "model" / "critic" / "model.safetensors")
    assert list(saved) == ["head.linear.weight"]
    assert torch.equal(saved["head.linear.weight"], trainer.critic.head.linear.weight)


def test_training_with_a_shared_critic_resumes_to_the_same_weights(make_trainer, policy, tmp_path):
    start = copy.deepcopy(policy)
    options = {"outcome": lengths_reward, "critic": "shared", "save_strategy": "steps", "save_steps": 2, "kl_coef": 0.1}
    straight = make_trainer(model=copy.deepcopy(start), **options)
    straight.train()
    resumed = make_trainer(model=copy.deepcopy(start), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for owner in (True, False):
        assert changed(weights(straight.model, critic=owner), weights(resumed.model, critic=owner)) == set()


@pytest.mark.parametrize("kind", ["separate", "shared", "lora"])
def test_every_kind_learns_what_tokens_tell(make_trainer, kind):
    """Targets that follow from the tokens so far; the values of the joint forward come to explain them."""
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if kind == "lora" else None
    trainer = make_trainer(critic=kind, peft_config=lora)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 29, (32, 8), generator=generator)
    mask = torch.ones_like(ids)
    low = (ids < 16).float()
    targets = low.cumsum(1) / torch.arange(1, 9)
    learning = trainer.model.parameters() if kind == "shared" else trainer.critic.parameters()
    optimiser = torch.optim.Adam(learning, lr=1e-2)
    losses, explained = [], []
    for _ in range(40):
        values = joint(trainer, ids, mask).state_values
        loss = (values - targets).square().mean()
        losses.append(loss.item())
        left = (targets - values).detach()
        explained.append(explained_variance(masked_moments(targets, mask), masked_moments(left, mask)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.2 * losses[0]
    assert explained[0] < 0.1
    assert explained[-1] > 0.3

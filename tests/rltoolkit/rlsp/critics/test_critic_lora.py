"""The critic that is an adapter on the policy's frozen base: neither sees the other's change."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from rltoolkit.errors import ModelError
from rltoolkit.rlsp.critics.lora import LoraCritic
from rltoolkit.rollout.adapters import adapter_of, write_adapter
from rltoolkit.rollout.weights import memory_state, policy_state, trained_below_adapter

IDS = torch.tensor([[0, 5, 6, 7, 8], [4, 5, 9, 3, 6]])
MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])


def lengths_reward(completions, completion_ids, **_):
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def lora(**options):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options})


def stir(parameters, seed=7):
    """Adapters start as no change at all, which would hide who sees whose."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def named(trainer, *, critic):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if ("critic." in name) is critic}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture
def start(policy):
    """The model before anything is put into it."""
    return copy.deepcopy(policy)


@pytest.fixture
def trainer(make_trainer, start):
    """Both adapters are off their start, so that they do something."""
    trainer = make_trainer(outcome=lengths_reward, critic="lora", critic_lora_r=3, peft_config=lora(), kl_coef=0.1)
    stir(p for name, p in trainer.model.named_parameters() if "lora_B" in name)
    stir((p for name, p in trainer.critic.named_parameters() if name.endswith("up")), seed=8)
    return trainer


def joint(model):
    labels = IDS.masked_fill(MASK == 0, -100)
    return model(input_ids=IDS, attention_mask=MASK, labels=labels, fused_lm_head=True, return_values=True)


def test_values_are_those_of_the_base_with_the_critics_change(trainer, start):
    """Against a plain model whose weights have the change added, W + alpha / r * up @ down."""
    for name, module in start.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            change = trainer.critic.adapter[name.replace(".", "/")]
            module.weight.data += 32 / 3 * (change.up @ change.down).detach()
    hidden = start.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = (hidden @ trainer.critic.head.linear.weight.T).squeeze(-1)
    counted = MASK.bool()
    torch.testing.assert_close(trainer.critic(IDS, MASK)[counted], expected[counted], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joint(trainer.model).state_values[counted], expected[counted], rtol=1e-4, atol=1e-5)


def test_a_fresh_critic_sees_the_start_model(make_trainer, start):
    trainer = make_trainer(critic="lora", peft_config=lora())
    hidden = start.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = (hidden @ trainer.critic.head.linear.weight.T).squeeze(-1)
    torch.testing.assert_close(trainer.critic(IDS, MASK), expected)


def test_the_policy_does_not_see_the_critic(trainer):
    before = trainer.model(IDS, attention_mask=MASK).logits
    stir(trainer.critic.parameters())
    joint(trainer.model)
    assert torch.equal(trainer.model(IDS, attention_mask=MASK).logits, before)


def test_the_value_loss_reaches_all_of_the_critic_and_nothing_else(trainer):
    trainer.critic(IDS, MASK).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.critic.parameters())
    assert [n for n, p in trainer.model.named_parameters() if "critic." not in n and p.grad is not None] == []


def test_the_policy_loss_does_not_reach_the_critic(trainer):
    joint(trainer.model).log_probs.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.critic.parameters())
    assert all(p.grad is not None for n, p in trainer.model.named_parameters() if "lora_" in n)


def gradients(trainer):
    trainer.model.zero_grad()
    output = joint(trainer.model.train())
    (output.log_probs.sum() + output.state_values.square().sum()).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_are_the_same_with_gradient_checkpointing(trainer, reentrant):
    """A block is computed again in the backward pass, when the critic's forward is long over."""
    plain = gradients(trainer)
    trainer.model.enable_input_require_grads()
    trainer.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    trainer.model.get_base_model().model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again = gradients(trainer)
    assert len(calls) == 4  # policy and critic, each twice: the checkpoints were really there
    assert again.keys() == plain.keys()
    assert {name.rpartition(".")[2] for name in plain if "critic.adapter" in name} == {"down", "up"}
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_what_is_trained_stays_so_through_reference_and_values(trainer):
    """PEFT freezes adapters when it turns them off for the reference; the critic's are none of PEFT's."""

    def trained():
        return {name for name, p in trainer.model.named_parameters() if p.requires_grad}

    before = trained()
    assert any("lora_A" in name for name in before)
    assert any("critic.adapter" in name for name in before)
    trainer.model.train()
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(4)])
    assert "ref_per_token_logps" in rollout
    assert trained() == before


def test_the_reference_is_the_model_without_either_adapter(trainer, start):
    trainer.model.train()
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(4)])
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], 1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], 1)
    length = rollout["completion_ids"].size(1)
    logits = start(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
    expected = logits.log_softmax(-1).gather(2, rollout["completion_ids"].unsqueeze(2)).squeeze(2)
    counted = rollout["completion_mask"].bool()
    torch.testing.assert_close(rollout["ref_per_token_logps"][counted], expected[counted], rtol=1e-4, atol=1e-5)


def test_a_rollout_backend_is_given_the_policys_adapter_alone(trainer, tmp_path):
    with_critic = (policy_state(trainer.model), memory_state(trainer.model))
    base = trainer.model.get_base_model()
    assert trained_below_adapter(trainer.model) is None
    assert adapter_of(trainer.model).unmerged
    write_adapter(trainer.model, tmp_path / "adapter")
    del base.critic
    for found, wanted in zip(with_critic, (policy_state(trainer.model), memory_state(trainer.model)), strict=True):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.partition(".lora_")[2] for name in saved} == {"A.weight", "B.weight"}


def test_training_moves_both_adapters_and_leaves_the_base(trainer):
    policy, critic = named(trainer, critic=False), named(trainer, critic=True)
    trainer.train()
    moved = changed(policy, named(trainer, critic=False))
    assert moved == {name for name in policy if "lora_" in name}
    assert changed(critic, named(trainer, critic=True)) == critic.keys()


def test_warm_up_leaves_the_policys_adapter_bit_identical(make_trainer):
    trainer = make_trainer(
        outcome=lengths_reward, critic="lora", peft_config=lora(), critic_warmup_rollouts=2, weight_decay=0.1
    )
    policy, critic = named(trainer, critic=False), named(trainer, critic=True)
    trainer.train()
    assert changed(policy, named(trainer, critic=False)) == set()
    assert changed(critic, named(trainer, critic=True)) == critic.keys()


def test_the_policys_folder_loads_in_peft_and_the_critics_stands_beside_it(trainer, start, tmp_path):
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    start.save_pretrained(tmp_path / "base")
    reloaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "model")
    mine = trainer.model.eval()(IDS, attention_mask=MASK).logits
    torch.testing.assert_close(reloaded.eval()(IDS, attention_mask=MASK).logits, mine)
    from safetensors.torch import load_file

    adapter = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert {name.partition(".lora_")[2] for name in adapter} == {"A.weight", "B.weight"}
    assert not [name for name in adapter if "critic" in name]
    critic = load_file(tmp_path / "model" / "critic" / "model.safetensors")
    assert changed(critic, trainer.critic.state_dict()) == set()
    assert critic.keys() == trainer.critic.state_dict().keys()
    size = sum(file.stat().st_size for file in (tmp_path / "model" / "critic").iterdir())
    assert size < (tmp_path / "base" / "model.safetensors").stat().st_size  # no copy of the base


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_resumes_to_the_same_weights(make_trainer, start, tmp_path, checkpointing):
    options = {
        "outcome": lengths_reward, "critic": "lora", "peft_config": lora(), "kl_coef": 0.1, "save_strategy": "steps",
        "save_steps": 2, "gradient_checkpointing": checkpointing,
    }  # fmt: skip
    straight = make_trainer(model=copy.deepcopy(start), **options)
    straight.train()
    resumed = make_trainer(model=copy.deepcopy(start), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for owner in (True, False):
        assert changed(named(straight, critic=owner), named(resumed, critic=owner)) == set()


def test_modules_that_the_policy_trains_as_a_whole_are_not_the_critics(make_trainer, start):
    trainer = make_trainer(
        critic="lora", peft_config=lora(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens"])
    )
    stir(p for name, p in trainer.model.named_parameters() if "modules_to_save" in name)
    hidden = start.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = (hidden @ trainer.critic.head.linear.weight.T).squeeze(-1)
    torch.testing.assert_close(trainer.critic(IDS, MASK), expected)


def test_a_copied_model_has_a_critic_of_its_own(trainer):
    copied = copy.deepcopy(trainer.model)
    before = copied.get_base_model().critic(IDS, MASK)
    stir(trainer.model.parameters())
    assert torch.equal(copied.get_base_model().critic(IDS, MASK), before)
    assert not torch.equal(trainer.critic(IDS, MASK), before)


def test_a_failure_in_the_critics_pass_gives_the_policy_back(trainer):
    before = trainer.model(IDS, attention_mask=MASK).logits
    with pytest.raises(RuntimeError):
        trainer.critic(IDS, MASK[:, :3])
    assert torch.equal(trainer.model(IDS, attention_mask=MASK).logits, before)


def test_a_policy_without_an_adapter_is_refused(make_trainer, policy):
    with pytest.raises(ModelError, match="needs a policy with an adapter on linear layers"):
        make_trainer(critic="lora")
    with pytest.raises(ModelError, match="needs a policy with an adapter on linear layers"):
        LoraCritic(policy)


def test_a_base_that_is_trained_beside_the_adapter_is_refused(make_trainer, tokenizer):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"q_proj\.bias is trained beside the adapter"):
        make_trainer(model=Qwen2ForCausalLM(config), critic="lora", peft_config=lora(bias="all"))

"""RLSPTrainer on a tiny policy: what learns when, what is saved, what is counted."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from reward_models.exploration import LengthExploration
from rltoolkit.errors import DataError, ModelError
from rltoolkit.rlsp.critics.critic import Critic


def weights(model, *, critic):
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if ("critic." in name) is critic
    }


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def lengths_reward(completions, completion_ids, **_):
    """Pays for short responses: something that a random policy can learn from."""
    return [1.0 - len(ids) / 8 for ids in completion_ids]


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_one_response_per_prompt_trains_policy_and_critic(make_trainer):
    trainer = make_trainer(outcome=lengths_reward)
    policy, critic = weights(trainer.model, critic=False), weights(trainer.model, critic=True)
    trainer.train()
    assert trainer.args.num_generations == 1
    assert len(changed(policy, weights(trainer.model, critic=False))) == len(policy)
    assert len(changed(critic, weights(trainer.model, critic=True))) == len(critic)
    assert all(math.isfinite(loss) for loss in history(trainer, "loss"))


def test_critic_warm_up_leaves_the_policy_bit_identical(make_trainer):
    # weight decay on: a policy whose gradients were merely zero would move
    trainer = make_trainer(outcome=lengths_reward, critic_warmup_rollouts=2, max_steps=4, weight_decay=0.1)
    policy, critic = weights(trainer.model, critic=False), weights(trainer.model, critic=True)
    trainer.train()
    assert changed(policy, weights(trainer.model, critic=False)) == set()
    assert len(changed(critic, weights(trainer.model, critic=True))) == len(critic)


def test_policy_moves_in_the_first_rollout_after_the_warm_up(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, critic_warmup_rollouts=2, max_steps=5)
    policy = weights(trainer.model, critic=False)
    trainer.train()
    assert len(changed(policy, weights(trainer.model, critic=False))) == len(policy)


def test_the_critics_gradients_are_cleared_and_clipped(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, max_grad_norm=1e-3)
    norms = []

    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            norms.append(torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm())

    trainer.add_callback(Watch())
    trainer.train()
    assert all(norm <= 1.01e-3 for norm in norms)
    assert all(p.grad is None for p in trainer.critic.parameters())


def test_critic_has_its_own_learning_rate(make_trainer):
    trainer = make_trainer()
    trainer.create_optimizer()
    rates = {group["lr"] for group in trainer.optimizer.param_groups if group["params"]}
    assert rates == {1e-3, 1e-2}
    critic_ids = {id(p) for p in trainer.critic.parameters()}
    for group in trainer.optimizer.param_groups:
        assert all((id(p) in critic_ids) is (group["lr"] == 1e-2) for p in group["params"])
    optimised = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised)) == len(list(trainer.model.parameters()))


def rollout_of(trainer, rows):
    trainer.model.train()
    return trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(rows)])


def test_values_are_those_of_the_state_before_each_token(make_trainer):
    trainer = make_trainer(outcome=lengths_reward)
    rollout = rollout_of(trainer, 4)
    prompt, response = rollout["prompt_ids"], rollout["completion_ids"]
    for row in range(4):
        ids = torch.cat([prompt[row][rollout["prompt_mask"][row].bool()], response[row]])
        start = int(rollout["prompt_mask"][row].sum())
        for t in range(int(rollout["completion_mask"][row].sum())):
            prefix = ids[: start + t].unsqueeze(0)
            with torch.no_grad():
                expected = trainer.critic(prefix, torch.ones_like(prefix))[0, -1]
            torch.testing.assert_close(rollout["old_values"][row, t, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_response_that_cannot_be_scored_is_left_out_of_everything(make_trainer):
    def outcome(completions, **_):
        return [None, 1.0, 0.0, None]

    trainer = make_trainer(outcome=outcome)
    rollout = rollout_of(trainer, 4)
    counted = rollout["loss_mask"].sum(1).bool().tolist()
    assert counted == [False, True, True, False]
    assert rollout["advantages"][0].abs().sum() == 0
    kept = rollout["advantages"][rollout["loss_mask"].bool()]
    assert kept.mean().item() == pytest.approx(0, abs=1e-5)  # whitened over what counts, nothing else
    assert rollout["num_items_in_batch"] == rollout["loss_mask"].sum()
    assert trainer._metrics["train"]["reward/unscorable"] == [0.5]
    assert trainer._metrics["train"]["reward/outcome"] == [0.5]


def test_kl_is_zero_at_the_start_and_charged_when_the_policy_has_moved(make_trainer):
    trainer = make_trainer(
        outcome=lambda completions, **_: [0.5] * len(completions), kl_coef=1.0, whiten_advantages=False
    )
    assert rollout_of(trainer, 4)["returns"].max() <= 0.4 + 1e-5  # 0.8 * 0.5, and no box: the penalty
    assert trainer._metrics["train"]["kl"] == [pytest.approx(0, abs=1e-6)]
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(30.0)  # sharper than the reference: likelier under the policy
    rollout_of(trainer, 4)
    assert trainer._metrics["train"]["kl"][1] > 0.5


def test_no_reference_without_kl(make_trainer):
    trainer = make_trainer(kl_coef=0.0)
    assert trainer.ref_model is None
    assert "ref_per_token_logps" not in rollout_of(trainer, 4)


def test_first_update_has_ratio_one(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, max_steps=2)
    trainer.train()
    assert history(trainer, "policy/approx_kl")[0] == pytest.approx(0, abs=1e-6)
    assert history(trainer, "policy/clip_fraction")[0] == 0
    assert history(trainer, "policy/approx_kl")[1] > 0


def test_old_log_probs_and_scoring_use_the_sampling_temperature(make_trainer, policy):
    trainer = make_trainer(outcome=lengths_reward, temperature=0.5)
    rollout = rollout_of(trainer, 4)
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    length = rollout["completion_ids"].size(1)
    with torch.no_grad():
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1] / 0.5
    expected = logits.log_softmax(-1).gather(2, rollout["completion_ids"].unsqueeze(2)).squeeze(2)
    counted = rollout["loss_mask"].bool()
    torch.testing.assert_close(rollout["old_per_token_logps"][counted], expected[counted], rtol=1e-4, atol=1e-5)


def test_truncated_responses_get_no_end_of_sequence(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, max_completion_length=3)
    rollout = rollout_of(trainer, 8)
    cut = rollout["completion_mask"].sum(1) == 3
    last = rollout["completion_ids"][:, 2][cut]
    assert (last != 2).any()  # a random policy rarely ends within three tokens
    assert trainer._metrics["train"]["completions/truncated"][0] == pytest.approx((last != 2).sum().item() / 8)


def test_minibatch_split_does_not_change_the_update(make_trainer, policy):
    """One update on 8 rows equals one update on 2 x 4 rows: losses are means over tokens, not over micro-batches."""
    start = copy.deepcopy(policy)
    results = []
    for size, accumulate in ((8, 1), (4, 2)):
        trainer = make_trainer(
            model=copy.deepcopy(start),
            outcome=lengths_reward,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulate,
            steps_per_generation=accumulate,
            max_steps=1,
            seed=5,
            optim="sgd",
        )
        trainer.train()
        results.append(weights(trainer.model, critic=False))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-6)


def test_saved_model_is_clean_and_the_critic_stands_beside_it(make_trainer, tmp_path):
    trainer = make_trainer(outcome=lengths_reward)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    reloaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    for name, tensor in weights(trainer.model, critic=False).items():
        assert torch.equal(tensor, dict(reloaded.named_parameters())[name])
    fresh = Critic.from_policy(reloaded)
    from rltoolkit.rlsp.critics.files import load_critic

    load_critic(tmp_path / "model", fresh)
    for name, tensor in trainer.critic.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])


@pytest.mark.parametrize("save_at", [2, 3, 12])
def test_resume_ends_with_the_same_weights(make_trainer, policy, tmp_path, save_at):
    """At a rollout's end, in its middle (the checkpoint waits for it), and in the second epoch (after 5 rollouts)."""
    start = copy.deepcopy(policy)
    options = {
        "outcome": lengths_reward,
        "save_strategy": "steps",
        "save_steps": save_at,
        "max_steps": 16,
        "kl_coef": 0.1,
    }
    straight = make_trainer(model=copy.deepcopy(start), **options)
    straight.train()
    boundary = save_at + save_at % 2
    checkpoint = tmp_path / "out" / f"checkpoint-{boundary}"
    assert checkpoint.is_dir()
    resumed = make_trainer(model=copy.deepcopy(start), **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for owner in (True, False):
        assert changed(weights(straight.model, critic=owner), weights(resumed.model, critic=owner)) == set()


def test_lora_trains_adapters_and_critic_and_saves_the_adapter(make_trainer, tmp_path):
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(outcome=lengths_reward, peft_config=config, kl_coef=0.1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)}
    assert any("lora_B" in name for name in moved)
    assert any("critic." in name for name in moved)
    assert all("lora" in name or "critic." in name for name in moved)
    trainer.save_model(str(tmp_path / "model"))
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert saved
    assert not [name for name in saved if "critic" in name]
    assert (tmp_path / "model" / "critic" / "model.safetensors").is_file()


def test_exploration_never_sees_the_reference_and_is_gated(make_trainer):
    seen = []
    trainer = make_trainer(
        outcome=lengths_reward,
        exploration=LengthExploration(target_tokens=4),
        sink=lambda step, rank, rows: seen.extend(rows),
    )
    rollout_of(trainer, 8)
    assert len(seen) == 8
    for row in seen:
        # a random policy fills no box: every token counts as reasoning, and nothing of it is paid
        assert row.exploration_reward == pytest.approx(
            min(1.0, len([i for i in row.completion_ids if i != 2]) / 4), abs=0.26
        )
        assert row.total_reward == pytest.approx(0.8 * row.outcome_reward - 0.5)


def test_a_failed_exploration_reward_leaves_the_response_out(make_trainer):
    trainer = make_trainer(outcome=lengths_reward, exploration=lambda completions, **_: [None, 0.5, 0.5, None])
    assert rollout_of(trainer, 4)["loss_mask"].sum(1).bool().tolist() == [False, True, True, False]
    assert trainer._metrics["train"]["reward/unscorable"] == [0.5]


def test_length_is_no_judge_in_paper_mode(make_trainer):
    with pytest.raises(ModelError, match="LengthExploration is none"):
        make_trainer(outcome=lengths_reward, exploration=LengthExploration(target_tokens=4), paper_compat=True)


def test_too_small_a_dataset_is_refused(make_trainer):
    with pytest.raises(DataError, match=r"has 3 prompts, and one rollout takes 8"):
        make_trainer(dataset=Dataset.from_list([{"prompt": "1,2,3>6\n", "answer": "x"}] * 3))

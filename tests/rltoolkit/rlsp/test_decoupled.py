"""RLSPTrainer with decoupled advantages: what each stream is paid, what moves the weight, what a checkpoint keeps."""

import copy
import itertools
import math

import pytest
import torch
from peft import LoraConfig

from reward_models.errors import VerifierError
from reward_models.exploration import LengthExploration
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Verdict
from rltoolkit.errors import ModelError


def outcome(completions, **_):
    return [1.0, None, 0.0, 1.0]


def effort(completions, **_):
    return [0.5, 0.25, None, 1.0]


def lengths_reward(completions, completion_ids, **_):
    """Pays for short responses: something that a random policy can learn from."""
    return [1.0 - len(ids) / 8 for ids in completion_ids]


@pytest.fixture
def make(make_trainer):
    def make(**options):
        given = {"outcome": lengths_reward, "exploration": LengthExploration(8), "advantage": "decoupled"}
        return make_trainer(**{**given, **options})

    return make


def rollout_of(trainer, rows):
    return trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(rows)])


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_each_stream_is_paid_its_part_and_the_unscorable_are_in_neither(make, monkeypatch):
    trainer = make(outcome=outcome, exploration=effort, gae_lambda=1.0, kl_coef=0.0, no_answer_penalty=0.3)
    has_answer = [True, True, True, False]
    describe = "rltoolkit.rlsp.trainer.describe"
    facts = [type("Fact", (), {"has_answer": a, "attempts": 0, "text": "", "verdict": None})() for a in has_answer]
    monkeypatch.setattr(describe, lambda *_, **__: facts)
    rollout = rollout_of(trainer, 4)
    # gamma = lambda = 1: the return of every counted token is the score of its stream
    first = rollout["returns"][:, 0]
    expected = [[0.8, 0.2 * 0.5], [0.0, 0.0], [0.0, 0.0], [0.8 - 0.3, 0.0]]
    torch.testing.assert_close(first, torch.tensor(expected))
    assert rollout["loss_mask"].sum(1).bool().tolist() == [True, False, False, True]
    assert rollout["advantages"][1:3].abs().sum() == 0
    assert rollout["old_values"].shape == rollout["returns"].shape == (*rollout["loss_mask"].shape, 2)
    assert trainer._metrics["train"]["reward/unscorable"] == [0.5]
    assert trainer._metrics["train"]["advantage/outcome_rate_smoothed"] == [pytest.approx(2 / 3)]  # judged: three


def test_policy_and_both_heads_learn_and_the_streams_are_logged(make):
    trainer = make()
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    head = before["critic.head.linear.weight"]
    assert head.shape[0] == 2
    assert (after["critic.head.linear.weight"] != head).any(dim=1).all()
    for name in (
        "value/explained_variance", "value/explained_variance_correctness", "value/explained_variance_exploration",
        "advantage/exploration_weight", "advantage/outcome_rate_smoothed", "advantage/stream_correlation",
        "advantage/std_correctness", "advantage/std_exploration", "reward/outcome", "reward/exploration",
    ):  # fmt: skip
        logged = history(trainer, name)
        assert len(logged) == 2, name  # two rollouts
        assert all(math.isfinite(value) for value in logged), name


@pytest.mark.parametrize("kind", ["shared", "lora"])
def test_every_kind_of_critic_values_both_streams(make, kind):
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"]) if kind == "lora" else None
    trainer = make(critic=kind, peft_config=adapter, exploration_control="floor", outcome_floor=0.1)
    assert rollout_of(trainer, 4)["old_values"].size(-1) == 2
    trainer.train()
    for stream in ("correctness", "exploration"):
        assert all(math.isfinite(value) for value in history(trainer, f"value/explained_variance_{stream}"))


def test_the_weight_reaches_the_policys_advantages(make):
    advantages = []
    for weight in (0.0, 1.0, 2.0):
        torch.manual_seed(0)
        trainer = make(exploration_weight=weight, whiten_advantages=False, model=None, kl_coef=0.0)
        trainer.model.train()
        torch.manual_seed(1)
        advantages.append(rollout_of(trainer, 4)["advantages"])
        del trainer.model.critic, trainer.model.forward  # the policy of the fixture goes to the next trainer
    none, once, twice = advantages
    assert (once != none).any()
    torch.testing.assert_close(twice - once, once - none)


def test_an_evaluation_does_not_move_the_weight(make):
    trainer = make(exploration_control="floor", outcome_floor=0.2)
    trainer.model.eval()
    rollout_of(trainer, 4)
    assert trainer._remembering["exploration_weight"].state_dict()["smoothed_rate"] is None
    assert "advantage/exploration_weight" not in trainer._metrics["eval"]
    trainer.model.train()
    rollout_of(trainer, 4)
    state = trainer._remembering["exploration_weight"].state_dict()
    assert state["weight"] != 1.0
    assert state["smoothed_rate"] is not None


def test_the_weight_waits_for_the_critics_warm_up(make):
    trainer = make(critic_warmup_rollouts=2, max_steps=6, exploration_control="best", outcome_floor=0.5)
    trainer.train()
    weights = history(trainer, "advantage/exploration_weight")
    assert weights[:2] == [1.0, 1.0]
    assert weights[2] > 1.0


@pytest.mark.parametrize(("steps", "weights"), [(8, [1.0, 0.7, 0.4, 0.1]), (7, [1.0, 0.7, 0.4, 0.1]), (2, [1.0])])
def test_the_schedule_ends_with_the_last_rollout(make, steps, weights):
    trainer = make(exploration_control="linear", exploration_weight=1.0, exploration_weight_end=0.1, max_steps=steps)
    trainer.train()
    assert history(trainer, "advantage/exploration_weight") == pytest.approx(weights)


def test_a_floor_for_what_is_no_rate_ends_the_training_with_a_name(make):
    def logits(completions, **_):
        return [2.5] * len(completions)

    with pytest.raises(VerifierError, match=r"outcome reward logits gave 8 of 8 responses .* first 2\.5"):
        make(outcome=logits, exploration_control="floor", outcome_floor=0.5).train()


def test_a_resumed_run_goes_on_with_its_weight_to_the_bit(make, policy, tmp_path):
    constraint = {"exploration_control": "best", "outcome_floor": 0.7, "exploration_weight_step": 2.0}
    options = {**constraint, "save_strategy": "steps", "save_steps": 4}
    whole = make(max_steps=8, model=copy.deepcopy(policy), **options)
    whole.train()
    again = make(max_steps=8, model=copy.deepcopy(policy), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    name = "advantage/exploration_weight"
    assert history(again, name) == history(whole, name)
    assert len(set(history(whole, name))) == 4
    left, right = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    state = "exploration_weight"
    assert again._remembering[state].state_dict() == whole._remembering[state].state_dict()


def test_the_single_advantage_remembers_nothing_of_it(make):
    trainer = make(advantage="single", max_steps=2)
    assert "exploration_weight" not in trainer._remembering
    trainer.train()
    assert not [key for entry in trainer.state.log_history for key in entry if key.startswith("advantage/")]


def test_without_an_exploration_reward_it_is_refused(make):
    with pytest.raises(ModelError, match="advantage is 'decoupled' without an exploration reward"):
        make(exploration=None)


class ShortIsRight:
    """A verifier against which exploration by length works with all its might."""

    def check(self, response, reference):
        return Verdict.correct(response) if len(response) <= 4 else Verdict.wrong(response)


@pytest.mark.slow
def test_the_constraint_brings_back_what_exploration_alone_destroys(make, policy):
    """Both start from a weight at which only exploration counts. Without a floor the outcome stays lost."""
    options = {
        "outcome": as_reward_func(ShortIsRight(), pool=False), "per_device_train_batch_size": 16, "max_steps": 100,
        "alpha": 0.5, "kl_coef": 0.0, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "exploration_weight": 5.0,
    }  # fmt: skip
    bounds = {"exploration_weight_min": 0.2, "exploration_weight_max": 5.0, "exploration_weight_step": 1.0}
    floor = {"exploration_control": "floor", "outcome_floor": 0.5, "outcome_rate_decay": 0.5, **bounds}
    alone = make(model=copy.deepcopy(policy), **options)
    alone.train()
    held = make(model=copy.deepcopy(policy), **options, **floor)
    held.train()
    assert max(history(alone, "reward/outcome")[20:]) < 0.3
    rates, weights = history(held, "advantage/outcome_rate_smoothed"), history(held, "advantage/exploration_weight")
    assert max(rates[20:]) > 0.6
    assert min(weights) == 0.2
    risen = [after > before for before, after in itertools.pairwise(weights)]
    above = [rate > 0.5 for rate in rates[1:]]
    assert any(risen)
    assert all(is_above for is_above, has_risen in zip(above, risen, strict=True) if has_risen)

"""RLSP on two processes (DDP over gloo): one policy, one critic, the same on both."""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture
def run(two_processes, tmp_path):
    """Train on both, and give what each ended with."""
    return lambda warmup, **options: two_processes(SCRIPT, tmp_path, str(warmup), json.dumps(options))


@pytest.mark.slow
def test_both_processes_end_with_the_same_policy_and_critic(run):
    first, second = run(warmup=0)
    assert (first["processes"], first["kind"]) == (2, "MULTI_CPU")  # several ways to launch fall back to one, silently
    assert first["rollout"] == 16
    assert first["policy"] == second["policy"] != first["start"]
    assert first["critic"] == second["critic"]
    assert first["losses"] == second["losses"]


@pytest.mark.slow
def test_critic_warm_up_leaves_the_policy_bit_identical_under_ddp(run):
    first, second = run(warmup=2)
    assert first["policy"] == second["policy"] == first["start"]
    assert first["critic"] == second["critic"]


@pytest.mark.slow
def test_decoupled_streams_and_their_weight_are_one_under_ddp(run):
    constraint = {"exploration_control": "best", "outcome_floor": 0.7, "exploration_weight_step": 2.0}
    first, second = run(warmup=0, advantage="decoupled", outcome_rate_decay=0.0, **constraint)
    assert first["policy"] == second["policy"] != first["start"]
    assert first["critic"] == second["critic"]
    assert first["remembered"] == second["remembered"]
    assert first["remembered"]["exploration_weight"]["weight"] > 1.0
    assert len(first["rollouts"]) == 2
    for rollout in first["rollouts"]:  # of the responses of both processes: what TRL gathers by its own way
        rate = rollout["advantage/outcome_rate_smoothed"]
        assert rate == pytest.approx(rollout["rewards/lengths_reward/mean"], abs=1e-6)
        assert rollout["reward/outcome"] == pytest.approx(rate, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "checkpointing"), [("shared", False), ("lora", False), ("lora", True)])
def test_critics_on_the_policys_weights_are_one_under_ddp(run, kind, checkpointing):
    first, second = run(warmup=1, critic=kind, gradient_checkpointing=checkpointing)
    assert first["policy"] == second["policy"] != first["start"]
    assert first["critic"] == second["critic"]
    assert first["losses"] == second["losses"]
    assert first["frozen"] == second["frozen"] == (first["start"] if kind == "lora" else [])

"""RLSP on two processes (DDP over gloo): one policy, one critic, the same on both."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(folder, warmup, **options):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
        str(SCRIPT), str(folder), str(warmup), json.dumps(options),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_both_processes_end_with_the_same_policy_and_critic(tmp_path):
    first, second = run(tmp_path, warmup=0)
    assert (first["processes"], first["kind"]) == (2, "MULTI_CPU")  # several ways to launch fall back to one, silently
    assert first["rollout"] == 16
    assert first["policy"] == second["policy"] != first["start"]
    assert first["critic"] == second["critic"]
    assert first["losses"] == second["losses"]


@pytest.mark.slow
def test_critic_warm_up_leaves_the_policy_bit_identical_under_ddp(tmp_path):
    first, second = run(tmp_path, warmup=2)
    assert first["policy"] == second["policy"] == first["start"]
    assert first["critic"] == second["critic"]


@pytest.mark.slow
def test_decoupled_streams_and_their_weight_are_one_under_ddp(tmp_path):
    constraint = {"exploration_control": "best", "outcome_floor": 0.7, "exploration_weight_step": 2.0}
    first, second = run(tmp_path, warmup=0, advantage="decoupled", outcome_rate_decay=0.0, **constraint)
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
def test_critics_on_the_policys_weights_are_one_under_ddp(tmp_path, kind, checkpointing):
    first, second = run(tmp_path, warmup=1, critic=kind, gradient_checkpointing=checkpointing)
    assert first["policy"] == second["policy"] != first["start"]
    assert first["critic"] == second["critic"]
    assert first["losses"] == second["losses"]
    assert first["frozen"] == second["frozen"] == (first["start"] if kind == "lora" else [])

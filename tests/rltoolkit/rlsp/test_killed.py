"""A run that is killed (-9), and killed again, ends like one that was left alone: weights, optimiser, log, state."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).parents[3]
ALL_STOP = -1  # in the place of a process that dies: see killed.py
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(folder, *, die_after=0, mortal=0, processes=1):
    """Run to the end or to death; the exit code and what each process ended with."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable]
    if processes > 1:
        port = str(free_port())
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", port]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    command += [str(SCRIPT), str(folder), str(die_after), str(mortal)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if not die_after or mortal == ALL_STOP:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]
    assert not (folder / "rank0.json").exists(), "it should have died"
    assert done.returncode == -signal.SIGKILL or (processes > 1 and "SIGKILL" in done.stderr), done.stderr[-4000:]
    return []


def assert_same(left_alone, killed):
    for one, two in zip(left_alone, killed, strict=True):
        for part in ("weights", "optimizer", "remembered", "log", "random"):
            assert one[part] == two[part], part


def test_killed_inside_a_rollout_and_in_a_later_epoch(tmp_path):
    """Curriculum, two streams, a shared critic, two PPO epochs, accumulated gradients; checkpoints at even steps."""
    left_alone = run(tmp_path / "alone")
    for step in (3, 9):  # inside the second rollout; in the third epoch
        run(tmp_path / "killed", die_after=step)
    killed = run(tmp_path / "killed")
    assert killed[0]["began"] == 8
    assert left_alone[0]["remembered"]["prompt_curriculum"]["skipped"]  # else the test would not see that part
    assert_same(left_alone, killed)


def test_two_processes_stop_inside_a_rollout_and_one_is_killed_later(tmp_path):
    """At the stop each has responses of its own still to learn from; the kill comes after both have gone on."""
    left_alone = run(tmp_path / "alone", processes=2)
    folder = tmp_path / "killed"
    run(folder, die_after=3, mortal=ALL_STOP, processes=2)
    states = [folder / "run" / "checkpoint-3" / f"in_flight_{rank}.pt" for rank in (0, 1)]
    rollouts = [torch.load(state, weights_only=True)["rollout"] for state in states]
    responses = [[part["completion_ids"].tolist() for part in rollout] for rollout in rollouts]
    assert responses[0] != responses[1]
    (folder / "rank0.json").unlink()
    run(folder, die_after=7, mortal=1, processes=2)
    killed = run(folder, processes=2)
    assert [report["began"] for report in killed] == [6, 6]
    assert killed[0]["processes"] == 2
    assert killed[0]["weights"] == killed[1]["weights"]
    assert killed[0]["remembered"] == killed[1]["remembered"]
    assert left_alone[0]["random"] != left_alone[1]["random"]  # each process draws its own responses
    assert_same(left_alone, killed)

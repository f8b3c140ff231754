"""A reward function on two processes (DDP over gloo): outcomes are logged as shares of the whole rollout."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("reward_two_processes.py")
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.slow
def test_outcomes_of_both_processes_are_logged_together(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
        str(SCRIPT), str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == 2
    assert first["policy"] == second["policy"]
    assert first["logged"] == second["logged"]
    # one process could judge nothing, the other everything
    assert (first["counts"]["bad_reference"], second["counts"]["bad_reference"]) == (12, 0)
    assert sum(second["counts"].values()) == 12
    assert second["counts"]["correct"] > 0
    for outcome, shares in first["logged"].items():
        assert len(shares) == 3
        assert sum(shares) / 3 == pytest.approx((first["counts"][outcome] + second["counts"][outcome]) / 24)

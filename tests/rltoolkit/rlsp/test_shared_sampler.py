"""RLSP on two processes with one shared sampler: the main process syncs it, and its failure ends both."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("shared_sampler.py")
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def run(folder, fails_at):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder), str(fails_at)],
        env=environment, capture_output=True, text=True, timeout=230, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_the_main_process_syncs_and_differences_are_of_all_processes(tmp_path):
    main, other = run(tmp_path, fails_at=-1)
    assert (main["processes"], main["error"], other["error"]) == (2, None, None)
    assert main["calls"] == ["sync 0", "sync 2"]
    assert other["calls"] == ["follow 0", "follow 2"]
    # the log-probs are 0.01 off in the main process and 0.03 in the other: a wrong sync would add far more
    for report in (main, other):
        assert all(0.012 < mean < 0.028 for mean in report["mean"])
        assert report["max"] == pytest.approx([0.03] * len(report["max"]), abs=1e-4)
    assert main["mean"] == other["mean"]


def test_a_failing_sync_ends_both_processes_with_the_same_error(tmp_path):
    main, other = run(tmp_path, fails_at=2)
    assert main["error"] == other["error"]
    assert main["error"] == "process 0 could not give version 2 of the policy to its sampler: no server answers"
    assert (main["steps"], other["steps"]) == (2, 2)

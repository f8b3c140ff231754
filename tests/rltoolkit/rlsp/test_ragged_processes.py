"""Ranks that divide their minibatches differently wait for nobody, and learn what whole minibatches teach."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ragged_processes.py")
ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_parts_that_differ_between_ranks_make_the_same_update(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
        str(SCRIPT), str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for kind in ("separate", "shared"):
        parts, whole = first[f"{kind} parts"], first[f"{kind} whole"]
        assert parts["processes"] == 2
        assert parts["parts"] != second[f"{kind} parts"]["parts"]  # or nothing is shown
        assert set(whole["parts"]) == {1}
        assert parts["weights"] == second[f"{kind} parts"]["weights"]
        assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-3, abs=1e-5)
        for of_critic in (False, True):  # by so much that half of it would show
            assert max(most for name, most in parts["moved"].items() if ("critic." in name) is of_critic) > 1e-4
        for name, weights in parts["weights"].items():
            expected = torch.tensor(whole["weights"][name])
            torch.testing.assert_close(torch.tensor(weights), expected, rtol=1e-6, atol=1e-7)

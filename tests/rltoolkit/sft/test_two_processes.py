"""A stage on two processes: one of them writes, and a run that died ends with the same weights."""

import subprocess
import sys
from pathlib import Path

import pytest

from rltoolkit.run.folder import RunFolder
from rltoolkit.run.metrics import read_metrics

SCRIPT = Path(__file__).with_name("two_processes.py")
NEVER = "-1"


def launch(folder: Path, dies_at: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run([*command, str(SCRIPT), str(folder), dies_at], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_resume_exactly(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    done = launch(straight, NEVER)
    assert done.returncode == 0, done.stderr[-3000:]
    assert launch(broken, "3").returncode != 0
    assert not (broken / "model").exists()
    assert {path.name for path in (broken / "checkpoints" / "sft").glob("checkpoint-*")} == {"checkpoint-2"}
    done = launch(broken, NEVER)
    assert done.returncode == 0, done.stderr[-3000:]

    run = RunFolder.open(broken, {"method": "sft"}, "abc")
    assert run.result("sft") == {"steps": 5, "processes": 2}
    assert len(run.manifest()["starts"]) == 3  # died, continued, opened here
    one, two = ((folder / "model" / "model.safetensors").read_bytes() for folder in (straight, broken))
    assert one == two
    logged = [
        [(r["step"], r.get("loss")) for r in read_metrics(folder / "metrics.jsonl")] for folder in (straight, broken)
    ]
    assert logged[0] == logged[1]
    assert [step for step, loss in logged[0] if loss is not None] == [1, 2, 3, 4, 5]

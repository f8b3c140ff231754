"""benchmarks/rlsp_memory.py: what is compared with what, and that the script runs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rlsp_memory.py"


@pytest.fixture(scope="module")
def script():
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("rlsp_memory_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_each_case_is_compared_with_grpo_on_the_same_kind_of_policy(script):
    peaks = {case: [8.0, 2.0, 4.0] if case.lora else [10.0] for case in script.CASES}
    peaks[script.Case(script.GRPO, lora=True)] = [1.0, 2.0, 3.0]
    rows = script.summary({case: [{"peak_gib": peak} for peak in found] for case, found in peaks.items()})
    assert {(row["trainer"], row["lora"]): row["over_grpo"] for row in rows} == {
        ("GRPO", False): 1.0, ("separate", False): 1.0, ("shared", False): 1.0,
        ("GRPO", True): 1.0, ("separate", True): 2.0, ("lora", True): 2.0, ("shared", True): 2.0,
    }  # fmt: skip


@pytest.mark.slow
def test_the_script_measures_every_case(script, tmp_path):
    command = [sys.executable, str(SCRIPT), "--tiny", "--repetitions", "1", "--out", str(tmp_path / "result.json")]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    report = json.loads((tmp_path / "result.json").read_text())
    assert len(report["cases"]) == len(script.CASES) == 7
    assert all(row["trained_parameters"] > 0 for row in report["cases"])

"""benchmarks/rlsp_vs_grpo.py: both trainers get responses of the same ragged lengths, and every number arrives."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rlsp_vs_grpo.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("rlsp_vs_grpo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_rows_end_where_they_are_told_to(benchmark):
    lengths, end = [1, 3, 2], benchmark.END
    force = benchmark.ForcedLengths(lengths)
    ends = []
    for _ in range(3):
        drawn = force(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 8)).softmax(-1)[:, end]
        assert set(drawn.tolist()) <= {0.0, 1.0}
        ends.append(drawn.bool().tolist())
    assert [next(step + 1 for step in range(3) if ends[step][row]) for row in range(3)] == lengths


def test_lengths_are_ragged_and_drawn_by_the_call_alone(benchmark):
    size = benchmark.SIZES["4m"]
    first = benchmark.response_lengths(size, 2000, 0)
    assert first == benchmark.response_lengths(size, 2000, 0) != benchmark.response_lengths(size, 2000, 1)
    assert max(first) == size.new_tokens
    ordered = sorted(first)
    assert ordered[1900] / ordered[100] == pytest.approx(benchmark.SPREAD, rel=0.25)
    assert ordered[1000] == pytest.approx(size.median, rel=0.1)


@pytest.mark.slow
def test_a_turn_of_the_smallest_size(benchmark, tmp_path):
    out = tmp_path / "result.json"
    command = [
        sys.executable,
        str(SCRIPT),
        "--size",
        "tiny",
        "--repetitions",
        "1",
        "--rollouts",
        "1",
        "--out",
        str(out),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(out.read_text())
    turn = record["turns"][0]
    assert set(turn) == set(benchmark.KINDS)
    assert len({figures["tokens"] for figures in turn.values()}) == 1
    assert all(figures["finite"] and figures["peak_bytes"] > 0 for figures in turn.values())
    ratios = record["ratio_to_grpo"]
    assert {kind: row["target_total"] for kind, row in ratios.items()} == benchmark.TARGETS
    positions = {kind: figures["trunk_positions_per_token"] for kind, figures in turn.items()}
    assert positions["shared"]["update/policy"] < positions["grpo"]["update/policy"]
    assert positions["shared"]["rollout/policy"] < positions["grpo"]["rollout/policy"]
    assert "update/critic" in positions["separate"]
    assert "update/critic" not in positions["shared"]

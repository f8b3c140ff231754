"""benchmarks/rlsp_vs_grpo.py: both trainers get responses of the same ragged lengths, and every number arrives."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def test_responses_of_other_lengths_than_the_forced_ones_are_an_error(benchmark):
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert benchmark.sampled_tokens(mask, [2, 3]) == 5
    for forced in ([3, 2], [2, 2], [2]):
        with pytest.raises(RuntimeError, match="lengths \\[2, 3\\]"):
            benchmark.sampled_tokens(mask, forced)


def trained(losses, norms, weight):
    """What the check reads of a trainer."""
    history = [{"loss": loss} for loss in losses] + [{"grad_norm": norm} for norm in norms]
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, weight)
    return SimpleNamespace(state=SimpleNamespace(log_history=history), model=model)


@pytest.mark.parametrize(
    ("losses", "norms", "weight", "problem"),
    [
        ([0.5], [1.0], 1.0, None),
        ([], [1.0], 1.0, "no loss"),
        ([0.5, float("nan")], [1.0], 1.0, "loss is not finite"),
        ([0.5], [float("inf")], 1.0, "grad_norm is not finite"),
        ([0.5], [1.0], float("nan"), "weights are not finite: weight"),
    ],
)
def test_numbers_that_are_not_finite_are_found(benchmark, losses, norms, weight, problem):
    found = benchmark.what_is_not_finite(trained(losses, norms, weight))
    assert found is None if problem is None else problem in found


def test_a_training_that_breaks_gives_no_times(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "KL", float("nan"))  # in every loss
    with pytest.raises(SystemExit, match="grpo: the logged loss is not finite"):
        benchmark.measure("grpo", benchmark.SIZES["tiny"], 0)  # a second rollout could not sample


def test_every_kind_is_once_at_every_place(benchmark):
    orders = [benchmark.order_of(turn) for turn in range(len(benchmark.KINDS))]
    for place in range(len(benchmark.KINDS)):
        assert {order[place] for order in orders} == set(benchmark.KINDS)


def test_a_model_for_a_gpu_is_refused_without(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for size in ("0.5b", "1.5b"):
        with pytest.raises(SystemExit):
            benchmark.parse(["--size", size])
        assert "sees none" in capsys.readouterr().err


def test_what_is_interrupted_keeps_its_whole_turns(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured, out = [], tmp_path / "result.json"
    phases = ("total", "generation", "update", "rest", "processor")

    def figures(kind, _options):
        measured.append(kind)
        if len(measured) == 12:  # in the third turn
            raise KeyboardInterrupt
        share = len(measured) if kind == "shared" else 1.0
        return {
            "tokens": 100,
            "microseconds_per_token": dict.fromkeys(phases, share),
            "backbone_positions_per_token": {"update/policy": 1.5},
            "peak_bytes": 1000,
            "parameters": 10,
        }

    monkeypatch.setattr(benchmark, "in_a_process", figures)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(["--out", str(out)])
    record = json.loads(out.read_text())
    assert record["repetitions"] == {"asked": 5, "measured": 2}
    orders = [turn["order"] for turn in record["turns"]]
    assert orders == [benchmark.order_of(0), benchmark.order_of(1)] == [measured[:5], measured[5:10]]
    times = record["ratio_to_grpo"]["shared"]["total"]
    assert times == {"median": 4.0, "range": [2.0, 6.0], "values": [2.0, 6.0]}
    assert set(record["kinds"]) == set(benchmark.KINDS)
    assert record["kinds"]["shared"]["microseconds_per_token"]["update"]["values"] == [2.0, 6.0]
    assert record["processor"]
    assert record["versions"]["packages"]["trl"]
    assert "--size 4m --repetitions 5 --rollouts 1" in record["command"]


@pytest.mark.slow
def test_a_turn_of_the_smallest_size(benchmark, tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--size", "tiny", "--repetitions", "1", "--out", str(out)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(out.read_text())
    kinds = record["kinds"]
    assert record["repetitions"] == {"asked": 1, "measured": 1}
    assert set(kinds) == set(benchmark.KINDS)
    for figures in kinds.values():
        times = {name: found["median"] for name, found in figures["microseconds_per_token"].items()}
        assert times["total"] == pytest.approx(times["generation"] + times["update"] + times["rest"])
        assert 0 < figures["peak_bytes"]["median"] < 20e6  # of 0.1 MB of weights: no libraries
    ratios = record["ratio_to_grpo"]
    assert {kind: row["target_total"] for kind, row in ratios.items()} == benchmark.TARGETS
    positions = {
        kind: {name: found["median"] for name, found in figures["backbone_positions_per_token"].items()}
        for kind, figures in kinds.items()
    }
    assert positions["shared"]["update/policy"] < positions["grpo"]["update/policy"]
    assert positions["shared"]["rollout/policy"] < positions["grpo"]["rollout/policy"]
    assert "update/critic" in positions["separate"]
    assert "update/critic" not in positions["shared"]

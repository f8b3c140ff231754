"""Batch arithmetic against TRL's own, and what does not divide."""

from pathlib import Path

import pytest

from rltoolkit.check.batches import Batches, sft_lines, too_few
from rltoolkit.check.configs import rlsp_config
from rltoolkit.check.machine import Machine
from rltoolkit.check.plan import batches_of
from rltoolkit.recipe import load_recipe

PAPER = Batches(
    per_device=8, processes=16, accumulation=1, steps_per_generation=4, num_generations=1, epochs_per_rollout=1
)
TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown"}}
rewards: {outcome: {verifier: countdown}}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 4}
"""


def test_the_papers_batches() -> None:
    assert (PAPER.rollout, PAPER.update, PAPER.updates_per_rollout) == (512, 128, 4)
    assert PAPER.findings() == []
    assert PAPER.lines() == [
        "rollout: 8 per device x 16 process(es) x 4 steps_per_generation = 512 responses, 512 prompts x 1",
        "update:  8 per device x 16 process(es) x 1 accumulation = 128 responses",
        "updates per rollout: 512 / 128 x 1 epoch(s) = 4",
    ]


def test_the_length_of_the_run() -> None:
    # 877 prompts hold one rollout of 512; the released code drops the rest
    lines = PAPER.schedule(877, max_steps=-1, epochs=1000)
    assert lines[0] == "one pass over 877 prompts: 1 rollout(s), 365 prompt(s) left out"
    assert lines[1] == "the run: 4000 update(s) in 1000 rollout(s), from num_train_epochs 1000"
    assert PAPER.schedule(877, max_steps=6, epochs=3)[1] == "the run: 6 update(s) in 2 rollout(s), from max_steps"


def test_groups_and_epochs() -> None:
    groups = Batches(4, 1, 2, 4, num_generations=8, epochs_per_rollout=2)
    assert (groups.rollout, groups.update, groups.updates_per_rollout) == (16, 8, 4)
    assert "16 responses, 2 prompts x 8" in groups.lines()[0]


@pytest.mark.parametrize(
    ("batches", "key"),
    [
        (Batches(4, 1, 1, 4, num_generations=3, epochs_per_rollout=1), "train.num_generations"),
        (Batches(4, 1, 3, 4, num_generations=1, epochs_per_rollout=1), "train.gradient_accumulation_steps"),
    ],
)
def test_what_does_not_divide(batches: Batches, key: str) -> None:
    (finding,) = batches.findings()
    assert finding.key == key
    assert "does not divide" in finding.found


def test_too_few_prompts() -> None:
    assert too_few(512, PAPER) is None
    finding = too_few(511, PAPER)
    assert finding is not None
    assert finding.found == "has 511 prompts, and one rollout takes 512"


def test_sft_arithmetic() -> None:
    assert sft_lines(4, 2, 8) == ["update: 4 per device x 2 process(es) x 8 accumulation = 64 rows"]


@pytest.mark.parametrize(
    ("overrides", "rollout"),
    [
        ([], 4),
        (["train.gradient_accumulation_steps=2"], 8),
        (["train.steps_per_generation=3"], 12),
        (["train.generation_batch_size=16"], 16),
    ],
)
def test_the_factors_are_those_that_trl_works_out(tmp_path: Path, overrides: list[str], rollout: int) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    loaded = load_recipe(path, overrides)
    config = rlsp_config(loaded, Machine(0, 8.0, False))
    assert config.generation_batch_size == rollout  # TRL, for one process
    assert batches_of(loaded, config).rollout == rollout


@pytest.mark.parametrize(("given", "rollout"), [("steps_per_generation=4", 32), ("generation_batch_size=16", 16)])
def test_more_processes_than_here(tmp_path: Path, given: str, rollout: int) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    loaded = load_recipe(path, [f"train.{given}", "launch.processes=2"])
    assert batches_of(loaded, rlsp_config(loaded, Machine(0, 8.0, False))).rollout == rollout

"""Samples survive the way into Parquet and back, also when optional values are missing everywhere."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from rltoolkit.run.samples import SampleRow, read_samples, write_samples

FULL = SampleRow(
    step=20,
    prompt="3,5,2>16\n",
    completion="(5+3)*2=8*2=16 ok",
    prompt_ids=(5, 6, 7),
    completion_ids=[8, 9, 1],
    outcome_reward=1.0,
    exploration_reward=0.25,
    total_reward=0.85,
    verdict="correct",
    extracted="(5+3)*2",
    advantage_mean=0.1,
    advantage_std=0.9,
    value_first=0.4,
    truncated=False,
)
BARE = dataclasses.replace(
    FULL,
    step=100,
    outcome_reward=None,
    exploration_reward=None,
    total_reward=None,
    extracted=None,
    advantage_mean=None,
    advantage_std=None,
    value_first=None,
    verdict="timeout",
    truncated=True,
)


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples", 100, 0, [BARE])
    write_samples(tmp_path / "samples", 20, 1, [FULL])
    write_samples(tmp_path / "samples", 20, 0, [FULL, FULL])

    rows = [SampleRow(**row) for row in read_samples(tmp_path / "samples").to_pylist()]

    listed = dataclasses.replace(FULL, prompt_ids=[5, 6, 7])
    assert rows == [listed, listed, listed, dataclasses.replace(BARE, prompt_ids=[5, 6, 7])]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (1_000_000, 999_999, 3):
        write_samples(tmp_path, step, 0, [dataclasses.replace(FULL, step=step)])
    assert read_samples(tmp_path)["step"].to_pylist() == [3, 999_999, 1_000_000]


def test_a_repeated_step_replaces_its_file(tmp_path: Path) -> None:
    first = write_samples(tmp_path, 20, 0, [FULL, FULL])
    second = write_samples(tmp_path, 20, 0, [BARE])
    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == ["step-000020-rank-0.parquet"]
    assert read_samples(tmp_path).num_rows == 1


def test_pandas_reads_a_file(tmp_path: Path) -> None:
    frame = pd.read_parquet(write_samples(tmp_path, 20, 0, [FULL]))
    assert frame.loc[0, "verdict"] == "correct"
    assert list(frame.loc[0, "completion_ids"]) == [8, 9, 1]


def test_no_samples_are_an_empty_table_with_all_columns(tmp_path: Path) -> None:
    table = read_samples(tmp_path)
    assert table.num_rows == 0
    assert table.column_names == [field.name for field in dataclasses.fields(SampleRow)]


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    broken = dataclasses.replace(FULL, outcome_reward="much")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="much"):
        write_samples(tmp_path, 20, 0, [broken])
    assert list(tmp_path.iterdir()) == []

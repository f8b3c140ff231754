"""metrics.jsonl stays readable whatever happens to the process that writes it."""

import json
import math
from pathlib import Path

import pytest

from rltoolkit.run.metrics import MetricsWriter, read_metrics


def test_a_written_line_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write("evaluate", 3, {"accuracy": 0.25, "task": "countdown", "questions": 500})

    (record,) = read_metrics(path)

    assert record.pop("time") > 1e9
    assert record == {"phase": "evaluate", "step": 3, "accuracy": 0.25, "task": "countdown", "questions": 500}


def test_what_is_no_json_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsWriter(path).write("train", 1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": None, "e": 0.0})
    (line,) = path.read_text().splitlines()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert [record[key] for key in "abcde"] == [None, None, None, None, 0.0]


def test_a_torn_last_line_is_left_out_when_reading_and_removed_before_writing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsWriter(path).write("train", 1, {"loss": 2.0})
    with path.open("a") as file:
        file.write('{"phase": "train", "st')
    assert [record["step"] for record in read_metrics(path)] == [1]

    MetricsWriter(path).write("train", 2, {"loss": 1.0})

    assert [record["loss"] for record in read_metrics(path)] == [2.0, 1.0]


@pytest.mark.parametrize("line", ["{", "[1]", '{"step": 1}'])
def test_a_bad_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"phase": "train", "step": 1}\n'
    path.write_text(f"{good}{line}\n{good}")
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is"):
        read_metrics(path)


def test_no_file_means_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    (tmp_path / "empty").write_text("")
    assert read_metrics(tmp_path / "empty") == []


def test_drop_after_forgets_only_the_later_steps_of_the_named_phases(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    for phase, step in [("sft", 9), ("train", 2), ("evaluate", 2), ("train", 3), ("evaluate", 4)]:
        writer.write(phase, step, {})

    writer.drop_after(2, ["train"])
    assert [(r["phase"], r["step"]) for r in read_metrics(path)] == [
        ("sft", 9),
        ("train", 2),
        ("evaluate", 2),
        ("evaluate", 4),
    ]

    writer.drop_after(2, ["train", "evaluate"])
    assert [(r["phase"], r["step"]) for r in read_metrics(path)] == [
        ("sft", 9),
        ("train", 2),
        ("evaluate", 2),
    ]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl", is_main=False)
    writer.write("train", 1, {"loss": 1.0})
    writer.drop_after(0, ["train"])
    assert list(tmp_path.iterdir()) == []

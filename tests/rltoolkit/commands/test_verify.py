"""Judging a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward_models import CountdownVerifier, MathVerifier, VerifierError
from rltoolkit.commands.verify import VerifyRequest, make_verifier, verify_file
from rltoolkit.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"completion": "so \\boxed{42}", "gold": "42", "label": True},
    {"completion": "so \\boxed{41}", "gold": "42", "label": False},
    {"completion": "42", "gold": "42", "label": True},
    {"completion": "so \\boxed{7}", "gold": 7, "label": False},
    {"completion": "so \\boxed{7}", "gold": "", "label": 1},
    {"completion": [{"role": "assistant", "content": "\\boxed{1}"}], "gold": "1", "label": 1},
]


@pytest.fixture
def write(tmp_path: Path):
    def write_rows(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write_rows


def request(path: Path, **changes: Any) -> VerifyRequest:
    settings = {"verifier": "math", "response": "completion", "reference": "gold", "label": "label"} | changes
    return VerifyRequest(path, **settings)


def test_counts_and_agreement(write) -> None:
    report = verify_file(request(write(*ROWS)), workers=1)
    expected = {"correct": 3, "wrong": 1, "no_answer": 1, "bad_reference": 1, "timeout": 0, "error": 0}
    assert report.outcomes == expected
    assert (report.rows, report.agree, report.false_positive, report.false_negative) == (6, 3, 1, 2)
    assert report.seconds > 0
    assert "agrees with the label in 3 of 6 rows (50.00 %): 1 false positive, 2 false negative" in report.lines()
    assert "1 row(s) could not be scored" in report.lines()


def test_without_labels_nothing_is_compared(write) -> None:
    report = verify_file(request(write(*ROWS), label=None), workers=1)
    assert (report.agree, report.false_positive, report.false_negative) == (None, None, None)


def test_the_json_has_the_agreed_keys(write, tmp_path: Path) -> None:
    report = verify_file(request(write(*ROWS)), workers=1)
    report.write(tmp_path / "out.json")
    keys = ["rows", "outcomes", "agree", "false_positive", "false_negative", "seconds"]
    assert list(json.loads((tmp_path / "out.json").read_text())) == keys
    with pytest.raises(DataError, match="cannot be written"):
        report.write(tmp_path / "none" / "out.json")


def test_options_reach_the_verifier(write) -> None:
    report = verify_file(request(write(*ROWS), options=("extraction=lenient",)), workers=1)
    assert report.outcomes["no_answer"] == 0
    assert make_verifier("math", ["thinking_end=null", "box=first"]).thinking_end is None
    assert isinstance(make_verifier("countdown"), CountdownVerifier)
    assert isinstance(make_verifier("reward_models.math_answers:MathVerifier"), MathVerifier)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("maths", [], "did you mean math?"),
        ("no_such_module:Thing", [], "cannot be imported"),
        ("reward_models:Outcome", [], "refuses"),
        ("rltoolkit.errors:DataError", [], "without check"),
        ("math", ["extraction"], "expected option=value"),
        ("math", ["extracion=boxed"], "it takes extraction, thinking_end, box"),
    ],
)
def test_a_verifier_that_cannot_be_made(name: str, options: list[str], says: str) -> None:
    with pytest.raises(DataError) as caught:
        make_verifier(name, options)
    assert says in str(caught.value)


def test_a_value_that_the_verifier_refuses() -> None:
    with pytest.raises(VerifierError, match="extraction"):
        make_verifier("math", ["extraction=everything"])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no rows"),
        (["\n\n"], "has no rows"),
        ([ROWS[0], "{\n"], "line 2 is not JSON"),
        (["3\n"], "line 1 is no object"),
        ([{"completion": "x", "golds": "y", "label": 1}], "did you mean golds?"),
        ([{"completion": 3, "gold": "y", "label": 1}], "completion is int, expected a text"),
        ([{"completion": "x", "gold": "y", "label": "yes"}], "label is 'yes', expected true, false, 0 or 1"),
        ([{"completion": "x", "gold": "y", "label": None}], "label is None"),
    ],
)
def test_a_file_that_cannot_be_judged(write, rows: list[Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        verify_file(request(write(*rows)), workers=1)
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        verify_file(request(tmp_path / "none.jsonl"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="is not UTF-8"):
        verify_file(request(tmp_path / "binary.jsonl"))

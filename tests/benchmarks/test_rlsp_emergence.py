"""What the study of emergence reads from its runs."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = [
    {
        "prompt": "3,5,2>16\n",
        "response": "5+2=7,7+3=10?16 no\n5+3=8,8*2=16?16 ok\n\\boxed{(5+3)*2}",
        "outcome": "correct",
    },
    {"prompt": "3,5,2>16\n", "response": "5+3=8,8*2=16?16 ok\n\\boxed{(5+3)*2}", "outcome": "correct"},
    {"prompt": "3,5,2>16\n", "response": "5+2=7,7+3=10?16 no\n5+2=7,7+3=10?16 no\n\\boxed{5+2+3}", "outcome": "wrong"},
]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("rlsp_emergence", BENCHMARKS / "rlsp_emergence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("rlsp_backends", "rlsp_countdown"):
        sys.modules.pop(name, None)


def test_a_hit_is_the_true_value_not_the_mark(study):
    assert study.hits("5+3=8,8*2=16?16 no", "3,5,2>16\n")
    assert not study.hits("5+2=7,7+3=16?16 ok", "3,5,2>16\n")


def test_solved_after_backtracking_needs_a_miss_first(study):
    facts = study.sample_facts(ROWS)
    assert facts == {
        "attempts": pytest.approx(5 / 3),
        "distinct_attempts": pytest.approx(4 / 3),
        "solved_after_backtracking": pytest.approx(1 / 3),
    }


def test_chance_rises_with_the_attempts_and_is_certain_with_all(study, monkeypatch):
    curve = study.accuracy_by_chance(40)
    assert all(earlier < later for earlier, later in itertools.pairwise(curve))
    monkeypatch.setattr(study, "ALLOWED", 60)
    assert study.accuracy_by_chance(40)[-1] == 1.0


@pytest.mark.parametrize(
    ("written", "expected"),
    [({}, None), ({"hacking_alarm": {"watched": False, "events": []}}, None),
     ({"hacking_alarm": {"watched": True, "events": [1, 2]}}, 2)],
)  # fmt: skip
def test_an_alarm_that_was_not_there_is_no_silence(study, tmp_path, written, expected):
    (tmp_path / "summary.json").write_text(json.dumps(written))
    assert study.alarms(tmp_path) == expected

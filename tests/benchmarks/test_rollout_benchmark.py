"""The arithmetic of benchmarks/rollout.py: turns, ratios, the table."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rollout.py"


@pytest.fixture(scope="module")
def script():
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("rollout_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_side_is_timed_once_in_each_repetition_and_another_begins(script):
    calls = []

    def side(name):
        return lambda seed: calls.append((seed, name)) or 10

    speeds = script.alternate({name: side(name) for name in "abc"}, repetitions=2)
    assert ["".join(name for seed, name in calls if seed == i) for i in range(3)] == ["abc", "bca", "cab"]
    assert {name: len(values) for name, values in speeds.wall.items()} == {"a": 2, "b": 2, "c": 2}  # not the first


def test_ratios_are_of_the_same_repetition(script):
    """A slow minute slows both sides: 1/4, 5/1 and 9/3 have the median 3, while the medians 5 and 3 would give 1.67."""
    assert script.ratio([1.0, 5.0, 9.0], [4.0, 1.0, 3.0]) == {"median": 3.0, "min": 0.25, "max": 5.0}


def test_the_table_has_every_speed_and_no_cpu_ratio_that_was_not_measured(script):
    speeds = {"backend": script.spread([3.0, 1.0, 2.0])}
    case = {
        "tokens_per_second": speeds,
        "ratio_of_tokens_per_second": script.ratio([2.0], [1.0]),
        "ratio_of_tokens_per_cpu_second": None,
    }
    record = {"cases": {"ragged": case}, "backends": {"embedded": {"tokens_per_second": speeds}}}
    head, *rows, ratio = script.table(record)
    assert head.split()[-3:] == ["median", "min", "max"]
    assert [row.split() for row in rows] == [[name, "backend", "2", "1", "3"] for name in ("ragged,", "embedded,")]
    assert ratio == "ragged, backend over the faster generate, wall time: 2.0"

import math

from eval.report import format_estimate, markdown_table
from eval.runner import TaskResult
from eval.stats import Estimate
from rltoolkit.types import SamplingParams

RESULT = TaskResult(
    task="countdown",
    estimate=Estimate(0.4213, 0.378, 0.4646, 500),
    outcomes={"correct": 211, "wrong": 240, "no_answer": 47, "bad_reference": 0, "timeout": 1, "error": 1},
    truncated=0.062,
    mean_tokens=41.27,
    mean_attempts=2.5,
    n_questions=500,
    samples_per_question=1,
    sampling=SamplingParams(temperature=0),
    seed=0,
    seconds=3.0,
)


def test_a_table_says_what_was_asked_and_what_came():
    lines = markdown_table([RESULT, RESULT]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["countdown", "500", "1", "0", "42.1 % [37.8, 46.5]", "9.4 %", "6.2 %", "2", "41.3"]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert {len(row) for row in cells} == {9}


def test_an_estimate_without_interval_says_so():
    assert format_estimate(Estimate(1.0, math.nan, math.nan, 1)) == "100.0 % [one question: no interval]"
    assert format_estimate(Estimate(math.nan, math.nan, math.nan, 0)) == "-"

import math

from eval.metrics import JudgedSample, mean, outcome_counts, scores_by_question, truncated_fraction
from reward_models.verdict import Verdict
from rltoolkit.types import Sample, StopReason


def _judged(question, verdict, stop=StopReason.STOP):
    return JudgedSample(question, 0, Sample((1, 2), (-1.0, -1.0), stop, 0), "", verdict)


JUDGED = [
    _judged(1, Verdict.correct("4")),
    _judged(0, Verdict.wrong("5"), StopReason.LENGTH),
    _judged(0, Verdict.timeout("slow")),
    _judged(2, Verdict.error("died")),
    _judged(0, Verdict.no_answer()),
]


def test_every_outcome_is_counted_also_those_that_did_not_occur():
    assert outcome_counts(JUDGED) == {
        "correct": 1,
        "wrong": 1,
        "no_answer": 1,
        "bad_reference": 0,
        "timeout": 1,
        "error": 1,
    }


def test_what_cannot_be_scored_is_left_out_and_a_question_of_nothing_else_too():
    assert scores_by_question(JUDGED) == [[0.0, 0.0], [1.0]]


def test_rates():
    assert truncated_fraction(JUDGED) == 0.2
    assert mean([1, 2]) == 1.5
    assert math.isnan(mean([]))

"""Rewards that go wrong on one of two processes (DDP over gloo): both hear of it, at once, and end with the same."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bad_rewards_by_two.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def both(two_processes, tmp_path_factory):
    """What the two processes report, case by case."""
    return two_processes(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "raises_on_one",
            "process 0 could not take the scores of the outcome reward: VerifierError: the outcome reward "
            "raises_on_one raised ZeroDivisionError: float division by zero",
        ),
        (
            "too_few_on_one",
            "process 1 could not take the scores of the outcome reward: VerifierError: the outcome reward "
            "too_few_on_one returned 7 scores for 8 responses",
        ),
        (
            "mean_on_one",
            "process 0 could not take the scores of the outcome reward: VerifierError: the outcome reward "
            "mean_on_one returned tensor(",
        ),
        ("no_rate_on_one", "an outcome is 3.0; the prompt curriculum takes outcomes as rates"),
    ],
)
def test_a_failure_of_one_is_raised_on_both(both, case, message):
    errors = [report[case]["error"] for report in both]
    assert errors[0] == errors[1]
    assert errors[0].startswith(message)


def test_responses_of_one_process_without_a_score_are_left_out(both):
    first, second = (report["none_on_one"] for report in both)
    assert first["error"] is None
    assert first["unscorable"] == [0.5]
    assert first["not_finite"] == [0.25]  # half of the half: the others were None
    assert first["skipped"] == [0, 0]
    assert first["after"] == second["after"] != first["before"]


def test_a_rollout_without_a_score_on_both_moves_neither(both):
    first, second = (report["none_at_first"] for report in both)
    assert first["skipped"] == [1, 1, 0]
    assert first["unscorable"] == [1.0, 0.0]
    assert first["after"] == second["after"] != first["before"]


def test_both_know_the_same_visits(both):
    states = [report["curriculum"]["remembered"]["prompt_curriculum"] for report in both]
    assert states[0] == states[1]
    assert len(states[0]["visits"]) == 16  # one rollout of 8 responses on each

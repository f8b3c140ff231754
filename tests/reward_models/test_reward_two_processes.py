"""A reward function on two processes (DDP over gloo): outcomes are logged as shares of the whole rollout."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("reward_two_processes.py")


@pytest.mark.slow
def test_outcomes_of_both_processes_are_logged_together(two_processes, tmp_path: Path) -> None:
    first, second = two_processes(SCRIPT, tmp_path)
    assert first["processes"] == 2
    assert first["policy"] == second["policy"]
    assert first["logged"] == second["logged"]
    # one process could judge nothing, the other everything
    assert (first["counts"]["bad_reference"], second["counts"]["bad_reference"]) == (12, 0)
    assert sum(second["counts"].values()) == 12
    assert second["counts"]["correct"] > 0
    for outcome, shares in first["logged"].items():
        assert len(shares) == 3
        assert sum(shares) / 3 == pytest.approx((first["counts"][outcome] + second["counts"][outcome]) / 24)

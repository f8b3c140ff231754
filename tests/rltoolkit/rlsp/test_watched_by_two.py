"""Counters and alarm on two processes (DDP over gloo): both know the same, of the responses of both."""

from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("watched_by_two.py")


@pytest.fixture(scope="module")
def ranks(two_processes, tmp_path_factory):
    found = two_processes(SCRIPT, tmp_path_factory.mktemp("watched"))
    assert [report["processes"] for report in found] == [2, 2]
    return found


@pytest.mark.slow
def test_metrics_count_the_responses_of_both(ranks):
    first = [row for report in ranks for row in report["samples"] if row["step"] == 0]
    assert len(first) == 32
    (logged,) = [entry for entry in ranks[0]["history"] if entry["step"] == 1 and "attempts" in entry]
    for name in ("attempts", "distinct_attempts", "repetition"):
        assert logged[name] == pytest.approx(sum(row[name] for row in first) / 32, abs=1e-9), name
    assert logged["completions/truncated"] == sum(row["truncated"] for row in first) / 32
    pair = torch.tensor([[len(row["completion_ids"]) for row in first], [row["outcome_reward"] for row in first]])
    assert logged["length_outcome_correlation"] == pytest.approx(torch.corrcoef(pair)[0, 1].item(), abs=1e-5)


@pytest.mark.slow
def test_both_keep_the_same_books(ranks):
    first, second = ranks
    assert first["alarm"] == second["alarm"]
    names = [[sorted(entry) for entry in report["history"]] for report in ranks]
    assert names[0] == names[1]
    assert [m["step"] for m in first["alarm"]["history"]["eval"]] == [-1, 2, 4]
    (held_out,) = [entry for entry in first["history"] if entry["step"] == 2 and "eval_reward/outcome" in entry]
    rate = first["alarm"]["history"]["eval"][1]["rate"]
    assert rate["value"] == pytest.approx(held_out["eval_reward/outcome"])
    assert rate["error"] == pytest.approx((rate["value"] * (1 - rate["value"]) + 1 / 80) / 80)  # 80 questions, not 40


@pytest.mark.slow
def test_one_process_speaks_and_names_samples_of_both(ranks):
    first, second = ranks
    (event,) = first["alarm"]["events"]
    assert len([text for text in first["heard"] if "hacking alarm" in text]) == 1
    assert not [text for text in second["heard"] if "hacking alarm" in text]
    assert event["now"]["step"] == 2
    assert {suspect["rank"] for suspect in event["suspects"]} == {0, 1}
    wrong = [
        r["exploration_reward"]
        for report in ranks
        for r in report["samples"]
        if r["step"] == 0 and r["verdict"] == "wrong"
    ]
    assert [s["paid"] for s in event["suspects"]] == pytest.approx(sorted(wrong, reverse=True)[:5])
    by_rank = [[row for row in report["samples"] if row["step"] == 0] for report in ranks]  # the only rollout so far
    for suspect in event["suspects"]:
        row = by_rank[suspect["rank"]][suspect["row"]]
        assert row["verdict"] == "wrong"
        assert row["exploration_reward"] == pytest.approx(suspect["paid"])

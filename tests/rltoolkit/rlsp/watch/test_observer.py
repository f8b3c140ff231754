"""What a rollout leaves in the log and in the sample files, counted by hand from the samples themselves."""

import copy
import math
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from reward_models.exploration import LengthExploration
from reward_models.repetition import repeated_share
from reward_models.reward_func import as_reward_func
from reward_models.verdict import Verdict
from rltoolkit.rlsp.watch.signs import Backtracking

README = Path(__file__).parents[4] / "recipes" / "rlsp" / "README.md"


class EvenIsRight:
    """A response is right where it has an even number of characters; empty ones cannot be judged."""

    def check(self, response, reference):
        if not response:
            return Verdict.error("empty")
        return Verdict.correct(response) if len(response) % 2 == 0 else Verdict.wrong(response)


def rollout_of(trainer, size):
    rows = [trainer.train_dataset[row] for row in range(size)]
    trainer._generate_and_score_completions(rows)
    return {name: values[-1] for name, values in trainer._metrics["train"].items()}


@pytest.fixture
def seen(make_trainer):
    """The metrics of a rollout of 40 responses, and its samples."""
    samples = []
    trainer = make_trainer(
        outcome=as_reward_func(EvenIsRight(), pool=False),
        exploration=LengthExploration(6),
        sink=lambda _step, _rank, rows: samples.extend(rows),
        max_completion_length=12,
    )
    return rollout_of(trainer, 40), samples


def mean(values):
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known)


def test_the_log_is_the_mean_of_the_samples(seen):
    metrics, samples = seen
    signs = [Backtracking().signs(row.completion) for row in samples]
    expected = {
        "reward/outcome": mean(row.outcome_reward for row in samples),
        "reward/exploration": mean(row.exploration_reward for row in samples),
        "reward/exploration_paid": mean(row.exploration_reward for row in samples),  # every one has an answer
        "reward/exploration_at_cap": mean(row.exploration_reward == 1 for row in samples),
        "reward/unscorable": mean(row.total_reward is None for row in samples),
        "attempts": mean(row.attempts for row in samples),
        "distinct_attempts": mean(row.distinct_attempts for row in samples),
        "repetition": mean(repeated_share(row.completion) for row in samples),
        "backtracking/phrases": mean(sign.phrases for sign in signs),
        "backtracking/after_miss": mean(sign.after_miss for sign in signs),
        "backtracking/responses": mean(sign.backtracked for sign in signs),
        "backtracking/solved": mean(
            None if row.outcome_reward is None else sign.backtracked * row.outcome_reward
            for row, sign in zip(samples, signs, strict=True)
        ),
        "completions/truncated": mean(row.truncated for row in samples),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < metrics["reward/exploration_at_cap"] < 1
    assert 0 < metrics["attempts"] != metrics["reward/outcome"]


def test_length_and_correctness_are_correlated_as_numpy_does(seen):
    metrics, samples = seen
    scored = [row for row in samples if row.outcome_reward is not None]
    pair = torch.tensor([[len(row.completion_ids) for row in scored], [row.outcome_reward for row in scored]])
    assert metrics["length_outcome_correlation"] == pytest.approx(torch.corrcoef(pair)[0, 1].item(), abs=1e-5)


def test_samples_say_what_was_counted(seen):
    _, samples = seen
    for row in samples:
        signs = Backtracking().signs(row.completion)
        assert row.distinct_attempts == signs.distinct_attempts <= row.attempts
        assert row.backtracks == signs.phrases + signs.after_miss
        assert row.repetition == signs.repetition


def test_what_is_undefined_is_absent(make_trainer):
    metrics = rollout_of(make_trainer(outcome=lambda completions, **_: [0.5] * len(completions)), 8)
    absent = {"length_outcome_correlation", "alarm/hacking", "reward/clipped"} | {
        f"reward/exploration{kind}" for kind in ("", "_paid", "_at_cap")
    }
    assert not absent & metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())


def test_where_nothing_can_be_scored_nothing_is_nan(make_trainer):
    trainer = make_trainer(outcome=lambda completions, **_: [None] * len(completions), exploration=LengthExploration(5))
    metrics = rollout_of(trainer, 8)
    assert metrics["reward/unscorable"] == 1.0
    assert not {"reward/outcome", "reward/total", "backtracking/solved", "length_outcome_correlation"} & metrics.keys()
    ours = {name: value for name, value in metrics.items() if not name.startswith("rewards/")}  # those are TRL's
    assert all(math.isfinite(value) for value in ours.values())


def test_numbers_of_groups_do_not_appear(make_trainer):
    """One response a prompt has no spread; TRL would log 100 % of groups without any, and a sum of unweighted parts."""
    trainer = make_trainer(outcome=as_reward_func(EvenIsRight(), pool=False), exploration=LengthExploration(6))
    trainer.train()
    names = {name for entry in trainer.state.log_history for name in entry}
    assert "reward/outcome" in names
    assert not {"reward", "reward_std", "frac_reward_zero_std"} & names


def test_watching_changes_nothing_that_is_learned(make_trainer, policy):
    """With phrases of another language every count differs and no weight does."""
    ends = []
    for backtracking in (None, Backtracking(phrases=["="], misses=["0"])):
        trainer = make_trainer(
            model=copy.deepcopy(policy),
            outcome=as_reward_func(EvenIsRight(), pool=False),
            exploration=LengthExploration(6),
            backtracking=backtracking,
        )
        trainer.train()
        counted = [
            entry["backtracking/phrases"] for entry in trainer.state.log_history if "backtracking/phrases" in entry
        ]
        ends.append((counted, [parameter.detach().clone() for parameter in trainer.policy_parameters()]))
    assert ends[0][0] != ends[1][0]
    assert all(torch.equal(*pair) for pair in zip(ends[0][1], ends[1][1], strict=True))


@pytest.mark.parametrize(("constant", "known"), [(2.0, True), (0.0, False)])
def test_in_paper_mode_exploration_is_the_length_term(make_trainer, constant, known):
    samples = []
    trainer = make_trainer(
        outcome=lambda completions, **_: [1.0] * len(completions),
        paper_compat=True,
        length_constant=constant,
        sink=lambda _step, _rank, rows: samples.extend(rows),
    )
    metrics = rollout_of(trainer, 8)
    if not known:
        assert "reward/exploration_paid" not in metrics
        return
    terms = [max(-10.0, -constant / max(1.0, len(row.completion) / 4)) for row in samples]  # no box: all of it counts
    assert metrics["reward/exploration_paid"] == pytest.approx(mean(terms), abs=1e-5)
    assert metrics["reward/clipped"] == 0.0


def explained_names():
    """The first column of the README's table; `a/b`, `c` in one cell are a/b and a/c, where c itself is not logged."""
    section = README.read_text(encoding="utf-8").partition("## What is logged")[2].partition("\n## ")[0]
    patterns = []
    for cell in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE):
        names = [name.replace("<name>", "*") for name in re.findall("`(.*?)`", cell)]
        patterns += names + [f"{names[0].rpartition('/')[0]}/{name}" for name in names[1:] if "/" in names[0]]
    return patterns


def test_every_name_in_the_log_is_explained_in_the_readme(make_trainer, policy):
    explained = explained_names()
    assert len(explained) > 40
    for options in ({}, {"advantage": "decoupled", "prompt_curriculum": "down_weight"}):
        trainer = make_trainer(
            model=copy.deepcopy(policy),
            outcome=as_reward_func(EvenIsRight(), pool=False),
            exploration=LengthExploration(6),
            **options,
        )
        trainer.train()
        logged = {name for entry in trainer.state.log_history if "train_runtime" not in entry for name in entry}
        unexplained = [name for name in logged - {"step"} if not any(fnmatch(name, one) for one in explained)]
        assert not unexplained


def test_exploration_without_an_answer_is_not_paid(make_trainer):
    trainer = make_trainer(outcome=lambda completions, **_: [0.0] * len(completions), exploration=LengthExploration(6))
    metrics = rollout_of(trainer, 8)  # a random policy writes no box
    assert metrics["format_rate"] == metrics["reward/exploration_paid"] == 0.0
    assert metrics["reward/exploration"] > 0.5

"""The hacking alarm of a run: from the recipe's evaluations into log, metrics, summary and model card."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from rltoolkit.recipe import load_recipe
from rltoolkit.rlsp.watch import held_out
from rltoolkit.rlsp.watch.alarm import Mean
from rltoolkit.rlsp.watch.held_out import ALARM_PHASE, RunAlarm
from rltoolkit.run.folder import RunFolder
from rltoolkit.run.metrics import MetricsWriter, read_metrics
from rltoolkit.run.samples import read_samples
from rltoolkit.train import train

ROOT = Path(__file__).parents[4]
QUICKSTART = ROOT / "recipes" / "rlsp" / "quickstart.yaml"
PLUGINS = """\
from reward_models.verdict import Verdict

class NeverRight:
    def check(self, response, reference):
        return Verdict.wrong("?")
    def gold_response(self, reference):
        return None

class EverMore:
    '''Pays every response a little more than the one before.'''
    def __init__(self):
        self.asked = 0
    def score(self, response, token_count):
        self.asked += 1
        return min(1.0, self.asked / 100)
"""


def results(accuracy, sampled, n=500):
    """What `evaluate_tasks` returns, as far as the alarm reads it."""
    estimates = {
        key: {"estimate": {"mean": mean, "n": n}} for key, mean in (("accuracy", accuracy), ("sampled", sampled))
    }
    return {"countdown": estimates}


@pytest.fixture
def run(tmp_path):
    """As much of a Run as the alarm touches."""
    folder = RunFolder.open(tmp_path / "run", {"method": "rlsp"}, "hash", is_main=True)
    return SimpleNamespace(
        folder=folder, metrics=MetricsWriter(folder.metrics_path), state=SimpleNamespace(is_main_process=True)
    )


def explored(alarm, paid):
    alarm.alarm.saw(256, 256 * paid, 256 * paid**2, [])


def test_greedy_and_sampled_accuracy_are_watched(run, caplog):
    for accuracy, sampled, series in [(0.5, 0.2, "sampled"), (0.3, 0.4, "accuracy")]:
        alarm = RunAlarm(run)
        explored(alarm, 0.2)
        alarm.hear(0, results(0.5, 0.4))
        explored(alarm, 0.6)
        with caplog.at_level(logging.WARNING):
            alarm.hear(8, results(accuracy, sampled))
        assert f"the held-out rate of countdown {series} fell" in caplog.records[-1].message
        assert alarm.summary() == {"watched": True, "measurements": 2, "events": [caplog.records[-1].message]}
    assert len(caplog.records) == 2


def test_an_event_is_a_line_of_the_metrics_once(run):
    for _ in range(2):  # the second time as after a crash, in a process that knows nothing
        alarm = RunAlarm(run)
        explored(alarm, 0.2)
        alarm.hear(0, results(0.5, 0.5))
        explored(alarm, 0.6)
        alarm.hear(8, results(0.3, 0.3))
    (line,) = read_metrics(run.folder.metrics_path)
    assert (line["phase"], line["step"], line["alarm/hacking"]) == (ALARM_PHASE, 8, 1)
    assert line["text"].startswith("hacking alarm at step 8: since step 0 exploration is paid more, 0.200 -> 0.600")


def test_other_processes_hear_and_keep_quiet(run, caplog):
    run.state.is_main_process = False
    alarm = RunAlarm(run)
    explored(alarm, 0.2)
    alarm.hear(0, results(0.5, 0.5))
    explored(alarm, 0.6)
    alarm.hear(8, results(0.3, 0.3))
    assert alarm.alarm.ringing
    assert not caplog.records
    assert not read_metrics(run.folder.metrics_path)


def test_a_task_without_a_scored_question_says_nothing(run):
    alarm = RunAlarm(run)
    explored(alarm, 0.2)
    alarm.hear(0, results(None, None, n=0))
    assert alarm.summary() == {"watched": False, "measurements": 0, "events": []}


def test_phases_that_were_not_measured_are_not_heard(run):
    alarm = RunAlarm(run)
    alarm.hear_phase("evaluate_before", 0)
    assert alarm.alarm.measurements == 0
    run.folder.finish("evaluate_before", results(0.5, 0.5))
    alarm.hear_phase("evaluate_before", 0)
    assert alarm.alarm.measurements == 1


@pytest.mark.slow
def test_the_whole_way_through_a_run(tmp_path, monkeypatch, caplog):
    """Exploration really rises (its reward sees to that); the held-out rates are told, as a tiny policy has none."""
    (tmp_path / "rewards_that_are_hacked.py").write_text(PLUGINS)
    monkeypatch.chdir(tmp_path)
    heard = []

    def falling(measured):
        heard.append(measured)
        return {"countdown sampled": Mean.of_share(0.8 - 0.2 * len(heard), 500)}

    monkeypatch.setattr(held_out, "_rates", falling)
    overrides = [
        "sft=null", "data.train.limit=64", "train.max_steps=6", "train.per_device_train_batch_size=16",
        "train.steps_per_generation=2", "train.save_steps=4", "train.logging_steps=1", "rollout.max_new_tokens=8",
        "train.critic_warmup_rollouts=0", "eval.questions=4", "eval.every_steps=4",
        "rewards.outcome={verifier: 'rewards_that_are_hacked:NeverRight'}",
        "rewards.exploration={kind: 'rewards_that_are_hacked:EverMore'}", f"output_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="rltoolkit"):
        folder = train(load_recipe(QUICKSTART, overrides))

    summary = json.loads((folder / "summary.json").read_text())["hacking_alarm"]
    assert (summary["watched"], summary["measurements"]) == (True, 3)
    (event,) = summary["events"]
    records = read_metrics(folder / "metrics.jsonl")
    (line,) = [record for record in records if record["phase"] == ALARM_PHASE]
    assert (line["step"], line["text"]) == (4, event)
    rings = {
        record["step"]: record["alarm/hacking"]
        for record in records
        if record["phase"] == "train" and "alarm/hacking" in record
    }
    assert (rings.get(3), rings[5], rings[6]) == (None, 1, 1)
    assert f"**The hacking alarm went off.**\n\n- {event}" in (folder / "README.md").read_text()
    assert [record.message for record in caplog.records if "hacking" in record.message] == [event]

    place = event.partition("for exploration: ")[2].partition(" (paid ")[0]  # the first that it names
    file, _, row = place.partition(" row ")
    assert (folder / file).is_file()
    samples = read_samples(folder / "samples").to_pylist()
    named = [sample for sample in samples if sample["step"] == 2][int(row)]
    assert named["exploration_reward"] == max(sample["exploration_reward"] for sample in samples if sample["step"] < 4)

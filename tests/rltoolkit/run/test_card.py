"""The model card says what the run wrote, and says so where it wrote nothing."""

import json
import re
from pathlib import Path

import pytest
import yaml

from rltoolkit.run import folder as folder_module
from rltoolkit.run.card import render_card, write_card
from rltoolkit.run.folder import RunFolder

RECIPE = {
    "method": "rlsp",
    "model": {"name_or_path": "some-owner/some-model-1B"},
    "data": {"train": {"path": "train.jsonl", "split": "train", "limit": 500}},
    "rewards": {
        "outcome": {"verifier": "math", "extraction": "boxed"},
        "exploration": {"kind": "length", "target_tokens": 60},
    },
    "eval": {"tasks": ["countdown", "gsm8k"]},
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.open(tmp_path / "my-run", RECIPE, "abc")


def test_a_finished_run(run: RunFolder) -> None:
    run.model_dir.mkdir()
    run.finish("train", {})
    run.write_summary(
        {
            "task": "countdown",
            "accuracy_before": 0.412,
            "accuracy_before_interval": [0.37, 0.455],
            "accuracy_before_attempts": 1.5,
            "accuracy_after": 0.6,
            "accuracy_after_interval": [0.55, 0.65],
            "accuracy_after_attempts": 2.25,
            "sampled_after": 0.5,
            "sampled_after_interval": [None, None],
            "seconds": 301.25,
        }
    )
    for name in ("kl", "accuracy", "extra"):
        (run.plots_dir / f"{name}.png").write_bytes(b"")

    path = write_card(run)

    assert path == run.path / "README.md"
    card = path.read_text()
    assert "| countdown | greedy | 41.2 % (37.0 to 45.5) | 60.0 % (55.0 to 65.0) |" in card
    assert "| countdown | sampled at temperature 1 | not measured | 50.0 % (no interval) |" in card
    assert "| countdown | attempts per response, greedy | 1.50 | 2.25 |" in card
    assert "| seconds | 301.2 |" in card
    assert "_interval" not in card
    assert "not measured:" not in card
    assert re.findall(r"!\[.*\]\((.*)\)", card) == ["plots/accuracy.png", "plots/kl.png", "plots/extra.png"]
    assert 'from_pretrained("my-run/model")' in card
    assert "the first 500 rows" in card
    assert "kind length, target_tokens 60" in card
    assert f"| trl | {json.loads(run.versions_path.read_text())['packages']['trl']} |" in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "some-owner/some-model-1B"
    assert "rlsp" in front["tags"]
    recipe = card.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe) == RECIPE


@pytest.mark.parametrize(
    ("exploration", "says"),
    [
        (RECIPE["rewards"]["exploration"], "rewarded for a correct outcome and, apart from it, for exploration. Made"),
        (None, "rewarded for a correct outcome. Made"),
    ],
)
def test_exploration_is_named_where_the_recipe_rewards_it(tmp_path: Path, exploration: object, says: str) -> None:
    rewards = {**RECIPE["rewards"], "exploration": exploration}
    assert says in render_card(RunFolder.open(tmp_path, {**RECIPE, "rewards": rewards}, "abc"))


def test_what_was_not_measured_is_said_and_not_invented(run: RunFolder) -> None:
    card = render_card(run)
    assert "`summary.json`): no result is known" in card
    assert "has no saved model yet" in card
    assert "There is no `model/`" in card
    assert "none has finished" in card
    assert "%" not in card.split("## Limits")[0]
    assert "## Curves" not in card

    run.write_summary({"seconds": 3.0, "accuracy_before": None})
    card = render_card(run)
    assert "Accuracy not measured: greedy, sampled at temperature 1." in card
    assert "%" not in card.split("## Limits")[0]


def test_each_task_has_its_own_rows(run: RunFolder) -> None:
    tasks = {"countdown": {"accuracy_after": 0.6}, "gsm8k": {"accuracy_after": 0.1, "sampled_after": 0.2}}
    run.write_summary({"task": "countdown", "accuracy_after": 0.6, "tasks": tasks})
    card = render_card(run)
    assert "| countdown | greedy | not measured | 60.0 % (no interval) |" in card
    assert "| gsm8k | greedy | not measured | 10.0 % (no interval) |" in card
    assert "| gsm8k | sampled at temperature 1 | not measured | 20.0 % (no interval) |" in card
    assert "| countdown | sampled" not in card
    assert "Accuracy not measured" not in card


@pytest.mark.parametrize("base", ["embedded:countdown", "./models/a", "/models/a"])
def test_only_a_hub_name_is_given_as_base_model(tmp_path: Path, base: str) -> None:
    run = RunFolder.open(tmp_path, {**RECIPE, "model": {"name_or_path": base}}, "abc")
    assert "base_model" not in yaml.safe_load(render_card(run).split("---")[1])


def test_an_adapter_and_changed_versions_are_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.model_dir.mkdir()
    (run.model_dir / "adapter_config.json").write_text("{}")
    first = json.loads(run.versions_path.read_text())
    monkeypatch.setattr(folder_module, "collect_versions", lambda: {**first, "python": "3.99.0"})
    card = render_card(RunFolder.open(run.path, RECIPE, "abc"))
    assert "`peft` must be installed" in card
    assert "started 2 times" in card
    assert f"ran on other versions: python {first['python']} -> 3.99.0." in card


def test_other_processes_write_no_card(run: RunFolder) -> None:
    assert write_card(RunFolder.open(run.path, RECIPE, "abc", is_main=False)) is None
    assert not (run.path / "README.md").exists()


@pytest.mark.parametrize(
    ("alarm", "told"),
    [
        ({"watched": True, "measurements": 4, "events": []}, "Hacking alarm: silent over 4 held-out measurements."),
        ({"watched": False, "measurements": 1, "events": []}, "Hacking alarm: nothing to compare"),
        (
            {"watched": True, "measurements": 4, "events": ["first", "second"]},
            "**The hacking alarm went off.**\n\n- first\n- second",
        ),
    ],
)
def test_the_hacking_alarm_is_told_in_words(run: RunFolder, alarm: dict, told: str) -> None:
    run.write_summary({"task": "countdown", "accuracy_after": 0.6, "hacking_alarm": alarm})
    card = render_card(run)
    assert told in card
    assert "| hacking_alarm |" not in card

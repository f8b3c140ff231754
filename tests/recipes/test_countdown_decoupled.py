"""The recipe of decoupled advantages: the quickstart but for what its first lines say, and a run of it."""

from pathlib import Path

import pytest

from rltoolkit.recipe import load_recipe, resolved_dict
from rltoolkit.run.metrics import read_metrics
from rltoolkit.train import train

FOLDER = Path(__file__).parents[2] / "recipes" / "rlsp"
RECIPE = FOLDER / "countdown-decoupled.yaml"
SMALL = [
    "sft.data.limit=256", "sft.train.max_steps=4", "sft.train.per_device_train_batch_size=16", "data.train.limit=64",
    "train.max_steps=6", "train.per_device_train_batch_size=4", "train.steps_per_generation=2", "train.save_steps=2",
    "train.logging_steps=1", "train.critic_warmup_rollouts=1", "rollout.max_new_tokens=24", "eval.questions=8",
    "eval.every_steps=null",
]  # fmt: skip
OF_STREAMS = {
    "advantage": "decoupled",
    "exploration_control": "best",
    "outcome_floor": 0.98,
    "exploration_weight": 0.5,
    "exploration_weight_step": 10.0,
    "exploration_weight_min": 0.1,
    "exploration_weight_max": 2.0,
}


def test_it_is_the_quickstart_with_two_streams():
    ours, theirs = (resolved_dict(load_recipe(path).recipe) for path in (RECIPE, FOLDER / "quickstart.yaml"))
    assert {name: ours["train"].pop(name) for name in OF_STREAMS} == OF_STREAMS
    assert ours == theirs


@pytest.mark.slow
def test_a_small_run_of_it(tmp_path):
    folder = train(load_recipe(RECIPE, [*SMALL, f"output_dir={tmp_path / 'run'}"]))
    records = [record for record in read_metrics(folder / "metrics.jsonl") if "advantage/exploration_weight" in record]
    assert [record["step"] for record in records] == [1, 3, 5]
    assert records[0]["advantage/exploration_weight"] == 0.5  # the critic warms up
    for record in records:
        assert record["advantage/outcome_floor"] <= 0.98
        assert "value/explained_variance_correctness" in record
    assert (folder / "checkpoints" / "train" / "checkpoint-6" / "rlsp_state.json").is_file()

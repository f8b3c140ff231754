"""The identity of a recipe and where its run goes."""

from pathlib import Path

import pytest
import yaml

from rltoolkit.recipe import LoadedRecipe, load_recipe, output_dir_of, recipe_hash, resolved_dict

TEXT = """\
method: rlsp
model: {name_or_path: some/model, lora: {target_modules: [q_proj, v_proj]}}
data: {train: {path: some/data, prompt: "{q}", reference: a}}
rewards: {outcome: {verifier: math, extraction: lenient}, exploration: {kind: length, target_tokens: 40}}
train: {learning_rate: 2e-7, save_strategy: no}
"""


@pytest.fixture
def load(tmp_path: Path):
    path = tmp_path / "my-run.yaml"
    path.write_text(TEXT)

    def load_with(*overrides: str) -> LoadedRecipe:
        return load_recipe(path, overrides)

    return load_with


def test_the_resolved_recipe_is_a_recipe_again(load, tmp_path: Path) -> None:
    recipe = load().recipe
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(resolved_dict(recipe)))
    reloaded = load_recipe(again).recipe
    assert reloaded == recipe
    assert recipe_hash(reloaded) == recipe_hash(recipe)
    assert resolved_dict(recipe)["rewards"]["outcome"] == {"verifier": "math", "extraction": "lenient"}


def test_a_default_written_out_is_the_same_recipe(load) -> None:
    assert recipe_hash(load("rollout.temperature=1.0").recipe) == recipe_hash(load().recipe)


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=elsewhere",
        "launch.processes=4",
        "rollout.servers.urls=['http://a:1']",
        "rollout.engine.gpu_memory_utilization=0.4",
        "rollout.engine.args=[--max-num-seqs=9]",
    ],
)
def test_where_and_on_what_it_runs_is_no_identity(load, override: str) -> None:
    assert recipe_hash(load(override).recipe) == recipe_hash(load().recipe)
    assert override.startswith("output_dir") or output_dir_of(load(override)) == output_dir_of(load())


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "rollout.engine.dtype=bfloat16",
        "train.learning_rate=1e-6",
        "model.dtype=bfloat16",
        "rewards.outcome.box=first",
        "rollout.backend=vllm",
    ],
)
def test_everything_else_is(load, override: str) -> None:
    assert recipe_hash(load(override).recipe) != recipe_hash(load().recipe)


def test_the_run_folder_follows_the_recipe_and_its_overrides(load) -> None:
    assert output_dir_of(load()) == Path("runs/my-run")
    assert output_dir_of(load("launch.processes=2")) == Path("runs/my-run")
    assert output_dir_of(load("rollout.servers.port=9000")) == Path("runs/my-run")
    assert output_dir_of(load("output_dir=a/b", "seed=3")) == Path("a/b")
    changed = output_dir_of(load("seed=3"))
    assert changed == Path(f"runs/my-run-{recipe_hash(load('seed=3').recipe)[:6]}")
    assert changed != output_dir_of(load("seed=4"))

"""How a recipe is started."""

import sys
from pathlib import Path

import pytest

from rltoolkit.commands.launch import launch, launch_command
from rltoolkit.errors import RLToolkitError
from rltoolkit.recipe import LoadedRecipe, load_recipe

TEXT = """\
method: rlsp
model: {name_or_path: "embedded:countdown"}
data: {train: {path: "embedded:countdown"}}
rewards: {outcome: {verifier: countdown}}
train: {use_cpu: true, bf16: false, per_device_train_batch_size: 4}
"""


@pytest.fixture
def load(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    (tmp_path / "gpu.yaml").write_text("distributed_type: 'NO'\nuse_cpu: false\n")
    (tmp_path / "ddp.yaml").write_text("distributed_type: MULTI_GPU\n")

    def load_with(*overrides: str) -> LoadedRecipe:
        return load_recipe(path, overrides)

    return load_with


def test_one_process_needs_no_launcher(load) -> None:
    loaded = load()
    assert launch_command(loaded, ["seed=1"]) == [sys.executable, "-m", "rltoolkit.train", str(loaded.path), "seed=1"]


def test_a_config_file_is_handed_to_accelerate(load, tmp_path: Path) -> None:
    overrides = ["launch.accelerate_config=ddp.yaml", "launch.processes=3"]
    command = launch_command(load(*overrides), overrides)
    start = ["-m", "accelerate.commands.launch", "--num_processes", "3", "--config_file", str(tmp_path / "ddp.yaml")]
    assert command[1:] == [*start, "-m", "rltoolkit.train", str(tmp_path / "r.yaml"), *overrides]


def test_several_processes_never_use_the_form_that_starts_one(load) -> None:
    command = launch_command(load("launch.processes=2"), [])
    assert "--multi_gpu" in command
    assert "--cpu" not in command
    assert command[command.index("--num_processes") + 1] == "2"


def test_what_accelerate_would_bury_is_refused_first(load) -> None:
    with pytest.raises(RLToolkitError, match=r"launch\.accelerate_config on the command line"):
        launch(load("train.use_cpu=false", "train.bf16=false", "launch.accelerate_config=gpu.yaml"), [])


def test_a_folder_that_would_hide_our_packages_is_refused(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load()
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RLToolkitError, match="the package eval that Python would import is the one in"):
        launch(loaded, [])


def test_the_exit_code_is_that_of_the_training(load, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(TEXT.replace("per_device_train_batch_size", "per_device_batch_size"))
    assert launch(load_recipe(bad), []) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)  # two processes that import torch, on cores that may be shared
@pytest.mark.parametrize("config", [None, "ddp.yaml"])
def test_two_processes_are_two(load, tmp_path: Path, config: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    overrides = [
        "launch.processes=2",
        "train.max_steps=1",
        "data.train={path: 'embedded:countdown', format: text, limit: 64}",
        "rollout.max_new_tokens=8",
        f"output_dir={tmp_path / 'run'}",
    ]
    if config is not None:
        overrides.append(f"launch.accelerate_config={config}")
    assert launch(load(*overrides), overrides) == 0
    # 4 per device x 2 processes
    assert "8 responses per rollout" in capfd.readouterr().out

"""The run folder is created once, continued by its own recipe, and refused to everyone else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rltoolkit.errors import RunFolderError
from rltoolkit.run import folder as folder_module
from rltoolkit.run.folder import RunFolder, differing_keys

RECIPE = {
    "method": "rlsp",
    "model": {"name_or_path": "embedded:countdown", "lora": None},
    "rollout": {"temperature": 1.0},
    "launch": {"processes": 1},
    "output_dir": "a",
}


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_new_folder_has_what_the_design_promises(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "deep" / "run", RECIPE, "abc")

    found = {item.name for item in run.path.iterdir()}
    assert found >= {
        "recipe.resolved.yaml",
        "versions.json",
        "manifest.json",
        "samples",
        "checkpoints",
        "plots",
    }
    assert yaml.safe_load(run.recipe_path.read_text()) == RECIPE
    assert "torch" in json.loads(run.versions_path.read_text())["packages"]
    assert run.manifest()["recipe_hash"] == "abc"
    assert not run.is_done("sft")


def test_the_same_recipe_continues_with_its_phases(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, RECIPE, "abc").finish("sft", {"loss": 0.5, "steps": 3})

    again = RunFolder.open(tmp_path, {**RECIPE, "output_dir": "b"}, "abc")

    assert again.is_done("sft")
    assert again.result("sft") == {"loss": 0.5, "steps": 3}
    assert not again.is_done("train")
    assert len(again.manifest()["starts"]) == 2


def test_another_recipe_is_refused_with_the_keys_that_differ_and_nothing_changes(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, RECIPE, "abc").finish("sft", {"loss": 0.5})
    before = tree(tmp_path)
    other = {
        **RECIPE,
        "rollout": {"temperature": 0.7, "top_p": 0.9},
        "model": {"name_or_path": "embedded:countdown", "lora": {"r": 16}},
        "launch": {"processes": 8},
        "output_dir": "c",
    }

    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(tmp_path, other, "def")

    message = str(caught.value)
    assert "rollout.temperature: 1.0 in that run, 0.7 now" in message
    assert "rollout.top_p: absent in that run, 0.9 now" in message
    assert "model.lora: null in that run, absent now" in message
    assert "model.lora.r: absent in that run, 16 now" in message
    assert "launch" not in message
    assert "output_dir=..." in message
    assert f"delete {tmp_path}" in message
    assert tree(tmp_path) == before


def test_what_makes_no_other_run_is_no_difference() -> None:
    """The same facts as in the hash: a key that does not change it explains nothing."""
    before = {"output_dir": "a", "launch": {"processes": 1}, "rollout": {"backend": "x", "servers": {"port": 1}}}
    now = {"output_dir": "b", "launch": {"processes": 2}, "rollout": {"backend": "y", "servers": {"port": 2}}}
    assert [key for key, _, _ in differing_keys(before, now)] == ["rollout.backend"]


def test_tuples_and_paths_do_not_count_as_differences() -> None:
    assert differing_keys({"a": [1, 2], "b": "x/y"}, {"a": (1, 2), "b": Path("x/y")}) == []


def test_a_folder_that_holds_no_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")

    with pytest.raises(RunFolderError, match=r"holds no run .*thesis\.tex"):
        RunFolder.open(tmp_path, RECIPE, "abc")

    assert tree(tmp_path) == {"thesis.tex": b"precious"}


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.open(path, RECIPE, "abc")


@pytest.mark.parametrize("content", ["{", '{"format": 99}', "[]"])
def test_a_manifest_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"manifest\.json .*output_dir"):
        RunFolder.open(tmp_path, RECIPE, "abc")


def test_other_processes_see_the_run_and_write_nothing(tmp_path: Path) -> None:
    view = RunFolder.open(tmp_path / "run", RECIPE, "abc", is_main=False)
    assert not view.path.exists()
    main = RunFolder.open(tmp_path / "run", RECIPE, "abc")
    before = tree(main.path)

    view.finish("sft", {})
    view.write_summary({"accuracy_after": 0.5})
    assert tree(main.path) == before

    main.finish("sft", {"loss": 1.0})
    assert view.result("sft") == {"loss": 1.0}


def test_a_result_that_is_no_json_leaves_the_manifest_as_it_was(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, RECIPE, "abc")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.finish("train", {"loss": float("nan")})
    assert tree(tmp_path) == before


KILLED_AT_FILE_OPERATION = """
import os, signal, sys
from rltoolkit.run.folder import RunFolder

path, left = sys.argv[1], int(sys.argv[2])

def audit(event, args):
    global left
    if event in ("open", "os.rename", "os.mkdir") and path in str(args[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
RunFolder.open(path, {recipe!r}, "abc").finish("sft", {{"loss": 1.0}})
"""


def test_a_first_start_that_dies_at_any_file_operation_can_be_started_again(tmp_path: Path) -> None:
    deaths = 0
    while True:
        path = tmp_path / f"run-{deaths}"
        code = KILLED_AT_FILE_OPERATION.format(recipe=RECIPE)
        command = [sys.executable, "-c", code, str(path), str(deaths)]
        died = subprocess.run(command, capture_output=True, text=True, check=False)

        run = RunFolder.open(path, RECIPE, "abc")

        assert yaml.safe_load(run.recipe_path.read_text()) == RECIPE
        assert json.loads(run.versions_path.read_text())["python"]
        assert not list(run.path.rglob("*.partial-*"))
        run.finish("sft", {"loss": 2.0})
        run.close()
        if died.returncode == 0:
            break
        assert died.returncode == -signal.SIGKILL, died.stderr
        deaths += 1
    assert deaths > 20


HOLDER = """
import sys, time
from rltoolkit.run.folder import RunFolder
run = RunFolder.open(sys.argv[1], {recipe!r}, "abc")
print("open", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no record locks")
def test_a_second_process_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER.format(recipe=RECIPE), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        try:
            with pytest.raises(RunFolderError, match=rf"process \(id {holder.pid}\) is running"):
                RunFolder.open(run, RECIPE, "abc")
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert RunFolder.open(run, RECIPE, "abc").manifest()["recipe_hash"] == "abc"


def test_a_continued_run_records_that_versions_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.open(tmp_path, RECIPE, "abc")
    first = json.loads((tmp_path / "versions.json").read_text())
    changed = {**first, "packages": {**first["packages"], "torch": "99.0"}}
    monkeypatch.setattr(folder_module, "collect_versions", lambda: changed)

    run = RunFolder.open(tmp_path, RECIPE, "abc")

    starts = [start["changed_versions"] for start in run.manifest()["starts"]]
    assert starts == [{}, {"torch": [first["packages"]["torch"], "99.0"]}]
    assert json.loads(run.versions_path.read_text()) == first

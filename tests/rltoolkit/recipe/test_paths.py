"""Local or hub, and where local files are looked for."""

from pathlib import Path

import pytest

from rltoolkit.recipe import resolve_data_path
from rltoolkit.recipe.paths import expand_environment, looks_local
from rltoolkit.recipe.problems import RefusedError


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("data.jsonl", True),
        ("a/b.parquet", True),
        ("x.csv", True),
        ("./folder", True),
        ("../folder", True),
        ("/abs", True),
        ("~/data", True),
        (".", True),
        ("openai/gsm8k", False),
        ("openai/gsm8k:main", False),
        ("embedded:countdown", False),
        ("Qwen/Qwen2.5-1.5B-Instruct", False),
    ],
)
def test_what_looks_local(path: str, local: bool) -> None:
    assert looks_local(path) is local


def test_the_recipes_folder_comes_first_then_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes, work = tmp_path / "recipes", tmp_path / "work"
    for folder in (recipes, work):
        folder.mkdir()
        (folder / "both.jsonl").touch()
    (work / "here.jsonl").touch()
    monkeypatch.chdir(work)
    recipe = recipes / "r.yaml"
    assert resolve_data_path("both.jsonl", recipe) == recipes / "both.jsonl"
    assert resolve_data_path("here.jsonl", recipe) == work / "here.jsonl"
    with pytest.raises(RefusedError, match="does not exist") as caught:
        resolve_data_path("gone.jsonl", recipe)
    assert str(recipes / "gone.jsonl") in caught.value.remedy
    assert str(work / "gone.jsonl") in caught.value.remedy


def test_a_folder_named_like_a_hub_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve_data_path("owner/name", tmp_path / "r.yaml") == tmp_path / "owner" / "name"
    assert resolve_data_path("owner/other", tmp_path / "r.yaml") == "owner/other"
    assert resolve_data_path("embedded:countdown", tmp_path / "r.yaml") == "embedded:countdown"


def test_environment_variables() -> None:
    known = {"DATA": "/d", "EMPTY": ""}
    assert expand_environment("${DATA}/x.jsonl", known) == "/d/x.jsonl"
    assert expand_environment("${DATA:-/e}/x", known) == "/d/x"
    assert expand_environment("${NONE:-/e}/x", known) == "/e/x"
    assert expand_environment("${EMPTY:-../e}/x", known) == "../e/x"
    assert expand_environment("${NONE:-}x", known) == "x"
    assert expand_environment("plain $DATA", known) == "plain $DATA"


@pytest.mark.parametrize("text", ["${NONE}/x", "${EMPTY}/x"])
def test_a_variable_that_is_not_set(text: str) -> None:
    with pytest.raises(RefusedError, match="is not set in the environment") as caught:
        expand_environment(text, {"EMPTY": ""})
    assert ":-a default}" in caught.value.remedy

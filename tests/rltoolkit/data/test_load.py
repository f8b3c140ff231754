"""Rows arrive as they are written; what cannot be read is named with file and line."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset

from rltoolkit.data.load import load_rows
from rltoolkit.errors import DataError

ROWS = [{"question": "1+1?", "answer": "2"}, {"question": "naïve {x} \\frac{1}{2}", "answer": "1/2"}]


@dataclass(frozen=True)
class Source:
    path: str
    split: str = "train"
    limit: int | None = None


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("kind", ["jsonl", "json", "list.json", "csv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, recipe: Path, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif kind == "csv":
        Dataset.from_list(ROWS).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(ROWS) if kind == "list.json" else lines(ROWS))

    assert load_rows(Source(path.name), recipe).to_list() == ROWS


def test_a_byte_order_mark_and_blank_lines_are_no_data(tmp_path: Path, recipe: Path) -> None:
    write(tmp_path, "a.jsonl", "\ufeff" + lines(ROWS) + "\n\n")
    write(tmp_path, "a.csv", "\ufeffquestion,answer\r\n1+1?,2\r\n\r\n")
    assert load_rows(Source("a.jsonl"), recipe).to_list() == ROWS
    assert load_rows(Source("a.csv"), recipe).to_list() == ROWS[:1]


def test_numbers_stay_as_they_are_written(tmp_path: Path, recipe: Path) -> None:
    write(tmp_path, "a.csv", 'q,a\n"x, y",007\nz,1.50\n')
    assert load_rows(Source("a.csv"), recipe)["a"][:] == ["007", "1.50"]
    write(tmp_path, "a.jsonl", '{"a": 7}\n{"a": "1/2"}\n{"a": 2.5}\n{"a": null}\n{"a": true}\n')
    assert load_rows(Source("a.jsonl"), recipe)["a"][:] == ["7", "1/2", "2.5", None, "true"]
    write(tmp_path, "b.jsonl", '{"a": 7}\n{"a": 2.5}\n')
    assert load_rows(Source("b.jsonl"), recipe)["a"][:] == ["7", "2.5"]
    write(tmp_path, "c.jsonl", '{"a": 7}\n{"a": 8}\n')
    assert load_rows(Source("c.jsonl"), recipe)["a"][:] == [7, 8]


def test_rows_with_different_keys_have_the_columns_of_all(tmp_path: Path, recipe: Path) -> None:
    write(tmp_path, "a.jsonl", '{"a": 1}\n{"b": "x"}\n')
    assert load_rows(Source("a.jsonl"), recipe).to_list() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_limit_keeps_the_first_rows(tmp_path: Path, recipe: Path) -> None:
    write(tmp_path, "a.jsonl", lines([{"a": index} for index in range(5)]))
    assert load_rows(Source("a.jsonl", limit=2), recipe)["a"][:] == [0, 1]
    assert load_rows(Source("a.jsonl", limit=9), recipe).num_rows == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2\n', r"a\.jsonl line 3 is not valid JSON .*'\{\"a\": 2'"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl line 2 is list, expected an object"),
        ("a.json", '[{"a": 1}, 7]', r"a\.json row 2 is int"),
        ("a.json", "[1,", r"a\.json is not valid JSON"),
        ("a.csv", "a,b\n1,2\n3\n", r"a\.csv line 3 has 1 cells, expected 2"),
        ("a.csv", 'a,b\n1,"2\n', r"a\.csv line 2 is not valid CSV"),
        ("a.parquet", "PAR1 no", r"a\.parquet is not a readable Parquet file"),
        ("a.jsonl", '{"a": {"b": 1}}\n{"a": 2}\n', r"column 'a' of .* mixes kinds"),
        ("a.jsonl", "", r"a\.jsonl .* has no rows"),
        ("a.csv", "a,b\n", r"a\.csv .* has no rows"),
        ("a.json", "[]", r"a\.json .* has no rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, recipe: Path, name: str, content: str, message: str) -> None:
    write(tmp_path, name, content)
    with pytest.raises(DataError, match=message):
        load_rows(Source(name), recipe)


def test_another_encoding_is_named(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"a": "naïve"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.jsonl is not UTF-8"):
        load_rows(Source("a.jsonl"), recipe)


def test_a_missing_file_and_an_unknown_ending(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl.*does not exist; looked for"):
        load_rows(Source("nowhere.jsonl"), recipe)
    write(tmp_path, "a.txt", "x")
    with pytest.raises(DataError, match=r"a\.txt ends in '\.txt', expected one of \.jsonl"):
        load_rows(Source("a.txt"), recipe)


def test_a_split_of_a_single_file_is_refused_and_not_ignored(tmp_path: Path, recipe: Path) -> None:
    write(tmp_path, "a.jsonl", lines(ROWS))
    with pytest.raises(DataError, match=r"split is 'test', but .* one file without splits"):
        load_rows(Source("a.jsonl", split="test"), recipe)


def test_a_folder_is_read_with_its_splits(tmp_path: Path, recipe: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "train.jsonl", lines(ROWS))
    write(folder, "test.jsonl", lines(ROWS[:1]))
    assert load_rows(Source("./set", split="test"), recipe).to_list() == ROWS[:1]
    with pytest.raises(DataError, match="split validation, cannot be loaded"):
        load_rows(Source("./set", split="validation"), recipe)


def test_a_hub_name_that_cannot_be_reached(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"dataset nobody/nothing:main, split train, cannot be loaded.*network"):
        load_rows(Source("nobody/nothing:main"), recipe)


def test_the_embedded_world_is_seeded_and_has_the_three_columns(recipe: Path) -> None:
    rows = load_rows(Source("embedded:countdown", limit=20), recipe, seed=1)
    assert rows.num_rows == 20
    assert set(rows.column_names) == {"prompt", "answer", "completion"}
    assert rows.to_list() == load_rows(Source("embedded:countdown", limit=20), recipe, seed=1).to_list()
    assert rows.to_list() != load_rows(Source("embedded:countdown", limit=20), recipe, seed=2).to_list()
    for wrong in (Source("embedded:chess"), Source("embedded:countdown", split="validation")):
        with pytest.raises(DataError, match="expected embedded:countdown with split train or test"):
            load_rows(wrong, recipe)

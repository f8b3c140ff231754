"""A file is the old one or the new one."""

import math
from pathlib import Path

import pytest

from rltoolkit.run.atomic import (
    is_temporary,
    remove_temporary,
    replacing,
    replacing_folder,
    write_json,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert is_temporary(temporary)
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert not is_temporary(path)


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("old", "new"):
        with replacing_folder(path) as folder:
            (folder / "weights").write_text(content)
            (folder / content).mkdir()
            if content == "new":
                assert (path / "weights").read_text() == "old"

    assert sorted(item.name for item in path.iterdir()) == ["new", "weights"]
    assert (path / "weights").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()

    def write_half() -> None:
        with replacing_folder(path) as folder:
            (folder / "weights").write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.rglob("*")) == [path]


def test_other_processes_neither_make_nor_move_the_folder(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model", is_main=False) as folder:
        assert not folder.exists()
    with replacing_folder(tmp_path / "model") as same:
        assert same == folder
    assert (tmp_path / "model").is_dir()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / ".lock"
    kept.touch()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / ".kl.png.partial-77").touch()
    (tmp_path / ".model.partial-folder").mkdir()
    (tmp_path / ".model.partial-folder" / "weights").touch()
    remove_temporary(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [kept, tmp_path / "plots"]

"""Files that are either the old one or the new one, never half of one."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY_MARK = ".partial-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, move it onto `path` in one step.

    The temporary file lies in the same folder, since a rename is atomic only within one filesystem. Its
    content is flushed to the disk before the rename, else a power cut could leave the new name with no
    content. If the block raises, the temporary file is removed and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_to_disk(path.parent)


@contextlib.contextmanager
def replacing_folder(path: Path, *, is_main: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `path`; when the block succeeds, put it in the place of `path`.

    With several processes all of them enter, and the one with `is_main` makes the folder and moves it. An old folder
    is moved aside first, so a kill between the two moves leaves none under this name, and never a mixture.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}folder")
    aside = path.with_name(f".{path.name}{TEMPORARY_MARK}old")
    if not is_main:
        yield temporary
        return
    for leftover in (temporary, aside):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _flush_to_disk(file)
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    _flush_to_disk(path.parent)


def remove_temporary(folder: Path) -> None:
    """Remove everything under `folder` that a killed process left half written."""
    for leftover in [path for path in folder.rglob(".*") if is_temporary(path)]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def is_temporary(path: Path) -> bool:
    """Whether `path` is what `replacing` or `replacing_folder` leave behind when their process is killed."""
    return path.name.startswith(".") and TEMPORARY_MARK in path.name


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

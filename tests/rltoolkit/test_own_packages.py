"""A user's folder that hides our packages."""

import subprocess
import sys
from pathlib import Path

from rltoolkit.own_packages import HOME, hidden_by_folder, hidden_packages


def test_ours_are_ours() -> None:
    assert hidden_packages() is None
    assert hidden_by_folder(HOME) is None


def test_another_home_is_told_with_both_paths(tmp_path: Path) -> None:
    sentence = hidden_packages(home=tmp_path)
    assert sentence is not None
    assert str(HOME / "eval") in sentence
    assert str(tmp_path / "eval") in sentence


def test_a_folder_that_would_come_first(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    assert hidden_by_folder(tmp_path) is None  # no package: Python goes on searching
    (tmp_path / "reward_models.py").touch()
    sentence = hidden_by_folder(tmp_path)
    assert sentence is not None
    assert str(tmp_path / "reward_models.py") in sentence


def test_python_m_in_such_a_folder_says_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "__init__.py").touch()
    command = [sys.executable, "-m", "rltoolkit", "--version"]
    # as for an installed package: the folder that is started in comes first, ours after it
    environment = {"PYTHONPATH": str(HOME), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert str(tmp_path / "eval") in done.stderr
    assert str(HOME / "eval") in done.stderr
    assert done.stderr.count("\n") == 1

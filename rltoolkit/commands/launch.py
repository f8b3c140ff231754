"""Start `python -m rltoolkit.train` through accelerate, with the launch section of the recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rltoolkit.errors import RLToolkitError
from rltoolkit.own_packages import hidden_by_folder
from rltoolkit.recipe.accelerate_config import read_accelerate_config
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RecipeError, RefusedError

MODULE = "rltoolkit.train"
ACCELERATE = "accelerate.commands.launch"


def launch(loaded: LoadedRecipe, overrides: Sequence[str]) -> int:
    """Run the recipe's training in processes of their own and return their exit code.

    What accelerate would bury under the tracebacks of its workers is looked at here first.
    """
    hidden = hidden_by_folder(Path.cwd())
    if hidden is not None:
        raise RLToolkitError(hidden)
    command = launch_command(loaded, overrides)
    if ACCELERATE in command:
        from rltoolkit.check.configs import refuse_early

        refuse_early(loaded)
    environment = dict(os.environ)
    if loaded.recipe.launch.processes > 1:
        # accelerate and torchrun leave this to the user; without it every process takes all cores
        environment.setdefault("OMP_NUM_THREADS", "1")
    return _exit_code(subprocess.run(command, env=environment, check=False).returncode)


def launch_command(loaded: LoadedRecipe, overrides: Sequence[str]) -> list[str]:
    """The command that trains this recipe.

    One process without an accelerate config needs no launcher. Several on a CPU start with --multi_gpu, which
    accelerate runs on gloo where `use_cpu` is set; its --cpu would silently start one process alone.
    """
    section = loaded.recipe.launch
    job = ["-m", MODULE, str(loaded.path), *overrides]
    if section.processes == 1 and section.accelerate_config is None:
        return [sys.executable, *job]
    command = [sys.executable, "-m", ACCELERATE, "--num_processes", str(section.processes)]
    if section.accelerate_config is not None:
        command += ["--config_file", _config_path(loaded, section.accelerate_config)]
    else:
        command += ["--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*command, *job]


def _config_path(loaded: LoadedRecipe, path: str) -> str:
    try:
        return str(read_accelerate_config(path, loaded.path).path)
    except RefusedError as refusal:
        finding = Finding("launch.accelerate_config", refusal.found, refusal.expected, refusal.remedy)
        raise RecipeError([loaded.problem(finding)]) from refusal


def _exit_code(returncode: int) -> int:
    """A process that a signal ended has no exit code; shells say 128 + signal."""
    return returncode if returncode >= 0 else 128 - returncode

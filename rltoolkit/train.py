"""`accelerate launch -m rltoolkit.train RECIPE.yaml [section.key=value ...]`: one process of a run."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rltoolkit.errors import RLToolkitError
from rltoolkit.own_packages import hidden_packages
from rltoolkit.recipe import LoadedRecipe, load_recipe

__all__ = ["leave_the_group", "main", "train"]

EXIT_MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or continue a recipe; exit code 0 only when it is done, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m rltoolkit.train",
        description="Train from a recipe; a run that was interrupted goes on where it stopped.",
        epilog="example: accelerate launch -m rltoolkit.train recipes/rlsp/quickstart.yaml train.max_steps=2",
    )
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="change a value of the recipe")
    options = parser.parse_args(arguments)
    prepare_environment()
    hidden = hidden_packages()
    if hidden is not None:
        sys.stderr.write(f"{hidden}\n")
        return EXIT_MISTAKE
    try:
        train(load_recipe(options.recipe, options.overrides))
    except RLToolkitError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MISTAKE
    leave_the_group()
    return 0


def leave_the_group() -> None:
    """Close the group of processes, where there are several, once all have come to their end.

    The threads of gloo abort a process that ends while they run: a finished run would count as failed.
    """
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        PartialState().wait_for_everyone()
        distributed.destroy_process_group()


def prepare_environment() -> None:
    """Settings that must stand before torch is imported.

    Waiting OpenMP threads that spin cost a factor of 30 where cores are shared.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Bars for reading and writing a file of a second; those of the phases stay.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def train(loaded: LoadedRecipe) -> Path:
    """Run the recipe's method and return the run folder; see the method's own loop for the errors."""
    from rltoolkit.check.configs import refuse_early

    refuse_early(loaded)
    if loaded.recipe.method == "sft":
        from rltoolkit.phases import run_sft_recipe

        return run_sft_recipe(loaded)
    from rltoolkit.rlsp.loop import run_rlsp_recipe

    return run_rlsp_recipe(loaded)


if __name__ == "__main__":
    sys.exit(main())

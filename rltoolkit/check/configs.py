"""The trainers' configs of a recipe, made here to be looked at, not to be trained with."""

from __future__ import annotations

from typing import Any

from rltoolkit.check.machine import Machine, gpu_reasons, machine_findings
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RecipeError
from rltoolkit.recipe.resolve import output_dir_of
from rltoolkit.recipe.train_section import build_config


def refuse_early(loaded: LoadedRecipe, machine: Machine | None = None) -> None:
    """Raise RecipeError with everything about machine and trainers' settings that is wrong.

    To be called before data or weights are touched. Imports TRL.
    """
    machine = machine if machine is not None else Machine.this()
    problems = [loaded.problem(finding) for finding in machine_findings(loaded, machine)]
    makers = [sft_config] if loaded.recipe.sft is not None else []
    makers += [rlsp_config] if loaded.recipe.method == "rlsp" else []
    for make in makers:
        try:
            make(loaded, machine)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)


def rlsp_config(loaded: LoadedRecipe, machine: Machine) -> Any:
    """The RLSPConfig of `train:`; raises RecipeError with all problems of the section."""
    from rltoolkit.rlsp.config import RLSPConfig, sampling_options

    fixed = sampling_options(loaded.recipe.rollout) | _fixed(loaded, machine)
    return build_config(loaded, RLSPConfig, section="train", fixed=fixed)


def sft_config(loaded: LoadedRecipe, machine: Machine) -> Any:
    """The SFTConfig of the supervised stage; raises RecipeError with all problems of its section."""
    from trl import SFTConfig

    return build_config(loaded, SFTConfig, section="sft.train", fixed=_fixed(loaded, machine))


def _fixed(loaded: LoadedRecipe, machine: Machine) -> dict[str, Any]:
    fixed: dict[str, Any] = {"output_dir": str(output_dir_of(loaded)), "seed": loaded.recipe.seed}
    if machine.gpus == 0 and gpu_reasons(loaded):
        # The configs refuse GPU precisions where there is no GPU; the rest of the section can be checked all the same.
        fixed |= {"use_cpu": True, "fp16": False, "tf32": None}
    return fixed

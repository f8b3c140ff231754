"""The few facts of an accelerate config file that a recipe must agree with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from rltoolkit.recipe.paths import candidates, expand_environment
from rltoolkit.recipe.problems import RefusedError

SHARDING = {"MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp", "NO": "none"}


@dataclass(frozen=True)
class AccelerateConfig:
    """`sharding` is none, ddp, zero1, zero2, zero3 or fsdp; `use_cpu` is what the file says, None if nothing."""

    path: Path
    sharding: str
    use_cpu: bool | None

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the whole model."""
        return self.sharding in ("zero3", "fsdp")


def read_accelerate_config(path: str, recipe_path: Path) -> AccelerateConfig:
    """Find and read `launch.accelerate_config`; raises RefusedError where it is missing or no such file."""
    places = candidates(expand_environment(path), recipe_path)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = " or ".join(dict.fromkeys(str(place) for place in places))
        remedy = f"looked for {looked}; give a file that is there"
        raise RefusedError(f"is {path!r}, which does not exist", remedy=remedy)
    try:
        content = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        problem = str(error).splitlines()[0]
        raise RefusedError(f"is {path!r}, which cannot be read as YAML ({problem})", remedy="correct it") from error
    if not isinstance(content, dict):
        raise RefusedError(f"is {path!r}, which holds no settings", expected="a file that `accelerate config` writes")
    kind = str(content.get("distributed_type", "NO")).upper()
    sharding = SHARDING.get(kind, "none")
    if kind == "DEEPSPEED":
        settings = content.get("deepspeed_config")
        stage = settings.get("zero_stage", 0) if isinstance(settings, dict) else 0
        sharding = f"zero{stage}" if stage in (1, 2, 3) else "ddp"
    use_cpu = content.get("use_cpu")
    return AccelerateConfig(found, sharding, use_cpu if isinstance(use_cpu, bool) else None)

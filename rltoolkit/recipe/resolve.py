"""A recipe as plain data, its identity, where its run goes, and whether it samples."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.schema import EngineSection, Recipe
from rltoolkit.recipe.yaml_source import KeyPath

# Where a run is written, how many processes share it, which servers answer and how an engine uses its device do not
# make it another run; the dtype of the engine's numbers does.
_NO_IDENTITY: tuple[KeyPath, ...] = (
    ("output_dir",),
    ("launch",),
    ("rollout", "servers"),
    *(("rollout", "engine", name) for name in EngineSection.model_fields if name != "dtype"),
)


def is_identity(path: KeyPath) -> bool:
    """Whether another value at this place of a recipe makes another run of it."""
    return not any(path[: len(section)] == section for section in _NO_IDENTITY)


def resolved_dict(recipe: Recipe) -> dict[str, Any]:
    """Every key with its value, defaults included, as data for YAML and JSON; loads as a recipe again."""
    return recipe.model_dump(mode="json")


def recipe_hash(recipe: Recipe) -> str:
    """Hex digest of everything that makes two runs the same run; the keys of `_NO_IDENTITY` do not count."""
    content = resolved_dict(recipe)
    for *sections, key in _NO_IDENTITY:
        inner = content
        for section in sections:
            inner = inner[section]
        del inner[key]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def samples(recipe: Recipe) -> bool:
    """Whether the run asks a rollout backend at all: a supervised one does so only to measure accuracy."""
    measured = recipe.sft is not None and recipe.sft.until_accuracy is not None
    return recipe.method != "sft" or bool(recipe.eval.tasks) or measured


def output_dir_of(loaded: LoadedRecipe) -> Path:
    """The run folder: the recipe's own, or runs/<recipe's name>[-<six digits of the hash>]."""
    recipe = loaded.recipe
    if recipe.output_dir is not None:
        return Path(recipe.output_dir).expanduser()
    changed = any(is_identity(path) for path in loaded.overrides)
    suffix = f"-{recipe_hash(recipe)[:6]}" if changed else ""
    return Path("runs") / f"{loaded.path.stem}{suffix}"

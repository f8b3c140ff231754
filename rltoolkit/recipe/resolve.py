"""A recipe as plain data, its identity, and where its run goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.schema import Recipe

# Where a run is written and how many processes share it do not make it another run.
_NO_IDENTITY = ("output_dir", "launch")


def resolved_dict(recipe: Recipe) -> dict[str, Any]:
    """Every key with its value, defaults included, as data for YAML and JSON; loads as a recipe again."""
    return recipe.model_dump(mode="json")


def recipe_hash(recipe: Recipe) -> str:
    """Hex digest of everything that makes two runs the same run; `output_dir` and `launch` do not count."""
    content = {key: value for key, value in resolved_dict(recipe).items() if key not in _NO_IDENTITY}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def output_dir_of(loaded: LoadedRecipe) -> Path:
    """The run folder: the recipe's own, or runs/<recipe's name>[-<six digits of the hash>]."""
    recipe = loaded.recipe
    if recipe.output_dir is not None:
        return Path(recipe.output_dir).expanduser()
    changed = any(path[0] not in _NO_IDENTITY for path in loaded.overrides)
    suffix = f"-{recipe_hash(recipe)[:6]}" if changed else ""
    return Path("runs") / f"{loaded.path.stem}{suffix}"

"""Paths in a recipe: what counts as local, where it is looked for, and environment variables in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rltoolkit.recipe.problems import RefusedError

DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
EMBEDDED_PREFIX = "embedded:"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}")


def expand_environment(path: str, environ: Mapping[str, str] | None = None) -> str:
    """Replace ${NAME} and ${NAME:-default}.

    An unset or empty variable takes the default; raises RefusedError where there is none.
    """
    known = os.environ if environ is None else environ

    def value(match: re.Match[str]) -> str:
        found = known.get(match["name"]) or match["default"]
        if found is None:
            name = match["name"]
            raise RefusedError(
                f"is {path!r}, and {name} is not set in the environment",
                remedy=f"set {name}, or write ${{{name}:-a default}}",
            )
        return found

    return _VARIABLE.sub(value, path)


def is_embedded(path: str) -> bool:
    """True for the worlds and models that are made on the spot, such as embedded:countdown."""
    return path.startswith(EMBEDDED_PREFIX)


def looks_local(path: str, suffixes: tuple[str, ...] = DATA_SUFFIXES) -> bool:
    """True for a file or folder here: it ends like one, or starts with /, ./, ../ or ~. Else a hub name."""
    return path.endswith(suffixes) or path.startswith(("./", "../", "/", "~")) or path in (".", "..")


def candidates(path: str, recipe_path: Path) -> list[Path]:
    """Where a recipe's local path is looked for: the recipe's folder, then the working directory."""
    wanted = Path(path).expanduser()
    if wanted.is_absolute():
        return [wanted]
    return [recipe_path.parent / wanted, Path.cwd() / wanted]


def resolve_data_path(path: str, recipe_path: Path | str) -> Path | str:
    """Where data or a model lies: an existing Path, or the text itself for a hub name or an embedded world.

    Raises RefusedError for a local file or folder that is not there, and for an environment variable that
    is not set.
    """
    expanded = expand_environment(path)
    if is_embedded(expanded):
        return expanded
    places = candidates(expanded, Path(recipe_path))
    for place in places:
        if place.exists():
            return place
    if looks_local(expanded):
        looked = " or ".join(dict.fromkeys(str(place) for place in places))
        raise RefusedError(
            f"is {path!r}, which does not exist", remedy=f"looked for {looked}; give a file that is there"
        )
    return expanded

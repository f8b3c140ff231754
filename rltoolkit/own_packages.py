"""Are the packages `eval` and `reward_models` that Python would import really ours? A question asked first of all.

Their names are plain words: a folder of the same name in the working directory hides them. Nothing of ours is
imported here, so that the question can be asked first.
"""

import importlib.util
import sys
from pathlib import Path

__all__ = ["hidden_by_folder", "hidden_packages"]

OURS = ("eval", "reward_models")
HOME = Path(__file__).resolve().parent.parent


def hidden_packages(home: Path = HOME) -> str | None:
    """One sentence with both paths if another package would be imported in place of one of ours, else None."""
    for name in OURS:
        loaded = sys.modules.get(name)
        spec = getattr(loaded, "__spec__", None) if loaded is not None else importlib.util.find_spec(name)
        found = _folder_of(spec)
        if found != home / name:
            return _sentence(name, found, home)
    return None


def hidden_by_folder(folder: Path, home: Path = HOME) -> str | None:
    """The same for a `python -m` that is started in `folder`, which Python searches first."""
    for name in OURS:
        package = folder / name
        for found in (package if (package / "__init__.py").is_file() else None, folder / f"{name}.py"):
            if found is not None and found.exists() and found.resolve() != home / name:
                return _sentence(name, found.resolve(), home)
    return None


def _sentence(name: str, found: Path | None, home: Path) -> str:
    shown = "not there at all" if found is None else f"the one in {found}"
    return (
        f"the package {name} that Python would import is {shown}, not ours in {home / name}; "
        "start from another folder, or rename what hides it"
    )


def _folder_of(spec: object) -> Path | None:
    places = getattr(spec, "submodule_search_locations", None)
    if places:
        return Path(next(iter(places))).resolve()
    origin = getattr(spec, "origin", None)
    return Path(origin).resolve() if origin else None

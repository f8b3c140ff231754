"""What RLSP remembers between rollouts beside weights and optimiser: a JSON file in every checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rltoolkit.errors import ModelError

__all__ = ["STATE_FILE", "Remembering", "load_state", "save_state"]

STATE_FILE = "rlsp_state.json"


class Remembering(Protocol):
    """A part of the trainer whose state belongs into a checkpoint; the same on every rank."""

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def save_state(folder: Path, parts: Mapping[str, Remembering]) -> None:
    """Write the state of all parts into a checkpoint folder."""
    states = {name: part.state_dict() for name, part in parts.items()}
    (folder / STATE_FILE).write_text(json.dumps(states, indent=1) + "\n")


def load_state(folder: Path, parts: Mapping[str, Remembering]) -> None:
    """Give every part what `save_state` wrote; raises ModelError where the file lacks one.

    A checkpoint without the file is fine where there is nothing to remember.
    """
    if not parts:
        return
    path = folder / STATE_FILE
    states = json.loads(path.read_text()) if path.is_file() else {}
    for name, part in parts.items():
        if name not in states:
            raise ModelError(
                f"{path} has no state of {name!r}; the checkpoint is of a run with other settings: continue with the "
                "recipe that it was made by, or start in a new folder"
            )
        part.load_state_dict(states[name])

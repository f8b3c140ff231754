"""What RLSP remembers between rollouts beside weights and optimiser: a JSON file in every checkpoint."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rltoolkit.errors import ModelError

__all__ = ["STATE_FILE", "Remembering", "load_state", "save_state"]

STATE_FILE = "rlsp_state.json"

MAY_BEGIN_ANEW = ("hacking_alarm", "unscorable_rollouts")
"""Parts that watch training and do not steer it: a checkpoint without them is resumed all the same."""

logger = logging.getLogger(__name__)


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
    """Give every part what `save_state` wrote; parts that only watch begin anew where it wrote nothing of them.

    Raises ModelError where the state of a part that steers training is missing.
    """
    path = folder / STATE_FILE
    states = json.loads(path.read_text()) if path.is_file() else {}
    missing = [name for name in parts if name not in states]
    steering = [name for name in missing if name not in MAY_BEGIN_ANEW]
    says = f"{path} has no state of" if path.is_file() else f"{path} does not exist, so there is no state of"
    if steering:
        why = "of a run with other settings" if path.is_file() else "one with save_only_model, or of an older version"
        raise ModelError(
            f"{says} {', '.join(map(repr, steering))}, which steers training; the checkpoint is {why}: continue with "
            "the settings that it was made by, or start in a new folder"
        )
    if missing:
        logger.warning("%s %s, which only watches; it begins anew", says, ", ".join(map(repr, missing)))
    for name in parts.keys() - set(missing):
        parts[name].load_state_dict(states[name])

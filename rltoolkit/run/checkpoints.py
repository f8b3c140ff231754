"""Which checkpoints of a transformers Trainer can be resumed from.

The Trainer writes a folder `checkpoint-N` file by file: weights, optimizer, scheduler, random states, and
`trainer_state.json` last (transformers 5.17, `Trainer._save_checkpoint`). A process that dies on the way
leaves a folder that must count as absent; so must one that a power cut or a half-done deletion left with
short files.
"""

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_RANK_STATE = re.compile(r"rng_state_(\d+)\.pth")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the complete `checkpoint-N` with the highest N directly under `folder`, or None."""
    if not folder.is_dir():
        return None
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return next((path for _, path in sorted(numbered, reverse=True) if is_complete(path)), None)


def checkpoint_step(checkpoint: Path) -> int:
    """Return N of a folder `checkpoint-N`; another name raises ValueError."""
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"{checkpoint} is not named checkpoint-N")
    return int(match[1])


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that resuming needs is there in full; sizes are checked, weights are not read."""
    return (
        _state_matches(checkpoint)
        and _has_weights(checkpoint)
        and all(_read_json(path) is not None for path in checkpoint.glob("*.json"))
        and all(_safetensors_is_whole(path) for path in checkpoint.rglob("*.safetensors"))
        and all(map(zipfile.is_zipfile, [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]))
        and _random_states_of_all_ranks(checkpoint)
    )


def _state_matches(checkpoint: Path) -> bool:
    state = _read_json(checkpoint / STATE_FILE)
    return isinstance(state, dict) and state.get("global_step") == checkpoint_step(checkpoint)


def _has_weights(checkpoint: Path) -> bool:
    """A model or adapter in one file, all shards of an index, or a sharded folder (FSDP, DeepSpeed)."""
    for index_path in checkpoint.glob("*.index.json"):
        index = _read_json(index_path)
        if not isinstance(index, dict):
            return False
        if not all((checkpoint / shard).is_file() for shard in set(index.get("weight_map", {}).values())):
            return False
    single = any(checkpoint.glob("*.safetensors")) or any(checkpoint.glob("pytorch_model*"))
    return single or any(checkpoint.glob("*/adapter_model.*")) or any(checkpoint.glob("global_step*"))


def _safetensors_is_whole(path: Path) -> bool:
    """Compare the file's size with what its header promises: 8 bytes of length, header, tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return False
        (header_bytes,) = struct.unpack("<Q", prefix)
        if 8 + header_bytes > size:
            return False
        try:
            header = json.loads(file.read(header_bytes))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(size == 8 + header_bytes + max(ends, default=0))


def _random_states_of_all_ranks(checkpoint: Path) -> bool:
    """With several processes each rank writes its own random state; a gap means one is not written yet.

    Ranks do not wait for each other, so rank 0's `trainer_state.json` can exist before a neighbour's file
    does.
    """
    ranks = sorted(int(match[1]) for path in checkpoint.iterdir() if (match := _RANK_STATE.fullmatch(path.name)))
    return not ranks or (len(ranks) > 1 and ranks == list(range(len(ranks))))


def _read_json(path: Path) -> Any:
    """Return the parsed file, or None if it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

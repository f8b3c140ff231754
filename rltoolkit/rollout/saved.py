"""Saved models by folder or hub name: where their files lie, and what an adapter stands on."""

import json
from pathlib import Path

from rltoolkit.errors import ModelError

__all__ = ["adapter_base", "base_folder", "local_folder"]

MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
"""What of a hub repository a sampler reads."""


def adapter_base(folder: Path) -> str | None:
    """Folder or hub name of the model that a saved adapter belongs to; None for the folder of a whole model."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{path} does not say which model the adapter belongs to; set base_model_name_or_path there")
    return str(base)


def base_folder(folder: Path) -> Path:
    """The folder of the whole model below a saved adapter; a whole model's own. Raises ModelError."""
    base = adapter_base(folder)
    if base is None:
        return folder
    try:
        return local_folder(base)
    except ModelError as error:
        raise ModelError(
            f"the adapter {folder} belongs to the base model {base!r}: {error}; or correct base_model_name_or_path in "
            "its adapter_config.json, or give the whole model, merged"
        ) from error


def local_folder(name_or_path: str | Path) -> Path:
    """The absolute folder of a model: its own, or where the hub's cache keeps it, fetched if need be.

    vLLM and its servers read weights from folders. Raises ModelError for what is no folder and cannot become one.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder.absolute()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=list(MODEL_FILES)))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name_or_path} is no folder, and the hub does not give one for it ({type(error).__name__}); vLLM reads "
            "weights from a folder: give one, or a hub name that is in the cache or can be reached"
        ) from error

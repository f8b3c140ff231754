"""From a model folder to a backend that samples from it."""

from pathlib import Path
from typing import TYPE_CHECKING

from rltoolkit.errors import ModelError, RolloutError
from rltoolkit.rollout.transformers_backend import BATCH_TOKENS, TransformersBackend, end_token_ids
from rltoolkit.rollout.weights import load_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["load_transformers_backend"]


def load_transformers_backend(
    name_or_path: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    dtype: str = "auto",
    device: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> TransformersBackend:
    """Load a causal language model and return a backend on it.

    `dtype` "auto" is the one it was saved in; `device` None is a GPU if there is one, else the CPU. Raises
    ModelError if there is no such model, if weights are missing, or if the device is not there.
    """
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device is {device}, but no GPU is visible here; use device cpu")
    try:
        model = load_whole(name_or_path, dtype=dtype, local_files_only=False)
    except RolloutError as error:
        raise ModelError(str(error)) from error
    eos = end_token_ids(model, tokenizer)
    return TransformersBackend(
        model.to(device).eval(), eos_token_ids=eos, pad_token_id=tokenizer.pad_token_id, batch_tokens=batch_tokens
    )

"""Models and tokenizers from a folder or a hub name, put on a device, with no part made up."""

from __future__ import annotations

from typing import Any

from reward_models.errors import VerifierError


def load_model(auto_class: str, name_or_path: str, *, device: str | None, dtype: Any) -> Any:
    """Load with one of transformers' auto classes; weights that the checkpoint lacks are an error, not random.

    `device=None` is the current GPU where there is one, else the CPU; `dtype=None` is that of the checkpoint.
    """
    import torch
    import transformers

    model, info = getattr(transformers, auto_class).from_pretrained(
        name_or_path, dtype="auto" if dtype is None else dtype, output_loading_info=True
    )
    if info["missing_keys"]:
        raise VerifierError(
            f"{name_or_path} lacks the weights {sorted(info['missing_keys'])[:5]} of {type(model).__name__}, which "
            f"would be random; give a checkpoint that was trained as {auto_class.removeprefix('AutoModelFor')}"
        )
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def load_tokenizer(name_or_path: str) -> Any:
    """Load the tokenizer of a model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name_or_path)

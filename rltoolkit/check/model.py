"""The model of a recipe, as far as it can be known without loading a weight: its shape and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltoolkit.check.model_shape import ModelShape
from rltoolkit.data.tokenizer import load_tokenizer
from rltoolkit.errors import ModelError
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.paths import is_embedded, resolve_data_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model; None for what could not be reached. `notes` says why."""

    place: str
    shape: ModelShape | None
    stored_dtype: str | None
    tokenizer: PreTrainedTokenizerBase | None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The facts in words."""
        text = [f"model: {self.place}"]
        if self.shape is not None:
            text.append(f"parameters: {self.shape.parameters:,}".replace(",", " "))
        if self.tokenizer is not None:
            template = "with" if self.tokenizer.chat_template else "without"
            text.append(f"tokenizer: {len(self.tokenizer)} tokens, {template} chat template")
        return text


def model_facts(
    name_or_path: str, loaded: LoadedRecipe, *, look_on_hub: bool = True, with_tokenizer: bool = True
) -> ModelFacts:
    """Look at a model's config and tokenizer; raises ModelError for a local folder that cannot serve.

    A hub name that cannot be reached, or is not looked for, is no error here: it leaves a note. A critic's model is
    looked at without a tokenizer: it reads the policy's tokens.
    """
    place = resolve_data_path(name_or_path, loaded.path)
    if isinstance(place, Path) or is_embedded(place):
        config = _embedded_config() if isinstance(place, str) else None
        shape, stored = _shape_of(place, config)
        return ModelFacts(str(place), shape, stored, load_tokenizer(str(place)) if with_tokenizer else None)
    notes = []
    config, tokenizer = _hub_config(place) if look_on_hub else None, None
    if config is None:
        notes.append(f"model {place} is not verified: the hub cannot be reached from here")
    elif with_tokenizer:
        try:
            tokenizer = load_tokenizer(place)
        except ModelError:
            notes.append(f"the tokenizer of {place} is not verified: the hub cannot be reached from here")
    shape, stored = (None, None) if config is None else _shape_of(place, config)
    return ModelFacts(place, shape, stored, tokenizer, tuple(notes))


def _shape_of(place: Path | str, config: Mapping[str, Any] | None) -> tuple[ModelShape | None, str | None]:
    """The shape and the dtype of the stored weights; (None, None) for families whose memory is not counted."""
    if config is None:
        config = ModelShape.read_config(Path(place))
    stored = config.get("dtype") or config.get("torch_dtype")
    try:
        return ModelShape.from_config(config), str(stored).removeprefix("torch.") if stored else None
    except ModelError:
        return None, None


def _embedded_config() -> dict[str, Any]:
    from rltoolkit.embedded.models import countdown_model, countdown_tokenizer

    config: dict[str, Any] = countdown_model(0, countdown_tokenizer()).config.to_dict()
    return config


def _hub_config(name: str) -> dict[str, Any] | None:
    """The config of a hub model, None if it is neither cached nor reachable."""
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError):
        return None
    return config

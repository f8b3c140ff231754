"""The network under `ValueCritic`: a transformer backbone with a scalar head, and the loss that trains it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reward_models.errors import VerifierError
from reward_models.local_models.forward import TokenBatch, unwrapped
from reward_models.local_models.loading import load_model
from reward_models.value_head import ValueHead

Squash = Literal["none", "tanh", "sigmoid"]
RANGES: dict[Squash, tuple[float, float]] = {
    "none": (float("-inf"), float("inf")),
    "tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
}

WEIGHTS_FILE = "model.safetensors"
SETTINGS_FILE = "critic.json"
HEAD_KEY = "head.linear.weight"


class ValueModel(nn.Module):
    """A value for every position: position t has seen the tokens up to t.

    The backbone keeps its dtype; the head computes in float32 whatever that is. `squash` maps values into (-1, 1)
    ("tanh") or (0, 1) ("sigmoid"); "none" leaves them unbounded. The layout on disk is that of RLSP's critic, whose
    checkpoints can be read.
    """

    def __init__(self, backbone: Any, *, squash: Squash = "none", seed: int = 0) -> None:
        super().__init__()
        if squash not in get_args(Squash):
            raise VerifierError(f"squash is {squash!r}; expected one of {get_args(Squash)}")
        self.backbone = backbone
        self.squash: Squash = squash
        generator = torch.Generator().manual_seed(seed)
        width = backbone.config.get_text_config().hidden_size
        self.head = ValueHead(width, dtype=torch.float32, generator=generator)
        self.head.to(next(backbone.parameters()).device)

    @classmethod
    def from_causal_lm(cls, model: Any, *, squash: Squash = "none", seed: int = 0) -> ValueModel:
        """Put a fresh head on the backbone of a causal language model; the backbone is shared, not copied.

        Adapters of PEFT stay in place; merge them before `save`, which writes a plain backbone.
        """
        return cls(unwrapped(model).base_model, squash=squash, seed=seed)

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        *,
        squash: Squash = "none",
        seed: int = 0,
        device: str | None = None,
        dtype: Any = None,
    ) -> ValueModel:
        """Put a fresh head on a backbone from a folder or a hub name.

        `device=None` is the current GPU where there is one, else the CPU; `dtype=None` is that of the checkpoint.
        """
        return cls(load_model("AutoModel", name_or_path, device=device, dtype=dtype), squash=squash, seed=seed)

    @classmethod
    def load(cls, folder: str | Path) -> ValueModel:
        """Read what `save` wrote, in the dtypes that were saved; RLSP's critics, too, with values not squashed.

        Raises:
            VerifierError: there is no critic in the folder, or its parts do not fit each other.
        """
        from transformers import AutoConfig, AutoModel

        path = Path(folder)
        if not (path / WEIGHTS_FILE).is_file():
            raise VerifierError(f"{path / WEIGHTS_FILE} does not exist; give the folder of a saved critic")
        weights = load_file(path / WEIGHTS_FILE)
        if HEAD_KEY not in weights:
            raise VerifierError(
                f"{path / WEIGHTS_FILE} has no {HEAD_KEY}: it is a model without a value head. "
                "Put a fresh head on it with ValueModel.from_backbone"
            )
        dtypes = {tensor.dtype for name, tensor in weights.items() if name != HEAD_KEY and tensor.is_floating_point()}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        model = cls(AutoModel.from_config(AutoConfig.from_pretrained(path), dtype=dtype), squash=saved_squash(path))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise VerifierError(f"{path / WEIGHTS_FILE} does not fit the config beside it: {error}") from error
        return model

    def save(self, folder: str | Path) -> None:
        """Write weights, the backbone's config and the settings into one folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.backbone.config.save_pretrained(path)
        (path / SETTINGS_FILE).write_text(json.dumps({"squash": self.squash}) + "\n")
        # clones: safetensors refuses tensors that share memory, as tied weights do
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.state_dict().items()},
            path / WEIGHTS_FILE,
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) ids and mask -> (B, T) values in float32."""
        return self._valued(self._hidden(input_ids, attention_mask))

    def last_values(self, batch: TokenBatch) -> Tensor:
        """(B,) values in float32, each after the last real token of its row."""
        hidden = self._hidden(batch.ids, batch.mask)
        rows = torch.arange(len(hidden), device=hidden.device)
        return self._valued(hidden[rows, batch.last][:, None])[:, 0]

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _valued(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.head(hidden).float()
        match self.squash:
            case "tanh":
                return torch.tanh(values)
            case "sigmoid":
                return torch.sigmoid(values)
            case "none":
                return values


def saved_squash(folder: Path) -> Squash:
    """Return the squashing that `save` wrote down; RLSP's critics have none and no such file.

    Raises:
        VerifierError: the file says none that is known here.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return "none"
    try:
        settings = json.loads(file.read_text())
    except ValueError:
        settings = None
    found = settings.get("squash") if isinstance(settings, dict) else None
    for squash in RANGES:
        if found == squash:
            return squash
    raise VerifierError(f"{file} says squash {found!r}; expected one of {tuple(RANGES)}")


def value_loss(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error (v - target)^2 over the positions that count.

    Shapes are equal, (B, T) or (B,); mask is 1 where a position counts (the end of each prefix, with the outcome of
    its trajectory as target, in the range of the values). What is masked out may hold anything, NaN too. Computed in
    float32 at least. Source: methods, AlphaLLM-CPL §2.4 and LiteSearch §2.6; its minimiser is the expected outcome.

    Raises:
        VerifierError: shapes differ, or no position counts.
    """
    if not values.shape == targets.shape == mask.shape:
        raise VerifierError(
            f"values {tuple(values.shape)}, targets {tuple(targets.shape)} and mask {tuple(mask.shape)} differ in "
            "shape; give one target and one mask entry per value"
        )
    counts = mask.bool()
    if not bool(counts.any()):
        raise VerifierError("the mask counts no position; leave such a batch out")
    dtype = torch.promote_types(torch.promote_types(values.dtype, targets.dtype), torch.float32)
    return (values[counts].to(dtype) - targets[counts].to(dtype)).square().mean()

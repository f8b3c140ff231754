"""The numbers of a decoder-only model that decide how much memory it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltoolkit.errors import ModelError

# Families whose layers are those counted here: gated MLP, rotary attention, two norms.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "smollm3")
_QKV_BIAS = ("qwen2",)
_QK_NORM = ("qwen3",)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Llama-like decoder; `bytes`-free, so that one shape serves every dtype."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a config.json (or `config.to_dict()`); raises ModelError for a family not counted here."""
        family = config.get("model_type")
        if family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ModelError(f"model_type is {family!r}; memory is estimated for {known} only")
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            return cls(
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                vocab=int(config["vocab_size"]),
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
                qkv_bias=family in _QKV_BIAS or bool(config.get("attention_bias", False)),
                qk_norm=family in _QK_NORM,
            )
        except KeyError as error:
            raise ModelError(
                f"the model's config has no {error.args[0]}; give a folder with a whole config.json"
            ) from error

    @staticmethod
    def read_config(folder: Path) -> dict[str, Any]:
        """`folder`/config.json as data; raises ModelError where it is missing or no JSON."""
        path = folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelError(f"{folder} holds no config.json; give the folder of a saved model") from error
        except ValueError as error:
            raise ModelError(f"{path} is no JSON ({error}); save the model again") from error
        return config

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads together; the value heads have the same."""
        return self.kv_heads * self.head_dim

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layers of one block, by module name."""
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.kv_width),
            "v_proj": (self.hidden, self.kv_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def block_parameters(self) -> int:
        """Parameters of one block."""
        count = sum(inputs * outputs for inputs, outputs in self.linear_sizes.values()) + 2 * self.hidden
        count += self.query_width + 2 * self.kv_width if self.qkv_bias else 0
        return count + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks: what quantisation and LoRA act on."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_sizes.values())

    @property
    def backbone_parameters(self) -> int:
        """Parameters without the LM head; a critic has so many, and `hidden` more."""
        return self.vocab * self.hidden + self.layers * self.block_parameters + self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the causal language model."""
        return self.backbone_parameters + (0 if self.tied_embeddings else self.vocab * self.hidden)

    def lora_parameters(self, rank: int, target_modules: str | tuple[str, ...]) -> int:
        """Parameters of LoRA adapters on the blocks' linear layers ("all-linear" or names such as q_proj)."""
        wanted = self.linear_sizes if target_modules == "all-linear" else target_modules
        sizes = [size for name, size in self.linear_sizes.items() if name in wanted]
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in sizes)

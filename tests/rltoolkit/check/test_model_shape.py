"""The parameter counts are those of transformers' own models."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from rltoolkit.check.model_shape import FAMILIES, ModelShape
from rltoolkit.errors import ModelError

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 70,
    "pad_token_id": 0,
}


def model_of(family: str, **more: object):
    config = AutoConfig.for_model(family, **SIZES, **more)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(family: str, tied: bool) -> None:
    model = model_of(family, tie_word_embeddings=tied)
    shape = ModelShape.from_config(model.config.to_dict())
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.backbone_parameters == sum(p.numel() for p in model.base_model.parameters())


@pytest.mark.parametrize("modules", ["all-linear", ("q_proj", "down_proj")])
def test_lora_parameters_are_those_of_peft(modules: str | tuple[str, ...]) -> None:
    model = model_of("llama", tie_word_embeddings=False)
    shape = ModelShape.from_config(model.config.to_dict())
    wanted = modules if isinstance(modules, str) else list(modules)
    adapted = get_peft_model(model, LoraConfig(r=5, target_modules=wanted, task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert shape.lora_parameters(5, modules) == trained


def test_a_family_that_is_not_counted_is_refused() -> None:
    with pytest.raises(ModelError, match="model_type is 'mixtral'; memory is estimated for llama"):
        ModelShape.from_config({"model_type": "mixtral"})
    with pytest.raises(ModelError, match="has no intermediate_size"):
        ModelShape.from_config({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2})


def test_a_folder_without_a_readable_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        ModelShape.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        ModelShape.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert ModelShape.read_config(tmp_path) == {"model_type": "llama"}

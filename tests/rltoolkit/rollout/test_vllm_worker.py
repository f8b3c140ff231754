"""The worker's checks on a stand-in for vLLM's worker; with vLLM itself: test_vllm_backend.py."""

import ast
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from rltoolkit.rollout.vllm_worker import rltoolkit_vllm_worker as worker_module
from rltoolkit.rollout.vllm_worker.rltoolkit_vllm_worker import (
    PolicyWorker,
    folder_digest,
    load_weights,
    weight_files,
)
from rltoolkit.rollout.weights import write_policy


class FusedModel(nn.Module):
    """Loads as vLLM does: q, k and v of the checkpoint into one parameter, without a word about missing parts."""

    def __init__(self, state):
        super().__init__()
        self.loads = []
        for name, tensor in state.items():
            self._place(name, tensor)

    def _place(self, name, tensor):
        for part in ("q_proj", "k_proj", "v_proj"):
            name = name.replace(part, "qkv_proj")
        self.register_parameter(name.replace(".", "-"), nn.Parameter(tensor.detach().clone(), requires_grad=False))
        return name

    def named_parameters(self):
        return ((name.replace("-", "."), p) for name, p in super().named_parameters())

    def load_weights(self, weights):
        reached = {self._place(name, tensor) for name, tensor in weights}
        self.loads.append(reached)
        return reached


def _worker(folder, model):
    runner = SimpleNamespace(get_model=lambda: model)  # whose own reload_weights lacks the context of vLLM's config
    runner.model_config = SimpleNamespace(
        model=str(folder), revision=None, hf_config=LlamaConfig.from_pretrained(folder)
    )
    worker = PolicyWorker()
    worker.model_runner = runner
    worker.reload_weights = lambda weights_iterator: model.load_weights(weights_iterator)
    return worker


@pytest.fixture
def served(tiny_model, tmp_path):
    """Return a stand-in worker that was started with a policy, and the folder of another one of its kind."""
    write_policy(tiny_model(seed=0, dtype=torch.float32), tmp_path / "started")
    write_policy(tiny_model(seed=1, dtype=torch.float32), tmp_path / "next")
    model = FusedModel(tiny_model(seed=0, dtype=torch.float32).state_dict())
    return _worker(tmp_path / "started", model), model, tmp_path / "next"


def _edit(folder, change):
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def test_a_whole_checkpoint_is_loaded(served):
    worker, model, folder = served
    said = worker.rltoolkit_load(str(folder))
    assert said == {"loaded": len(dict(model.named_parameters())), "digest": folder_digest(folder)}
    assert len(model.loads) == 1
    assert "load_weights" not in vars(model)  # the recorder is taken off again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.layers.1.self_attn.k_proj.weight"), r"k_proj.weight: found none, expected \(16, 32\)"),
        (lambda s: s.pop("model.norm.weight"), r"1 differ, for instance model.norm.weight: found none"),
        (lambda s: s.update({"critic.head.weight": torch.ones(1)}), r"critic.head.weight: found \(1,\), expected none"),
        (lambda s: s.update({"lm_head.weight": torch.ones(40, 32)}), r"found \(40, 32\), expected \(32, 32\)"),
    ],
)
def test_another_set_of_weights_is_refused_before_anything_is_loaded(served, change, message):
    worker, model, folder = served
    _edit(folder, change)
    with pytest.raises(ValueError, match=message):
        worker.rltoolkit_load(str(folder))
    assert model.loads == []


def test_a_digest_is_of_the_weights_wherever_they_lie(tiny_model, tmp_path):
    digests = []
    for seed, place in ((0, "a"), (0, "b"), (1, "c")):
        write_policy(tiny_model(seed=seed), tmp_path / place)
        digests.append(folder_digest(tmp_path / place))
    assert digests[0] == digests[1] != digests[2]
    _edit(tmp_path / "b", lambda state: state.update({"lm_head.weight": state["lm_head.weight"] + 1e-6}))
    assert folder_digest(tmp_path / "b") != digests[0]


def test_what_the_worker_started_with_decides_even_after_a_reload_by_vllm_itself(served):
    worker, _, folder = served
    worker.rltoolkit_load(str(folder))
    _edit(folder, lambda s: s.pop("model.norm.weight"))
    worker.model_runner.model_config.model = str(folder)  # as vLLM's reload_weights leaves it
    with pytest.raises(ValueError, match=r"model.norm.weight: found none"):
        worker.rltoolkit_load(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 8, "head_dim": 8}, "num_attention_heads is 8, expected 4"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_parameters is .*1000000"),
        ({"rms_norm_eps": 0.01}, "rms_norm_eps is 0.01, expected 1e-06"),
        ({"model_type": "qwen2"}, "model_type is qwen2, expected llama"),
        ({"invented_next_year": 3}, "invented_next_year is 3, expected None"),
    ],
)
def test_a_config_of_another_model_is_refused(served, change, message):
    worker, model, folder = served
    worker.model_runner.model_config.hf_config.rope_parameters = {"changed": "by vLLM"}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=f"of another model: {message}"):
        worker.rltoolkit_load(str(folder))
    assert model.loads == []


def test_what_a_config_says_besides_the_model_does_not_matter(served):
    worker, _, folder = served
    config = json.loads((folder / "config.json").read_text())
    silent = {"eos_token_id": [2, 7], "dtype": "bfloat16", "use_cache": False, "attention_dropout": 0.1}
    (folder / "config.json").write_text(json.dumps(config | silent))
    assert worker.rltoolkit_load(str(folder))["loaded"]


def test_weights_that_are_not_numbers_are_an_error_after_the_load(served):
    worker, model, folder = served
    _edit(folder, lambda s: s["model.norm.weight"].fill_(math.nan))
    with pytest.raises(
        RuntimeError, match=r"1 weights of .*next .* not finite numbers, for instance model.norm.weight"
    ):
        worker.rltoolkit_load(str(folder))
    assert len(model.loads) == 1  # a load that is broken off leaves vLLM in pieces
    assert "load_weights" not in vars(model)


def test_a_parameter_that_vllm_did_not_reach_is_an_error(served):
    worker, model, folder = served
    model.register_parameter("extra", nn.Parameter(torch.ones(1)))
    model.register_parameter("layer-lora_a", nn.Parameter(torch.ones(1)))
    with pytest.raises(RuntimeError, match=r"1 parameters of the model were not loaded .* instance extra"):
        worker.rltoolkit_load(str(folder))


def test_weights_from_memory_are_checked_alike(served, tiny_model):
    worker, model, _ = served
    state = dict(tiny_model(seed=1, dtype=torch.float32).state_dict())
    assert load_weights(worker, state) == len(dict(model.named_parameters()))
    del state["model.layers.0.self_attn.v_proj.weight"]
    with pytest.raises(ValueError, match=r"the policy has other weights .*v_proj.weight: found none"):
        load_weights(worker, state)


def test_checkpoints_without_all_their_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found no model.safetensors"):
        weight_files(tmp_path)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / names[0]).touch()
    with pytest.raises(ValueError, match=f"lacks 1 of 2 weight files, first {names[1]}"):
        weight_files(tmp_path)
    (tmp_path / names[1]).touch()
    assert weight_files(tmp_path) == [tmp_path / name for name in names]


def test_the_served_model_is_described(served):
    worker, _, _ = served
    described = worker.rltoolkit_model()
    assert set(described) == set(worker_module.MODEL_FIELDS)
    assert described["architectures"] == ["LlamaForCausalLM"]
    assert (described["vocab_size"], described["hidden_size"], described["tie_word_embeddings"]) == (32, 32, False)
    json.dumps(described)


def test_tied_embeddings_under_unknown_names_are_refused_before_anything_is_loaded(tiny_model, tmp_path):
    model = tiny_model(dtype=torch.float32, tie_word_embeddings=True)
    write_policy(model, tmp_path / "started")
    stand_in = FusedModel({})
    with pytest.raises(ValueError, match="FusedModel has tied embeddings under other names"):
        _worker(tmp_path / "started", stand_in).rltoolkit_load(str(tmp_path / "started"))
    assert stand_in.loads == []


def test_it_runs_without_the_toolkit_on_an_older_python():
    tree = ast.parse(Path(worker_module.__file__).read_text(), feature_version=(3, 10))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"torch", "safetensors", "huggingface_hub", "vllm"}

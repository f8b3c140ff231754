"""The sampler of an evaluation: contradictions, and what vLLM and its servers are given."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from eval.choice import SamplerChoice
from eval.sampler import open_sampler
from rltoolkit.embedded.models import countdown_tokenizer, save_countdown_model
from rltoolkit.errors import ModelError, RolloutError
from rltoolkit.rollout.transformers_backend import TransformersBackend

URL = ("http://127.0.0.1:8000",)


class StandIn:
    made = ()

    def __init__(self, *arguments, **options):
        self.arguments, self.options, self.calls = arguments, options, []
        StandIn.made = (self,)

    def sync(self, source, version):
        self.calls.append((str(source), version))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.append("closed")


@pytest.fixture
def stand_ins(monkeypatch):
    servers, engine = ModuleType("servers"), ModuleType("engine")
    servers.VLLMServerBackend, engine.VLLMBackend = StandIn, StandIn
    servers.ServerOptions = lambda **options: SimpleNamespace(**options)
    monkeypatch.setitem(sys.modules, "rltoolkit.rollout.servers.backend", servers)
    monkeypatch.setitem(sys.modules, "rltoolkit.rollout.vllm_backend", engine)


@pytest.fixture(scope="module")
def tokenizer():
    return countdown_tokenizer()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_countdown_model(folder, 0)
    return folder


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backend": "trl-vllm"}, "give one of transformers, vllm, vllm-server"),
        ({"backend": "vllm-server"}, "give --url, as `rltoolkit serve` prints"),
        ({"backend": "vllm", "urls": URL}, "--url is for backend vllm-server"),
        ({"urls": URL}, "the backend is transformers"),
        ({"backend": "vllm-server", "urls": ("127.0.0.1:1",)}, "--url names '127.0.0.1:1' without http://"),
        ({"backend": "vllm-server", "urls": URL * 2}, "--url names 'http://127.0.0.1:8000' twice"),
        ({"wait_s": 3.0}, "--wait is for backend vllm-server"),
        ({"backend": "vllm", "device": "cpu"}, "remove --device"),
        ({"backend": "vllm-server", "urls": URL, "device": "cuda"}, "remove --device"),
        ({"backend": "vllm-server", "urls": URL, "dtype": "float32"}, "remove --dtype"),
    ],
)
def test_settings_without_effect_are_refused(options, told):
    with pytest.raises(RolloutError, match=told):
        SamplerChoice(**options)


def test_transformers_keeps_dtype_and_device(model_folder, tokenizer):
    choice = SamplerChoice(dtype="bfloat16", device="cpu")
    with open_sampler(choice, model_folder, tokenizer) as backend:
        assert isinstance(backend, TransformersBackend)
        assert str(backend.model.dtype) == "torch.bfloat16"


def test_servers_get_the_folder_by_sync(stand_ins, model_folder, tokenizer):
    with open_sampler(SamplerChoice("vllm-server", URL), model_folder, tokenizer) as backend:
        assert vars(backend.arguments[0]) == {"urls": URL, "wait_s": 10.0}
        assert backend.options == {"eos_token_ids": (2,)}
        assert backend.calls == [(str(model_folder), 0)]
    assert backend.calls[-1] == "closed"


def test_vllm_starts_on_the_folder_with_the_whole_gpu(stand_ins, model_folder, tokenizer):
    with open_sampler(SamplerChoice("vllm", dtype="float32"), model_folder, tokenizer, seed=5) as backend:
        assert backend.arguments == (model_folder,)
        engine = backend.options["engine"]
        assert (engine.dtype, engine.gpu_memory_utilization, engine.sleep, engine.lora_rank) == (
            "float32", 0.9, False, None,
        )  # fmt: skip
        assert backend.options["seed"] == 5


def test_vllm_starts_on_the_model_that_an_adapter_belongs_to(stand_ins, model_folder, tokenizer, tmp_path):
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(model_folder)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with open_sampler(SamplerChoice("vllm"), tmp_path, tokenizer) as backend:
        assert backend.arguments == (model_folder,)
        assert backend.options["engine"].lora_rank == 4
        assert backend.calls == [(str(model_folder), 0), (str(tmp_path), 0)]


def test_a_failing_sync_closes_the_backend(stand_ins, model_folder, tokenizer, monkeypatch):
    def broken(self, source, version):
        raise RolloutError("refused")

    monkeypatch.setattr(StandIn, "sync", broken)
    with (
        pytest.raises(RolloutError, match="refused"),
        open_sampler(SamplerChoice("vllm-server", URL), model_folder, tokenizer),
    ):
        pass
    assert StandIn.made[0].calls == ["closed"]


def test_a_hub_name_needs_a_folder(stand_ins, tokenizer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with (
        pytest.raises(ModelError, match="vLLM reads weights from a folder"),
        open_sampler(SamplerChoice("vllm-server", URL), "nobody/nothing-of-this-name", tokenizer),
    ):
        pass

"""From a recipe's rollout section to a sampler, with stand-ins for vLLM and its servers."""

import json
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer, save_countdown_model
from rltoolkit.errors import ModelError, RolloutError
from rltoolkit.recipe import Recipe
from rltoolkit.rollout.choose import (
    Rollouts,
    engine_options,
    saved_end_token_ids,
    server_options,
    sync_saved,
)
from rltoolkit.rollout.saved import adapter_base, base_folder, local_folder
from rltoolkit.rollout.transformers_backend import TransformersBackend, end_token_ids
from rltoolkit.types import SamplingParams


class StandIn:
    """A backend that writes down what is asked of it."""

    made = ()

    def __init__(self, *arguments, **options):
        self.arguments, self.options, self.calls = arguments, options, []
        type(self).made = (*type(self).made, self)
        if (weights_dir := options.get("weights_dir")) is not None:
            weights_dir.mkdir(parents=True)

    def sync(self, source, version):
        self.calls.append(("sync", source, version))

    def look(self, source):
        self.calls.append(("look", source))

    def __getattr__(self, name):
        if name not in ("wake", "sleep", "close"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)


@dataclass(frozen=True)
class Options:
    urls: tuple
    request_timeout_s: float
    retries: int
    wait_s: float
    health_timeout_s: float
    concurrency: int


@pytest.fixture
def made(monkeypatch):
    """The stand-ins made, in place of vLLM in process and of the client of its servers."""
    kind = type("Made", (StandIn,), {})
    servers, engine = ModuleType("servers"), ModuleType("engine")
    servers.VLLMServerBackend, servers.ServerOptions, engine.VLLMBackend = kind, Options, kind
    monkeypatch.setitem(sys.modules, "rltoolkit.rollout.servers.backend", servers)
    monkeypatch.setitem(sys.modules, "rltoolkit.rollout.vllm_backend", engine)
    return lambda: kind.made


@pytest.fixture(scope="module")
def tokenizer():
    return countdown_tokenizer()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_countdown_model(folder, 0)
    return folder


def recipe(backend, **sections):
    rollout = {"backend": backend, **sections.pop("rollout", {})}
    asked = {"tasks": sections.pop("tasks", ["countdown"])}
    model = {"name_or_path": "m", **sections.pop("model", {})}
    return Recipe(method="sft", model=model, rollout=rollout, eval=asked)


@pytest.fixture
def rollouts(tmp_path, tokenizer, model_folder):
    def make(backend, **options):
        loaded = []

        def load(name):
            loaded.append(name)
            return countdown_model(0, tokenizer)

        is_main = options.pop("is_main", True)
        chosen = Rollouts(
            recipe(backend, **options), tokenizer, start_model=str(model_folder), folder=tmp_path / "run", load=load,
            is_main=is_main,
        )  # fmt: skip
        return chosen, loaded

    return make


@pytest.mark.parametrize("backend", ["transformers", "trl-vllm"])
def test_the_module_itself_samples(rollouts, tokenizer, made, backend):
    chosen, loaded = rollouts(backend)
    policy = countdown_model(1, tokenizer)
    chosen.open()
    with chosen.sampler(policy, 7) as sampler:
        assert sampler.model is policy
        samples = sampler.generate([[1, 5]], 2, SamplingParams(max_new_tokens=3), [0])
        assert {sample.version for sample in samples[0]} == {7}
    with pytest.raises(RolloutError, match="asleep"):
        sampler.generate([[1, 5]], 1, SamplingParams(), [0])
    assert isinstance(chosen.backend_for(policy), TransformersBackend)
    assert (chosen.samples_here, loaded, made()) == (True, [], ())


def test_a_saved_policy_is_loaded_where_its_module_samples(rollouts, model_folder):
    chosen, loaded = rollouts("transformers")
    with chosen.sampler(model_folder, 1) as sampler:
        assert sampler.version == 1
    assert loaded == [str(model_folder)]


@pytest.mark.parametrize("backend", ["vllm", "vllm-server"])
def test_one_sampler_serves_the_whole_run_and_is_closed_at_its_end(rollouts, tokenizer, model_folder, made, backend):
    chosen, loaded = rollouts(backend)
    policy = countdown_model(1, tokenizer)
    assert made() == ()
    with chosen:
        chosen.open()
        chosen.open()
        with chosen.sampler(str(model_folder), 0) as sampler:
            pass
        with chosen.sampler(policy, 5) as again:
            pass
        assert chosen.backend_for(policy) is sampler is again
    assert made() == (sampler,)
    first = ["sleep"] if backend == "vllm" else [("look", str(model_folder))]
    assert sampler.calls == [
        *first, "wake", ("sync", model_folder, 0), "sleep", "wake", ("sync", policy, 5), "sleep", "close",
    ]  # fmt: skip
    assert (loaded, chosen.samples_here) == ([], False)
    chosen.close()
    assert sampler.calls.count("close") == 1


def test_it_is_closed_when_the_run_fails(rollouts, made):
    chosen, _ = rollouts("vllm-server")
    chosen.open()
    with pytest.raises(ValueError, match="broken"), chosen:
        raise ValueError("broken")
    assert made()[0].calls[-1] == "close"


def test_servers_that_cannot_serve_are_known_when_they_are_opened(rollouts, model_folder, made, monkeypatch):
    def refuse(self, source):
        raise RolloutError(f"another model than {source}")

    monkeypatch.setattr(StandIn, "look", refuse)
    chosen, _ = rollouts("vllm-server")
    with pytest.raises(RolloutError, match=f"another model than {model_folder}"), chosen:
        chosen.open()
    assert made()[0].calls == ["close"]


@pytest.mark.parametrize("backend", ["vllm", "vllm-server"])
def test_a_run_that_never_samples_starts_nothing(rollouts, made, backend):
    chosen, _ = rollouts(backend, tasks=[])
    with chosen:
        chosen.open()
    assert made() == ()


def test_nobody_samples_before_every_process_has_opened(rollouts, tokenizer, made):
    chosen, _ = rollouts("vllm")
    with pytest.raises(RuntimeError, match="call open"), chosen.sampler("folder", 0):
        pass


def test_the_engine_starts_from_the_start_model(rollouts, model_folder, made):
    chosen, _ = rollouts("vllm", model={"dtype": "bfloat16", "lora": {"r": 8}})
    chosen.open()
    (engine,) = made()
    assert engine.arguments == (model_folder,)
    assert engine.options["eos_token_ids"] == (2,)
    assert (engine.options["engine"].dtype, engine.options["engine"].lora_rank) == ("bfloat16", 8)


def test_weights_for_servers_lie_in_the_run_folder_and_leave_nothing(rollouts, tmp_path, made):
    left = tmp_path / "run" / "rollout" / "of-a-start-that-was-killed"
    left.mkdir(parents=True)
    chosen, _ = rollouts("vllm-server", rollout={"servers": {"urls": ["http://127.0.0.1:1"], "concurrency": 7}})
    with chosen:
        chosen.open()
        assert not left.exists()
        (client,) = made()
        assert client.options["weights_dir"] == tmp_path / "run" / "rollout"
        assert client.options["weights_dir"].is_absolute()
        assert client.arguments[0] == Options(("http://127.0.0.1:1",), 600.0, 3, 300.0, 30.0, 7)
    assert not (tmp_path / "run" / "rollout").exists()


def test_only_the_main_process_cleans_up(rollouts, tmp_path, made):
    (tmp_path / "run").mkdir()
    chosen, _ = rollouts("vllm-server", is_main=False)
    with chosen:
        chosen.open()
    assert (tmp_path / "run" / "rollout").is_dir()


def test_a_folder_for_weights_that_the_recipe_names_is_used_and_kept(rollouts, tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen, _ = rollouts("vllm-server", rollout={"servers": {"weights_dir": "seen-by-all"}})
    with chosen:
        chosen.open()
    assert made()[0].options["weights_dir"] == tmp_path / "seen-by-all"
    assert (tmp_path / "seen-by-all").is_dir()


def test_the_engine_has_the_dtype_of_the_model_unless_told():
    assert engine_options(recipe("vllm", model={"dtype": "float16"})).dtype == "float16"
    told = recipe("vllm", model={"dtype": "float16"}, rollout={"engine": {"dtype": "float32", "max_model_len": 99}})
    assert (engine_options(told).dtype, engine_options(told).max_model_len) == ("float32", 99)
    assert engine_options(told).lora_rank is None


def test_every_option_of_the_servers_arrives(made):
    section = recipe("vllm-server", rollout={"servers": {"urls": ["http://a:1", "http://b:2"], "wait_s": 4.0}})
    options = server_options(section.rollout.servers)
    assert (options.urls, options.wait_s) == (("http://a:1", "http://b:2"), 4.0)


def test_an_adapter_stands_on_the_model_it_was_trained_on(tmp_path, model_folder):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_folder)}))
    backend = StandIn()
    sync_saved(backend, str(adapter), 3)
    assert backend.calls == [("sync", model_folder, 3), ("sync", adapter, 3)]
    assert adapter_base(model_folder) is None


def test_servers_take_the_base_of_an_adapter_by_themselves(tmp_path, model_folder):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_folder)}))
    backend = StandIn()
    backend.follow = backend.close
    sync_saved(backend, tmp_path, 3)
    assert backend.calls == [("sync", tmp_path, 3)]


def test_the_base_of_an_adapter_that_is_nowhere_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    with pytest.raises(ModelError, match=r"belongs to the base model 'nobody/nothing'.*correct base_model_name"):
        base_folder(tmp_path)


def test_an_adapter_without_a_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        sync_saved(StandIn(), tmp_path, 0)


def test_a_hub_name_that_cannot_become_a_folder_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"nobody/nothing\S* is no folder.*vLLM reads weights from a folder"):
        local_folder("nobody/nothing-of-this-name")
    with pytest.raises(ModelError, match="is no folder"):
        local_folder("./no/such/folder")


def test_a_folder_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_folder("model") == tmp_path / "model"


def test_ends_of_a_response_are_known_without_the_weights(tokenizer, model_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    assert saved_end_token_ids(model_folder, tokenizer) == end_token_ids(model, tokenizer)
    model.generation_config.eos_token_id = [2, 7]
    model.save_pretrained(tmp_path / "two")
    assert saved_end_token_ids(tmp_path / "two", tokenizer) == (2, 7)
    (tmp_path / "two" / "generation_config.json").unlink()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    assert saved_end_token_ids(tmp_path / "two", tokenizer) == end_token_ids(again, tokenizer)

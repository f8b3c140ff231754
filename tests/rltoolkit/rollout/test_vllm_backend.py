"""vLLM in this process. What is marked vllm_engine runs where vLLM is installed: `make test-vllm`."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.errors import RolloutError
from rltoolkit.rollout.engine import EngineOptions
from rltoolkit.rollout.vllm_backend import VLLMBackend
from rltoolkit.rollout.vllm_engine import start_engine
from rltoolkit.rollout.weights import load_policy, write_adapter, write_policy
from rltoolkit.types import SamplingParams, StopReason

EOS = 2
PROMPT = [1, 5, 6, 7, 20, 9]
PARAMS = SamplingParams(max_new_tokens=24)
ENGINE = EngineOptions(enforce_eager=True)

engine_test = [
    pytest.mark.vllm_engine,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"),
]


def _model(seed, *, tied=False, context=1024, **shape):
    # A spread of 0.3 makes the next token depend visibly on all weights before it.
    return countdown_model(
        seed,
        countdown_tokenizer(),
        tie_word_embeddings=tied,
        max_position_embeddings=context,
        initializer_range=0.3,
        **shape,
    )


def _qwen(seed):
    """A model whose layers have biases, which vLLM treats apart from weights when it reloads."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3)
    config.tie_word_embeddings = True
    model = Qwen2ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def _adapted(model, seed, **options):
    torch.manual_seed(seed)
    chosen = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False} | options
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen))


def _gap(model, samples, prompt=PROMPT, temperature=1.0):
    """The largest difference between the samples' log-probs and those of one plain forward pass in float32."""
    largest = 0.0
    for sample in samples:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([[*prompt, *sample.token_ids]])).logits[0]
        expected = (logits[len(prompt) - 1 : -1].float() / temperature).log_softmax(-1)
        expected = expected.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
        largest = max(largest, (expected - torch.tensor(sample.logprobs)).abs().max().item())
    return largest


def _drawn(backend, prompt=PROMPT, n=4, params=PARAMS, seed=1):
    return backend.generate([prompt], n, params, [seed])[0]


# --- one engine at a time; the tests of an engine run together ---


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """Start the engine that a test names, on the model with seed 0."""
    folder = tmp_path_factory.mktemp("engine")
    kinds = {
        "plain": (lambda: _model(0), ENGINE),
        "tied": (lambda: _model(0, tied=True), ENGINE),
        "tied-lora": (lambda: _model(0, tied=True), EngineOptions(enforce_eager=True, lora_rank=5)),
        "biases": (lambda: _qwen(0), ENGINE),
        "bfloat16": (lambda: _model(0, tied=True), EngineOptions(enforce_eager=True, dtype="bfloat16")),
    }
    make, options = kinds[request.param]
    write_policy(make(), folder)
    with VLLMBackend(folder, eos_token_ids=[EOS], engine=options) as backend:
        backend.tied = request.param != "plain"
        backend.sync(folder, 0)
        yield backend


def on(*kinds):
    """Run a test on these engines."""

    def mark(test):
        for mark in [*engine_test, pytest.mark.parametrize("engine", kinds, indirect=True)]:
            test = mark(test)
        return test

    return mark


@on("plain", "tied-lora")
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_logprobs_are_those_of_transformers(engine, temperature):
    model = _model(3, tied=engine.tied)
    engine.sync(model, 1)
    params = SamplingParams(temperature=temperature, max_new_tokens=24)
    assert _gap(model, _drawn(engine, params=params), temperature=temperature or 1.0) < 1e-3


@on("bfloat16")
def test_logprobs_in_bfloat16_are_near_those_of_the_rounded_weights(engine):
    model = _model(3, tied=True, context=1024)
    with torch.no_grad():  # of the size of a trained model's: large weights multiply bfloat16's rounding
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.2)
    engine.sync(model, 1)
    rounded = _model(3, tied=True)
    rounded.load_state_dict(model.to(torch.bfloat16).state_dict())
    assert _gap(rounded, _drawn(engine, n=8)) < 2e-2


@on("plain", "tied", "tied-lora", "biases")
@pytest.mark.parametrize("kind", ["module", "folder", "adapter", "peft"])
def test_after_every_sync_samples_are_of_the_new_weights(engine, kind, tmp_path):
    make = _qwen if engine._config.model_type == "qwen2" else lambda seed: _model(seed, tied=engine.tied)
    engine.sync(make(9), 0)
    if kind == "adapter":  # stands on a model folder, unless the engine leaves it unmerged
        write_policy(make(10), tmp_path / "base")
        engine.sync(tmp_path / "base", 0)
    for version in (1, 2, 3):
        if kind == "module":
            source = policy = make(10 + version)
        elif kind == "folder":
            policy, source = make(10 + version), tmp_path / str(version)
            write_policy(policy, source)
        else:
            policy = source = _adapted(make(10), version)
            if kind == "adapter":
                source = tmp_path / str(version)
                write_adapter(policy, source)
        stale = _drawn(engine)
        engine.sync(source, version)
        samples = _drawn(engine)
        assert {sample.version for sample in samples} == {version}
        assert _gap(policy, samples) < 1e-3
        assert _gap(policy, stale) > 1e-2


@on("tied-lora")
def test_adapters_stay_unmerged_where_their_rank_and_kind_allow_it(engine, tmp_path, monkeypatch):
    model = _adapted(_model(20, tied=True), 1)
    engine.sync(model, 1)
    assert engine._adapter is not None
    loads = []
    monkeypatch.setattr(VLLMBackend, "_load", lambda *args: loads.append(args))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    engine.sync(model, 2)
    assert loads == []  # nothing but the adapter was sent
    monkeypatch.undo()
    assert _gap(model, _drawn(engine)) < 1e-3
    with torch.no_grad():
        model.base_model.model.model.layers[0].mlp.up_proj.weight.mul_(1.5)  # the base moved after all
    engine.sync(model, 3)
    assert _gap(model, _drawn(engine)) < 1e-3
    for merged in (_adapted(_model(21, tied=True), 2, r=16), _adapted(_model(22, tied=True), 3, use_dora=True)):
        engine.sync(merged, 4)
        assert engine._adapter is None
        assert _gap(merged, _drawn(engine)) < 1e-3
    write_adapter(model, tmp_path / "adapter")
    with pytest.raises(RolloutError, match=r"holds the merged weights of another one\), which is in no folder"):
        engine.sync(tmp_path / "adapter", 5)
    assert _gap(merged, _drawn(engine)) < 1e-3  # the refusal changed nothing


@on("tied")
def test_the_output_layer_of_a_tied_model_follows(engine, monkeypatch):
    """Without the mending vLLM raises nothing on a CPU and multiplies by the old embeddings."""
    from rltoolkit.rollout.vllm_worker import rltoolkit_vllm_worker

    model = _model(30, tied=True)
    with monkeypatch.context() as patch:
        patch.setattr(rltoolkit_vllm_worker, "_retie", lambda model: None)
        with pytest.raises(RolloutError, match="does not sample from the policy: its log-probs differ by"):
            engine.sync(model, 1)
        with pytest.raises(RolloutError, match="sync again"):
            _drawn(engine)
    engine.sync(model, 2)
    assert _gap(model, _drawn(engine)) < 1e-3


@on("tied-lora")
def test_adapters_that_vllm_would_misread_are_taken_rightly(engine, tmp_path):
    model = _adapted(_model(40, tied=True), 1)
    engine.sync(model, 1)
    with model.disable_adapter():
        engine.sync(model, 2)
        assert engine._adapter is None
        assert _gap(model, _drawn(engine)) < 1e-3
    layers = model.base_model.model.model.layers
    layers[0] = torch.compile(layers[0], backend="eager")
    engine.sync(model, 3)
    assert engine._adapter is not None
    assert _gap(model, _drawn(engine)) < 1e-3
    changed = _adapted(_model(41, tied=True), 1, init_lora_weights="pissa")
    engine.sync(changed, 4)
    assert _gap(changed, _drawn(engine)) < 1e-3
    write_adapter(changed, tmp_path / "pissa")
    with pytest.raises(RolloutError, match="which also changes the base"):
        engine.sync(tmp_path / "pissa", 5)
    assert _gap(changed, _drawn(engine)) < 1e-3


@on("plain")
def test_the_prefix_cache_is_emptied(engine, monkeypatch):
    """Keys and values of a long prompt (blocks have 128 tokens on a CPU) are not reused under new weights."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, 24, (400,), generator=generator).tolist()
    engine.sync(_model(31), 1)
    _drawn(engine, prompt)
    model = _model(32)
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm, "reset_prefix_cache", lambda: True)
        engine.sync(model, 2)
        assert _gap(model, _drawn(engine, prompt), prompt) > 1e-2
    engine.sync(model, 3)
    assert _gap(model, _drawn(engine, prompt), prompt) < 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm, "reset_prefix_cache", lambda: False)
        with pytest.raises(RolloutError, match="did not reset its prefix cache"):
            engine.sync(model, 4)
        with pytest.raises(RolloutError, match="sync again"):
            _drawn(engine)
    engine.sync(model, 5)


@on("plain")
def test_seeds_decide_the_samples_and_no_two_of_a_prompt_coincide(engine):
    engine.sync(_model(33), 1)
    ask = [s.token_ids for s in _drawn(engine, n=16)]
    assert [s.token_ids for s in _drawn(engine, n=16)] == ask
    assert len({ids for ids in ask if len(ids) > 8}) == len([ids for ids in ask if len(ids) > 8]) > 4
    other = [s.token_ids for s in _drawn(engine, n=16, seed=2)]
    assert not {ids for ids in ask if len(ids) > 8} & set(other)


@on("plain")
def test_a_sample_does_not_depend_on_its_batch_but_for_rounding(engine):
    engine.sync(_model(34), 1)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 24, (1 + i % 9,), generator=generator).tolist() for i in range(20)]
    together = engine.generate(prompts, 5, PARAMS, range(20))
    alone = [engine.generate([prompt], 5, PARAMS, [i])[0] for i, prompt in enumerate(prompts)]
    pairs = [p for one, other in zip(together, alone, strict=True) for p in zip(one, other, strict=True)]
    assert len(pairs) == 100
    assert sum(a.token_ids == b.token_ids for a, b in pairs) >= 99


@on("plain")
def test_more_prompts_than_one_step_reads_are_answered(engine):
    """vLLM would cut the last of them into pieces, and end on a CPU when the rows have seeds."""
    model = _model(36)
    engine.sync(model, 1)
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(3, 24, (100 + i,), generator=generator).tolist() for i in range(48)]
    answers = engine.generate(prompts, 1, PARAMS, range(48))
    assert max(_gap(model, samples, prompt) for prompt, samples in zip(prompts, answers, strict=True)) < 1e-3


@on("plain")
def test_a_sample_ends_with_the_end_token_or_at_the_limit(engine):
    engine.sync(_model(35), 1)
    samples = _drawn(engine, n=64)
    for sample in samples:
        assert EOS not in sample.token_ids[:-1]
        assert (sample.token_ids[-1] == EOS) is (sample.stop_reason is StopReason.STOP)
        assert sample.stop_reason is StopReason.STOP or len(sample.token_ids) == 24
    assert {sample.stop_reason for sample in samples} == {StopReason.STOP, StopReason.LENGTH}
    greedy = _drawn(engine, n=3, params=SamplingParams(temperature=0, max_new_tokens=5))
    assert len(greedy) == 3
    assert len(set(greedy)) == 1


@on("plain")
def test_requests_that_cannot_be_answered_are_refused(engine):
    for arguments, message in [
        (([[3], []], 1, PARAMS, [0, 1]), "prompt 1 has no tokens"),
        (([[3]], 0, PARAMS, [0]), "n is 0"),
        (([[3], [99]], 1, PARAMS, [0, 1]), "prompt 1 has token ids from 99 to 99"),
        (([[3] * 1001], 1, PARAMS, [0]), "prompt 0 has 1001 tokens.*context of 1024; shorten"),
        (([[3]], 1, SamplingParams(temperature=9.0), [0]), "the temperature is 9.0"),
    ]:
        with pytest.raises(RolloutError, match=message):
            engine.generate(*arguments)
    assert engine.generate([], 1, PARAMS, []) == []
    assert len(engine.generate([[3] * 1000], 1, PARAMS, [0])[0][0].token_ids) <= 24


def _lose(folder, *names):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if k not in names}, folder / "model.safetensors", metadata={"format": "pt"}
    )


@on("plain")
def test_weights_that_do_not_fit_are_refused_and_the_policy_stays(engine, tmp_path):
    model = _model(36)
    engine.sync(model, 7)
    write_policy(_model(1), tmp_path / "partial")
    _lose(tmp_path / "partial", "model.layers.2.self_attn.k_proj.weight")
    write_policy(_model(1), tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    write_policy(_model(1, intermediate_size=64), tmp_path / "narrow")
    write_policy(_model(1), tmp_path / "lying")
    config = json.loads((tmp_path / "narrow" / "config.json").read_text())
    shutil.copy(tmp_path / "narrow" / "model.safetensors", tmp_path / "lying")
    assert config["intermediate_size"] == 64
    broken = _model(1)
    broken.model.norm.weight.data[0] = math.nan
    write_adapter(_adapted(_model(1, num_hidden_layers=5), 1), tmp_path / "adapter")
    write_policy(_model(1), tmp_path / "base")
    cases = [
        (tmp_path / "nowhere", "there is no such folder"),
        (tmp_path / "bare", "without weights"),
        (tmp_path / "partial", r"layers.2.self_attn.k_proj.weight: found none"),
        (tmp_path / "narrow", "another model than the one that samples: intermediate_size is 64, expected 192"),
        (tmp_path / "lying", r"mlp.down_proj.weight: found \(64, 64\), expected \(64, 192\)"),
        (_qwen(0), "another model than the one that samples: model_type is qwen2"),
        (_model(1, tied=True), "samples: tie_word_embeddings is True"),
        (broken, "norm.weight; the training has diverged"),
        (tmp_path / "adapter", r"to be merged: engine.lora_rank is None\), which is in no folder"),
        (torch.nn.Linear(2, 2), "has no config"),
    ]
    for source, message in cases:
        with pytest.raises(RolloutError, match=message):
            engine.sync(source, 8)
        assert engine.version == 7
    assert _gap(model, _drawn(engine)) < 1e-3
    engine.sync(tmp_path / "base", 9)
    with pytest.raises(RolloutError, match=r"adapter does not fit|do not fit"):
        engine.sync(tmp_path / "adapter", 10)
    assert _gap(load_policy(tmp_path / "base"), _drawn(engine)) < 1e-3


@on("plain", "tied-lora")
def test_after_a_load_that_failed_midway_nothing_is_sampled_until_one_succeeds(engine, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    from rltoolkit.rollout.vllm_worker import rltoolkit_vllm_worker

    write_policy(_model(1, tied=engine.tied), tmp_path / "broken")
    state = load_file(tmp_path / "broken" / "model.safetensors")
    state["model.layers.2.mlp.up_proj.weight"][0, 0] = math.nan
    save_file(state, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    adapted = _adapted(_model(37, tied=engine.tied), 1)
    engine.sync(adapted, 1)
    with pytest.raises(RolloutError, match=r"not finite numbers, for instance .*up_proj.weight"):
        engine.sync(tmp_path / "broken", 2)
    with pytest.raises(RolloutError, match="without weights: its last sync failed midway; sync again"):
        _drawn(engine)
    engine.sync(adapted, 3)
    assert _gap(adapted, _drawn(engine)) < 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(rltoolkit_vllm_worker, "_noting_numbers", _broken_off)
        with pytest.raises(RolloutError, match=r"failed midway, the old weights are gone: the disk is away"):
            engine.sync(tmp_path / "broken", 4)
    engine.sync(adapted, 5)
    assert _gap(adapted, _drawn(engine)) < 1e-3


def _broken_off(weights, flags):
    for i, item in enumerate(weights):
        if i == 9:
            raise OSError("the disk is away")
        yield item


@on("plain")
def test_a_sleeping_backend_refuses(engine):
    engine.sleep()
    for call in (lambda: _drawn(engine), lambda: engine.sync(_model(1), 1), engine.sleep):
        with pytest.raises(RolloutError, match=r"asleep; call wake\(\) first"):
            call()
    engine.wake()
    assert _drawn(engine)


@pytest.mark.vllm_engine
@engine_test[1]
def test_two_processes_of_accelerate_sample_beside_each_other_and_get_their_process_back(tmp_path):
    """The process group of a trainer stays, and so do its random numbers, its threads and its environment."""
    write_policy(_model(0), tmp_path / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"]
    script = Path(__file__).parent / "colocated.py"
    done = subprocess.run([*launch, str(script), str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert (
        results[0]
        == results[1]
        == {"gap": True, "group": True, "random": True, "threads": True, "variables": [], "precision": True}
    )


# --- without vLLM ---


def test_without_vllm_it_says_what_to_install(tmp_path, monkeypatch):
    write_policy(_model(0), tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(RolloutError, match=r"vLLM cannot be imported.*install vllm.*or vllm-server"):
        VLLMBackend(tmp_path, eos_token_ids=[EOS])


def test_what_cannot_start_is_refused_before_vllm_is_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    write_adapter(_adapted(_model(0), 1), tmp_path / "adapter")
    write_policy(_model(0), tmp_path / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RolloutError, match="is the folder of an adapter; start with the model"):
        VLLMBackend(tmp_path / "adapter", eos_token_ids=[EOS])
    with pytest.raises(RolloutError, match=r"neither config.json nor"):
        VLLMBackend(tmp_path / "empty", eos_token_ids=[EOS])
    with pytest.raises(RolloutError, match="eos_token_ids is empty"):
        VLLMBackend(tmp_path / "model", eos_token_ids=[])
    with pytest.raises(RolloutError, match=r"tensor_parallel is 2.*use rollout.backend vllm-server"):
        VLLMBackend(tmp_path / "model", eos_token_ids=[EOS], engine=EngineOptions(tensor_parallel=2))
    assert "RANK" not in os.environ


def test_a_process_has_its_environment_and_settings_back(tmp_path, monkeypatch):
    write_policy(_model(0), tmp_path)
    monkeypatch.setenv("LD_PRELOAD", "own.so")
    monkeypatch.setenv("TAKEN", "1")
    before = dict(os.environ)

    class Intruder:
        def __init__(self, **_):
            assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
            os.environ.update(LD_PRELOAD="tcmalloc.so:own.so", TORCHINDUCTOR_COMPILE_THREADS="1")
            os.environ["VLLM_SSM_CONV_STATE_LAYOUT"] = "SD"
            del os.environ["TAKEN"]
            torch.set_float32_matmul_precision("highest")
            torch.manual_seed(0)

    platform = SimpleNamespace(is_cuda=lambda: False, is_cpu=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Intruder))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    old = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        state = torch.get_rng_state()
        start_engine(tmp_path, ENGINE, 0)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.equal(torch.get_rng_state(), state)
        changed = {name for name in os.environ.keys() | before.keys() if os.environ.get(name) != before.get(name)}
        assert changed <= {"VLLM_SSM_CONV_STATE_LAYOUT"}
    finally:
        torch.set_float32_matmul_precision(old)
        os.environ.pop("VLLM_SSM_CONV_STATE_LAYOUT", None)

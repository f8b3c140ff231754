"""The in-process backend on a stand-in for vLLM; with vLLM itself: test_vllm_backend.py."""

import sys
from types import SimpleNamespace

import pytest
import torch

from rltoolkit.embedded.models import countdown_model, countdown_tokenizer
from rltoolkit.errors import RolloutError
from rltoolkit.rollout import vllm_backend
from rltoolkit.rollout.vllm_backend import VLLMBackend
from rltoolkit.rollout.weights import write_policy
from rltoolkit.types import SamplingParams

EOS = 2
PROMPT = [1, 5, 6, 7, 20, 9]


def _model(seed):
    # A spread of 0.3 makes the next token depend visibly on all weights before it.
    return countdown_model(seed, countdown_tokenizer(), tie_word_embeddings=False, initializer_range=0.3)


def _drawn(backend):
    return backend.generate([PROMPT], 4, SamplingParams(max_new_tokens=1), [1])[0]


def _is_of(model, sample):
    """Whether the sample's log-prob is the model's own."""
    with torch.no_grad():
        logprobs = model.eval()(input_ids=torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    return abs(logprobs[sample.token_ids[0]].item() - sample.logprobs[0]) < 1e-3


class StandIn:
    """vLLM's LLM, as far as the backend uses it, on a model of transformers."""

    def __init__(self, model, **config):
        self.model, self.calls, self.failing, self.deaf = model, [], None, ()
        config = {"max_model_len": 1024, "enable_sleep_mode": True, "dtype": torch.float32} | config
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(**config))

    def collective_rpc(self, load, args):
        self.calls.append("load")
        if self.failing is not None:
            raise self.failing
        self.model.load_state_dict({n: t for n, t in args[0].items() if n not in self.deaf}, strict=False)

    def generate(self, prompts, params, **_):
        self.calls.append("generate")
        return [self._answer(p["prompt_token_ids"], q) for p, q in zip(prompts, params, strict=True)]

    def _answer(self, prompt, params):
        with torch.no_grad():
            logprobs = self.model.eval()(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        token = int(logprobs.argmax())
        step = {token: SimpleNamespace(logprob=float(logprobs[token]))}
        outputs = [SimpleNamespace(index=0, token_ids=[token], logprobs=[step], finish_reason="length")]
        return SimpleNamespace(prompt_token_ids=prompt, outputs=outputs * params["n"])

    def reset_prefix_cache(self):
        return True

    def sleep(self, level):
        self.calls.append("sleep")

    def wake_up(self, tags):
        self.calls.append(f"wake {' '.join(tags)}")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return a backend on a stand-in for vLLM, and the stand-in."""
    write_policy(_model(0), tmp_path / "model")
    engine = StandIn(_model(0))
    monkeypatch.setattr(vllm_backend, "start_engine", lambda *args: engine)
    monkeypatch.setattr(vllm_backend, "end_engine", lambda engine: None)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    with VLLMBackend(tmp_path / "model", eos_token_ids=[EOS]) as backend:
        yield backend, engine


def test_a_failed_sync_is_not_forgotten_by_sleeping(stand_in):
    backend, engine = stand_in
    assert _drawn(backend)
    engine.failing = RuntimeError("midway")
    with pytest.raises(RolloutError, match="could not take over the weights: midway"):
        backend.sync(_model(1), 1)
    backend.sleep()
    backend.wake()
    with pytest.raises(RolloutError, match="without weights: its last sync failed midway"):
        _drawn(backend)
    engine.failing = ValueError("another shape")  # a refusal mends nothing
    with pytest.raises(RolloutError, match="another shape"):
        backend.sync(_model(1), 2)
    with pytest.raises(RolloutError, match="without weights"):
        _drawn(backend)
    engine.failing = None
    backend.sync(_model(1), 3)
    assert _drawn(backend)[0].version == 3
    engine.failing = ValueError("another shape")
    with pytest.raises(RolloutError, match="another shape"):
        backend.sync(_model(2), 4)
    assert _drawn(backend)[0].version == 3


def test_an_engine_that_did_not_follow_is_found_by_its_numbers(stand_in):
    backend, engine = stand_in
    engine.deaf = ("model.layers.2.mlp.up_proj.weight",)
    with pytest.raises(RolloutError, match=r"does not sample from the policy: its log-probs differ by .*torch.float32"):
        backend.sync(_model(1), 1)
    with pytest.raises(RolloutError, match="without weights"):
        _drawn(backend)
    engine.deaf = ()
    backend.sync(_model(1), 2)
    assert _is_of(_model(1), _drawn(backend)[0])


def test_the_cache_wakes_after_the_weights_have_come(stand_in):
    """Else the copies of a sync would need room beside it."""
    backend, engine = stand_in
    for _ in range(2):
        engine.calls.clear()
        backend.sleep()
        backend.wake()
        backend.sync(_model(1), 1)
        _drawn(backend)
        assert engine.calls == ["sleep", "wake weights", "load", "wake kv_cache", "generate", "generate"]
    backend.sleep()
    backend.wake()
    backend.sleep()  # with the cache still asleep
    backend.wake()
    engine.calls.clear()
    _drawn(backend)
    assert engine.calls == ["wake kv_cache", "generate"]

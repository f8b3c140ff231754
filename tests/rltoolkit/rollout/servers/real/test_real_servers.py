"""The pool of vLLM servers on real ones, on the CPU: what arrives is what the policy says, whatever happens to them.

Needs the interpreter of an environment with vLLM in RLTOOLKIT_VLLM_PYTHON (`make test-vllm` makes one). Two servers of
a model with tied embeddings serve most tests, in the order of this file; those that kill them come last. A third place
is for servers of another kind, one at a time.

Most tests end in `check`: the log-probs that came with each sample must be those of the module in memory, computed here
by transformers in float32. A sample of a wrong prompt, of stale weights or of a server that was started anew cannot
pass it: the weights are spread so widely that any two policies differ by more than 0.1 per token, on average.
"""

import contextlib
import json
import re
import signal
import threading
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_servers import (
    BFLOAT16,
    PYTHON,
    START_S,
    TOKENIZER,
    Cutter,
    PlainServer,
    answered,
    backend_on,
    changed,
    check,
    differences,
    free_ports,
    get,
    launch_options,
    once_busy,
    policy,
    prompts_of,
    signal_server,
    use_until_it_answers,
)
from transformers import LlamaForCausalLM

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.launch import ServerFleet
from rltoolkit.types import SamplingParams, StopReason

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="set RLTOOLKIT_VLLM_PYTHON to an interpreter with vLLM, or `make test-vllm`"),
    pytest.mark.timeout(480),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two servers of a tied model, in float32, that take LoRA adapters up to rank 8."""
    options = launch_options(tmp_path_factory.mktemp("pair"), policy(0), free_ports(2), lora_rank=8)
    with ServerFleet(options) as fleet:
        fleet.wait_until_healthy()
        yield fleet


@pytest.fixture
def third(tmp_path):
    """A maker of one more server; `extension=False` leaves our part in its workers out."""
    with contextlib.ExitStack() as stack:

        def make(model, *, extension=True, **engine):
            options = launch_options(tmp_path, model, free_ports(1), **engine)
            fleet = stack.enter_context(ServerFleet(options) if extension else PlainServer(options))
            fleet.wait_until_healthy()
            return fleet.urls

        yield make


@pytest.fixture
def backend(pair):
    with backend_on(pair.urls) as made:
        yield made


# What the servers answer


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_logprobs_are_those_of_transformers(backend, temperature):
    model, prompts = policy(1), prompts_of(16)
    backend.sync(model, 3)
    answers = backend.generate(prompts, 4, SamplingParams(temperature, max_new_tokens=40), range(16))
    check(model, prompts, answers, n=4, version=3, temperature=temperature)
    reasons = {sample.stop_reason for samples in answers for sample in samples}
    assert reasons == {StopReason.STOP, StopReason.LENGTH} or temperature == 0
    distinct = {sample.token_ids for sample in answers[-1]}
    assert len(distinct) == (1 if temperature == 0 else 4)


def test_filters_keep_the_most_likely_tokens(backend):
    """Top-k of 1 and a tiny nucleus are greedy, with the whole probability on the token; so is a high min-p."""
    model, prompts = policy(1), prompts_of(8)
    backend.sync(model, 1)
    greedy = backend.generate(prompts, 1, SamplingParams(0.0, max_new_tokens=20), range(8))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}):
        answers = backend.generate(prompts, 1, SamplingParams(max_new_tokens=20, **narrow), range(8))
        assert [a.token_ids for (a,) in answers] == [g.token_ids for (g,) in greedy]
        assert all(abs(logprob) < 1e-6 for (a,) in answers for logprob in a.logprobs)


def test_equal_seeds_repeat_on_whichever_server(pair):
    """The same request gives the same samples on each server alone and on both, one at a time and together."""
    model, prompts = policy(2), prompts_of(12)
    params, drawn = SamplingParams(max_new_tokens=24), []
    for urls in (pair.urls[:1], pair.urls[1:], pair.urls):
        with backend_on(urls) as backend:
            backend.sync(model, 1)
            drawn.append(backend.generate(prompts, 2, params, range(12)))
            alone = [backend.generate([p], 2, params, [seed])[0] for seed, p in list(enumerate(prompts))[:2]]
            assert tokens(alone) == tokens(drawn[-1][:2])
    assert tokens(drawn[0]) == tokens(drawn[1]) == tokens(drawn[2])
    with backend_on(pair.urls) as backend:
        backend.sync(model, 1)
        assert tokens(backend.generate(prompts, 2, params, range(100, 112))) != tokens(drawn[0])


def tokens(answers):
    return [[sample.token_ids for sample in samples] for samples in answers]


def test_two_hundred_requests_at_once_use_both_servers(pair, backend):
    model, prompts = policy(3), prompts_of(200)
    backend.sync(model, 5)
    before = [answered(url) for url in pair.urls]
    answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=32), range(200))
    check(model, prompts, answers, n=2, version=5)
    shares = [answered(url) - count for url, count in zip(pair.urls, before, strict=True)]
    assert min(shares) >= sum(shares) / 4, f"the servers answered {shares}"
    assert len({sample.token_ids for samples in answers for sample in samples if len(sample.token_ids) > 8}) > 200


@pytest.mark.parametrize("request_", [([[]], 1), ([[5] * 1020], 1), ([[5]], 0), ([[999_999]], 1)])
def test_requests_that_cannot_be_answered_are_refused(backend, request_):
    """No tokens, more than the context, no samples, a token that is none: a mistake of the caller, said at once."""
    prompts, n = request_
    backend.sync(policy(0), 1)
    started = time.monotonic()
    with pytest.raises(RolloutError):
        backend.generate(prompts, n, SamplingParams(max_new_tokens=16), [0])
    assert time.monotonic() - started < 30  # of the 60 that it waits for servers


# Weights


def test_weights_are_exact_after_every_change_of_a_tied_model(backend):
    """Fails when the output layer keeps its packed copy of the embedding, as it does without our worker extension."""
    model, prompts = policy(0), prompts_of(8)
    for version in range(1, 5):
        model = changed(model, version)
        backend.sync(model, version)
        answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(8))
        check(model, prompts, answers, n=2, version=version)


def test_weights_come_from_a_folder_too(backend, tmp_path):
    model, prompts = policy(7), prompts_of(8)
    model.save_pretrained(tmp_path / "checkpoint")
    backend.sync(tmp_path / "checkpoint", 2)
    check(model, prompts, backend.generate(prompts, 1, SamplingParams(max_new_tokens=24), range(8)), version=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((tmp_path / "checkpoint" / "config.json").read_text())
    with pytest.raises(RolloutError, match="without weights"):
        backend.sync(tmp_path / "empty", 3)


@pytest.mark.parametrize(("rank", "unmerged"), [(4, True), (32, False)])
def test_adapters(pair, backend, rank, unmerged):
    """Rank 4 is loaded beside the base weights, rank 32 is more than the servers take and is merged; both are exact."""
    prompts = prompts_of(8)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(policy(4), config).eval()
    for version in (1, 2):
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        backend.sync(model, version)
        answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(8))
        check(model, prompts, answers, n=2, version=version)
        assert backend.shared_policy.adapter == unmerged
        for url in pair.urls:
            served = [entry["id"] for entry in json.loads(get(url, "/v1/models"))["data"]]
            assert any(name.startswith(f"{backend.shared_policy.policy}-v{version}") for name in served) == unmerged
    with model.disable_adapter():
        assert differences(model, prompts[0], answers[0][0]).mean() > 0.01  # the adapter matters


def test_an_adapter_folder(backend, tmp_path):
    """The folder names the model that the adapter belongs to; that is loaded first."""
    base, prompts = policy(5), prompts_of(8)
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    backend.sync(policy(0), 1)
    backend.sync(tmp_path / "adapter", 2)
    answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(8))
    check(model, prompts, answers, n=2, version=2)
    with model.disable_adapter():
        assert differences(model, prompts[0], answers[0][0]).mean() > 0.01


def test_nothing_of_the_old_weights_is_left_in_the_prefix_cache(backend):
    """Prompts that share more than a block (128 tokens) with ones that were answered before the weights changed."""
    shared = prompts_of(1, seed=1, longest=1)[0] * 300
    prompts = [[*shared, 4 + i] for i in range(6)]
    for version, model in enumerate((policy(8), changed(policy(8), 1))):
        backend.sync(model, version)
        for _ in range(2):  # the second time from the cache
            answers = backend.generate(prompts, 1, SamplingParams(max_new_tokens=16), range(6))
            check(model, prompts, answers, version=version)


# Servers that do not fit


@pytest.mark.parametrize(
    "shape", [{"hidden_size": 96}, {"num_hidden_layers": 3}, {"num_key_value_heads": 1}, {"tie_word_embeddings": False}]
)
def test_a_server_with_another_model_is_refused_and_left_as_it_was(pair, backend, shape):
    model, prompts = policy(6), prompts_of(4)
    backend.sync(model, 1)
    with backend_on(pair.urls, wait_s=5.0) as other:
        with pytest.raises(RolloutError, match=next(iter(shape))):
            other.sync(policy(6, **shape), 1)
        with pytest.raises(RolloutError):
            other.generate(prompts, 1, SamplingParams(max_new_tokens=4), range(4))
    check(model, prompts, backend.generate(prompts, 1, SamplingParams(max_new_tokens=16), range(4)), version=1)


def test_a_server_with_another_vocabulary_is_refused(backend):
    config = policy(6).config
    config.vocab_size = len(TOKENIZER) + 8
    with pytest.raises(RolloutError, match="vocab"):
        backend.sync(LlamaForCausalLM(config), 1)


def test_an_address_where_nobody_listens_is_named(pair):
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    started = time.monotonic()
    with backend_on([nobody], wait_s=2.0) as backend, pytest.raises(RolloutError, match=re.escape(nobody)):
        backend.sync(policy(0), 1)
    assert time.monotonic() - started < 30


# Accidents


def test_answers_that_are_cut_off_are_asked_again(pair):
    model, prompts = policy(9), prompts_of(40)
    # The proof after the load asks for a completion, too: the first cut meets it.
    with Cutter(pair.urls[0], cuts=6) as cutter, backend_on([cutter.url, pair.urls[1]], retries=6) as backend:
        backend.sync(model, 2)
        answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(40))
        assert cutter.cuts <= 0
    check(model, prompts, answers, n=2, version=2)


def test_a_server_that_never_answers_whole_is_an_error_not_a_loop(pair):
    model = policy(9)
    with Cutter(pair.urls[0], cuts=0) as cutter, backend_on([cutter.url], retries=2, wait_s=10.0) as backend:
        backend.sync(model, 2)
        cutter.cuts = 1_000_000
        started = time.monotonic()
        with pytest.raises(RolloutError, match=re.escape(cutter.url)):
            backend.generate(prompts_of(8), 1, SamplingParams(max_new_tokens=8), range(8))
        assert time.monotonic() - started < 60
        cutter.cuts = 0
        prompts = prompts_of(8)
        check(model, prompts, backend.generate(prompts, 1, SamplingParams(max_new_tokens=8), range(8)), version=2)


def test_weights_that_somebody_else_loaded_are_never_sampled_from(pair, backend, tmp_path):
    """Another process loads other weights into one server between two calls: the tag is gone, so is its share."""
    model, prompts = policy(10), prompts_of(60)
    backend.sync(model, 4)
    with backend_on(pair.urls[:1]) as stranger:
        stranger.sync(policy(11), 4)
    check(model, prompts, backend.generate(prompts, 1, SamplingParams(max_new_tokens=24), range(60)), version=4)


def test_a_hung_server_loses_its_requests_to_the_other_and_comes_back(pair):
    model, prompts = policy(12), prompts_of(120)
    with backend_on(pair.urls, health_timeout_s=2.0) as backend:
        backend.sync(model, 6)
        try:
            with once_busy(pair.urls[0], lambda: signal_server(pair, 0, signal.SIGSTOP)):
                answers = backend.generate(prompts, 4, SamplingParams(max_new_tokens=64), range(120))
        finally:
            signal_server(pair, 0, signal.SIGCONT)
        check(model, prompts, answers, n=4, version=6)
        use_until_it_answers(backend, pair.urls[0], model, 6)


def test_a_killed_server_loses_nothing_and_is_loaded_again_before_it_is_used(pair):
    """It comes back with the weights it was started with; each sample is compared with the policy of the sync."""
    model, prompts = policy(13), prompts_of(120)
    with backend_on(pair.urls) as backend:
        backend.sync(model, 7)
        with once_busy(pair.urls[0], lambda: signal_server(pair, 0, signal.SIGKILL)):
            answers = backend.generate(prompts, 4, SamplingParams(max_new_tokens=64), range(120))
        check(model, prompts, answers, n=4, version=7)
        pair.restart(0)
        use_until_it_answers(backend, pair.urls[0], model, 7)


def test_without_any_server_a_call_fails_in_time_or_goes_on_when_they_are_back(pair):
    model, prompts = policy(14), prompts_of(8)
    params = SamplingParams(max_new_tokens=24)
    with backend_on(pair.urls, wait_s=START_S) as patient:
        with backend_on(pair.urls, wait_s=3.0) as hasty:
            hasty.sync(model, 1)
            patient.sync(model, 8)
            for index in range(2):
                signal_server(pair, index, signal.SIGKILL)
            started = time.monotonic()
            with pytest.raises(RolloutError) as failure:
                hasty.generate(prompts, 1, params, range(8))
            assert time.monotonic() - started < 20
            assert all(url in str(failure.value) for url in pair.urls)
        timer = threading.Timer(2.0, lambda: [pair.restart(index) for index in range(2)])
        timer.start()
        answers = patient.generate(prompts, 1, params, range(8))
        timer.join()
    check(model, prompts, answers, version=8)


# Servers of another kind


def test_an_untied_model_needs_no_extension(third):
    model, prompts = policy(0, tie_word_embeddings=False), prompts_of(8)
    with backend_on(third(model, extension=False)) as backend:
        for version in range(1, 4):
            model = changed(model, version)
            backend.sync(model, version)
            answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(8))
            check(model, prompts, answers, n=2, version=version)
        with pytest.raises(RolloutError):
            backend.sync(policy(0, tie_word_embeddings=False, hidden_size=96), 4)


def test_a_tied_model_without_the_extension_is_refused(third):
    """Nothing would be raised on its side, and its log-probs would be wrong by a lot."""
    urls = third(policy(0), extension=False)
    with backend_on(urls, wait_s=5.0) as backend, pytest.raises(RolloutError, match="tied"):
        backend.sync(changed(policy(0), 1), 1)


def test_bfloat16(third):
    """Against float32: rounding stays within 2e-2 for weights of the usual size, where policies still differ by 0.5."""
    kind, prompts = {"tie_word_embeddings": False, "initializer_range": 0.05}, prompts_of(8)
    with backend_on(third(policy(0, **kind), dtype="bfloat16")) as backend:
        for version in range(1, 4):
            model = policy(version, **kind)
            backend.sync(model, version)
            answers = backend.generate(prompts, 2, SamplingParams(max_new_tokens=24), range(8))
            check(model, prompts, answers, n=2, version=version, tolerance=BFLOAT16)

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from standin import end_unseen

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend
from rltoolkit.types import SamplingParams, StopReason

SHORT = SamplingParams(max_new_tokens=6)
EOS = 2


def adapted(model, **options):
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options)).eval()
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return lora


def test_samples_of_two_servers_come_from_the_policy_in_memory(stand_ins, connect, policy, prompts, check_logprobs):
    backend = connect(*stand_ins(2))
    backend.sync(policy, 7)
    samples = backend.generate(prompts, 2, SHORT, range(24))
    assert [len(group) for group in samples] == [2] * 24
    assert {sample.version for group in samples for sample in group} == {7} == {backend.version}
    check_logprobs(policy, prompts, samples)
    assert sum(first != second for first, second in samples) > 20
    for sample in (sample for group in samples for sample in group):
        assert (sample.stop_reason is StopReason.STOP) == (sample.token_ids[-1] == EOS)
    assert samples == backend.generate(prompts, 2, SHORT, range(24))


def test_each_greedy_sample_asked_for_is_there(stand_ins, connect, policy, check_logprobs):
    backend = connect(stand_ins())
    backend.sync(policy, 1)
    samples = backend.generate([[5, 6]], 3, SamplingParams(temperature=0, max_new_tokens=4), [0])
    assert len(samples[0]) == 3
    assert len(set(samples[0])) == 1
    check_logprobs(policy, [[5, 6]], samples)


def test_changed_weights_follow_and_older_folders_go(stand_ins, connect, policy, prompts, check_logprobs, tmp_path):
    server = stand_ins()
    options = ServerOptions(urls=(server.url,))
    with VLLMServerBackend(options, eos_token_ids=[EOS], weights_dir=tmp_path) as backend:
        (tmp_path / "mine").mkdir()
        for version in (1, 2, 2):  # an equal version does not save the load
            with torch.no_grad():
                policy.lm_head.weight.mul_(0.7)
            backend.sync(policy, version)
            check_logprobs(policy, prompts[:3], backend.generate(prompts[:3], 1, SHORT, [1, 2, 3]))
            assert len(list(tmp_path.iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_module_in_training_is_given_back_as_it_was(stand_ins, connect, policy):
    policy.train()
    connect_to = connect(stand_ins())
    connect_to.sync(policy, 1)
    assert all(module.training for module in policy.modules())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_a_model_folder_is_loaded_where_it_is(stand_ins, connect, policy, prompts, check_logprobs, tmp_path):
    policy.save_pretrained(tmp_path / "model")
    backend = connect(stand_ins())
    backend.sync(tmp_path / "model", 3)
    check_logprobs(policy, prompts[:4], backend.generate(prompts[:4], 1, SHORT, range(4)))
    backend.close()
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_folder_that_changed_is_not_loaded_again_under_the_old_version(stand_ins, connect, policy, tmp_path):
    policy.save_pretrained(tmp_path)
    server = stand_ins()
    backend = connect(server, wait_s=0.5)
    backend.sync(tmp_path, 3)
    server.forget()
    with torch.no_grad():
        policy.lm_head.weight.zero_()
    policy.save_pretrained(tmp_path)
    with pytest.raises(RolloutError, match=r"changed since the sync; leave a checkpoint as it is"):
        backend.generate([[5]], 1, SHORT, [0])


def test_a_look_before_the_first_sync_loads_nothing(stand_ins, connect, policy, tmp_path):
    policy.save_pretrained(tmp_path / "model")
    server = stand_ins()
    connect(server).look(str(tmp_path / "model"))
    assert server.tag == "default"
    assert server.count("/collective_rpc") == 1  # what it serves
    assert server.count("/update_weight_version") == 0


def test_a_look_refuses_another_model_and_tells_of_a_server_that_is_away(
    stand_ins, connect, policy, tiny_model, tmp_path, caplog
):
    policy.save_pretrained(tmp_path / "model")
    tiny_model(seed=5, hidden_size=2 * policy.config.hidden_size).save_pretrained(tmp_path / "other")
    server, away = stand_ins(2)
    away.die()
    backend = connect(server, away, wait_s=0.5)
    with pytest.raises(RolloutError, match=r"serves another model: hidden_size"):
        backend.look(tmp_path / "other")
    backend.look(tmp_path / "model")
    assert f"not there yet: {away.url}" in caplog.text
    server.die()
    with pytest.raises(RolloutError, match=r"no server could be used for 0\.5 s.*rollout\.servers\.wait_s"):
        backend.look(tmp_path / "model")
    assert caplog.text.count("waiting for a server, ") == 1  # not at each attempt


@pytest.mark.parametrize("rank", [None, 2, 8])
@pytest.mark.parametrize("from_folder", [False, True])
def test_an_adapter_is_loaded_unmerged_where_its_rank_fits(
    stand_ins, connect, policy, prompts, check_logprobs, tmp_path, rank, from_folder
):
    policy.save_pretrained(tmp_path / "base")
    policy.name_or_path = str(tmp_path / "base")
    lora = adapted(policy)
    lora.save_pretrained(tmp_path / "adapter")
    server = stand_ins()
    server.lora_rank = rank
    backend = connect(server)
    for version in (1, 2):
        backend.sync(tmp_path / "adapter" if from_folder else lora, version)
        assert len(server.adapters) == (rank == 8)
        check_logprobs(lora, prompts[:2], backend.generate(prompts[:2], 1, SHORT, range(2)))
        if not from_folder:
            with torch.no_grad():
                lora.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight.mul_(-1)
    loads = len(server.loaded)
    if not from_folder:
        policy.lm_head.weight.data.mul_(2)  # weights below the adapter are noticed, too, however they changed
        backend.sync(lora, 3)
        check_logprobs(lora, prompts[:2], backend.generate(prompts[:2], 1, SHORT, range(2)))
        assert len(server.loaded) > loads
        server.forget()  # and come back together with the adapter
        check_logprobs(lora, prompts[:2], backend.generate(prompts[:2], 1, SHORT, range(2)))


def test_the_base_below_an_adapter_is_loaded_once(stand_ins, connect, policy):
    lora = adapted(policy)
    server = stand_ins()
    server.lora_rank = 8
    backend = connect(server)
    counts = []
    for version in (1, 2, 3):
        before = server.count("/v1/load_lora_adapter"), len(server.loaded)
        backend.sync(lora, version)
        after = server.count("/v1/load_lora_adapter"), len(server.loaded)
        counts.append((after[0] - before[0], after[1] - before[1]))
    assert counts == [(1, 1), (1, 0), (1, 0)]


def test_weights_that_are_trained_beside_an_adapter_are_served_as_they_are(
    stand_ins, connect, policy, prompts, check_logprobs
):
    lora = adapted(policy)
    policy.lm_head.weight.requires_grad_(True)
    optimizer = torch.optim.AdamW([policy.lm_head.weight], lr=1e-3, fused=True)  # leaves no trace on the tensor
    server = stand_ins()
    server.lora_rank = 8
    backend = connect(server)
    for version in (1, 2):
        backend.sync(lora, version)
        samples = backend.generate(prompts[:4], 1, SHORT, range(4))
        check_logprobs(lora, prompts[:4], samples, atol=1e-5)  # the step below changes them by more
        lora(torch.tensor([[5, 6, 7]])).logits.square().mean().backward()
        optimizer.step()
    assert not server.adapters
    assert len(server.loaded) == 2


def test_a_critic_in_the_policy_does_not_make_its_base_another_one(stand_ins, connect, policy, prompts, check_logprobs):
    policy.critic = torch.nn.Linear(32, 1)
    lora = adapted(policy)
    policy.critic.requires_grad_(True)
    trained = [parameter for parameter in lora.parameters() if parameter.requires_grad]
    server = stand_ins()
    server.lora_rank = 8
    backend = connect(server)
    for version in (1, 2):
        backend.sync(lora, version)
        check_logprobs(lora, prompts[:4], backend.generate(prompts[:4], 1, SHORT, range(4)))
        lora(torch.tensor([[5, 6, 7]])).logits.square().mean().backward()
        policy.critic(torch.ones(32)).sum().backward()
        torch.optim.AdamW(trained, lr=0.05).step()
    assert len(server.adapters) == 1
    assert len(server.loaded) == 1


def test_a_folder_that_is_another_one_on_the_server_is_refused(stand_ins, connect, policy, tiny_model, tmp_path):
    policy.save_pretrained(tmp_path / "model")
    tiny_model(seed=8, dtype=torch.float32).save_pretrained(tmp_path / "other")
    server = stand_ins()
    server.sees = lambda folder: str(tmp_path / "other")
    with pytest.raises(
        RolloutError, match=rf"{server.url} read other weight files from .*model.*digest \w{{32}}, expe"
    ):
        connect(server).sync(tmp_path / "model", 1)


def test_a_folder_with_too_little_is_refused_where_the_server_would_not_say(stand_ins, connect, policy, tmp_path):
    policy.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    server = stand_ins()
    server.extension = False
    with pytest.raises(RolloutError, match=r"lacks 1 of 21 weights.*for instance model.layers.1.mlp.up_proj.weight"):
        connect(server).sync(tmp_path, 1)
    assert server.loaded == []


def test_adapters_that_others_left_are_dropped_and_the_last_one_at_the_end(stand_ins, connect, policy):
    server = stand_ins()
    server.lora_rank = 8
    lora = adapted(policy)
    killed = connect(server)
    killed.sync(lora, 1)
    end_unseen(killed)
    server.adapters["mine"] = None
    backend = connect(server)
    backend.sync(lora, 1)
    assert len(server.adapters) == 2
    backend.close()
    assert list(server.adapters) == ["mine"]


def test_weights_are_written_as_the_servers_compute(stand_ins, connect, policy):
    servers = stand_ins(2)
    servers[0].dtype = servers[1].dtype = "torch.bfloat16"
    connect(*servers).sync(policy, 1)
    kinds = {tensor.dtype for tensor in servers[0].model.state_dict().values()}
    assert kinds == {torch.float32}  # of the stand-in, into which they are copied
    sent = servers[0].model.lm_head.weight
    assert torch.equal(sent, policy.lm_head.weight.bfloat16().float())
    servers[1].dtype = "torch.float32"
    connect(*servers).sync(policy, 1)
    assert torch.equal(servers[0].model.lm_head.weight, policy.lm_head.weight)


def no_control(server):
    server.dev = False


def raw_logprobs(server):
    server.logprobs_mode = "raw_logprobs"


def without_extension(server):
    server.extension = False


def keeps_its_weights(server):
    server.loads = False


def cannot_load(server):
    server.fault = lambda path: 500 if path == "/collective_rpc" and server.tag.startswith("loading") else None


def never_idle(server):
    server.resets = False


def wants_a_key(server):
    server.fault = lambda path: 401


@pytest.mark.parametrize(
    ("change", "server_shape", "policy_shape", "message"),
    [
        (no_control, {}, {}, "has no control endpoints.*rltoolkit serve.*VLLM_SERVER_DEV_MODE=1"),
        (wants_a_key, {}, {}, "answers HTTP 401 to GET /v1/models"),
        (raw_logprobs, {}, {}, "in the mode raw_logprobs.*--logprobs-mode processed_logprobs"),
        (without_extension, {"vocab_size": 40}, {}, "knows more token ids than the policy's 32"),
        (without_extension, {}, {"vocab_size": 40}, "knows fewer token ids than the policy's 40"),
        (without_extension, {}, {"tie_word_embeddings": True}, "stale copy of tied embeddings"),
        (lambda server: None, {"hidden_size": 64}, {}, r"serves another model: hidden_size 64 \(policy: 32\)"),
        (keeps_its_weights, {}, {}, r"does not sample from the policy: its log-probs differ by .*at most 0\.01"),
        (cannot_load, {}, {}, "HTTP 500: something broke; the server must see the folder"),
    ],
)
def test_a_server_that_cannot_serve_the_policy_is_refused(
    stand_ins, connect, tiny_model, change, server_shape, policy_shape, message
):
    server = stand_ins(**server_shape)
    change(server)
    backend = connect(server)
    started = time.monotonic()
    with pytest.raises(RolloutError, match=f"(?s){server.url}.*{message}"):
        backend.sync(tiny_model(dtype=torch.float32, **policy_shape), 1)
    assert time.monotonic() - started < 8  # below wait_s: no waiting for what will not change
    with pytest.raises(RolloutError, match=r"no policy yet; call sync"):
        backend.generate([[5]], 1, SHORT, [0])


def test_tied_embeddings_on_a_cpu_are_fine_with_our_workers(stand_ins, connect, tiny_model, prompts, check_logprobs):
    policy = tiny_model(dtype=torch.float32, tie_word_embeddings=True).eval()
    backend = connect(stand_ins(tie_word_embeddings=True))
    backend.sync(policy, 1)
    check_logprobs(policy, prompts[:2], backend.generate(prompts[:2], 1, SHORT, range(2)))


def test_a_prefix_cache_that_is_not_emptied_keeps_the_server_out(stand_ins, connect, policy):
    server = stand_ins()
    never_idle(server)
    with pytest.raises(RolloutError, match=r"did not empty its prefix cache within 0\.3 s.*somebody else run on it"):
        connect(server, health_timeout_s=0.3, wait_s=0).sync(policy, 1)
    assert server.tag.startswith("loading:")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"urls": ()}, "urls is empty"),
        ({"urls": ("http://a:1", "http://a:1/")}, "urls names 'http://a:1' twice"),
        ({"urls": ("http://a",), "concurrency": 0}, "concurrency is 0"),
        ({"urls": ("http://a",), "request_timeout_s": 0}, "request_timeout_s is 0"),
        ({"urls": ("http://a",), "wait_s": float("nan")}, "wait_s is nan"),
        ({"urls": ("http://a",), "retries": -1}, "retries is -1"),
        ({"urls": ("127.0.0.1:8100",)}, "urls names '127.0.0.1:8100' without http://"),
        ({"urls": ("http://a:port",)}, "Port could not be cast"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(RolloutError, match=message):
        VLLMServerBackend(ServerOptions(**options), eos_token_ids=[EOS])
    with pytest.raises(RolloutError, match="eos_token_ids is empty"):
        VLLMServerBackend(ServerOptions(urls=("http://a",)), eos_token_ids=[])


def test_requests_that_no_server_can_answer_reach_none(stand_ins, connect, policy):
    server = stand_ins()
    backend = connect(server)
    backend.sync(policy, 1)
    asked = server.count("/v1/completions")
    for prompts, n, sampling, message in [
        ([[]], 1, SHORT, "prompt 0 has no tokens"),
        ([[32]], 1, SHORT, "the model knows 0 to 31"),
        ([[5] * 120], 1, SamplingParams(max_new_tokens=9), "context of 128"),
        ([[5]], 0, SHORT, "n is 0"),
        ([[5]], 1, SamplingParams(temperature=3, max_new_tokens=6), "temperature is 3"),
    ]:
        with pytest.raises(RolloutError, match=message):
            backend.generate(prompts, n, sampling, [0])
    assert server.count("/v1/completions") == asked
    assert backend.generate([], 1, SHORT, []) == []


def test_prompts_and_seeds_may_be_numpy_integers(stand_ins, connect, policy):
    backend = connect(stand_ins())
    backend.sync(policy, 1)
    plain = backend.generate([[5, 6]], 1, SHORT, [3])
    assert backend.generate(np.array([[5, 6]]), 1, SHORT, np.array([3])) == plain


def test_life_cycle(stand_ins, connect, policy):
    backend = connect(stand_ins())
    backend.sync(policy, 1)
    backend.sleep()
    with pytest.raises(RolloutError, match="asleep; call wake"):
        backend.generate([[5]], 1, SHORT, [0])
    backend.wake()
    assert len(backend.generate([[5]], 1, SHORT, [0])) == 1
    backend.close()
    backend.close()
    for call in (lambda: backend.generate([[5]], 1, SHORT, [0]), lambda: backend.sync(policy, 2), backend.sleep):
        with pytest.raises(RolloutError, match="closed; make a new one"):
            call()
    assert not any(thread.name == "rollout-servers" and thread.is_alive() for thread in threading.enumerate())


def test_unreachable_servers_are_named_within_the_time(connect, policy):
    backend = connect("http://127.0.0.1:9", "http://127.0.0.1:10", wait_s=0.5)
    with pytest.raises(RolloutError) as caught:
        backend.sync(policy, 1)
    message = str(caught.value)
    assert "for 0.5 s: http://127.0.0.1:9 (for " in message
    assert "http://127.0.0.1:10 (for " in message
    assert "ConnectionRefusedError" in message
    assert "rltoolkit serve" in message


def test_another_process_follows_what_one_synced(stand_ins, connect, policy, prompts, check_logprobs):
    servers = stand_ins(2)
    owner, follower = connect(*servers), connect(*servers, wait_s=0.3)
    assert owner.shared_policy is None
    owner.sync(policy, 4)
    shared = pickle.loads(pickle.dumps(owner.shared_policy))
    assert shared == owner.shared_policy
    follower.follow(shared)
    samples = follower.generate(prompts, 1, SHORT, range(24))
    check_logprobs(policy, prompts, samples)
    assert samples == owner.generate(prompts, 1, SHORT, range(24))
    assert samples[0][0].version == follower.version == 4
    servers[0].forget()  # the owner loads it again, the follower goes on with the other one meanwhile
    check_logprobs(policy, prompts[:4], follower.generate(prompts[:4], 1, SHORT, range(4)))
    with torch.no_grad():
        policy.lm_head.weight.mul_(0.5)
    owner.sync(policy, 4)  # the same version, yet not what the follower was told
    with pytest.raises(RolloutError, match="waits for the process that synced"):
        follower.generate(prompts[:1], 1, SHORT, [0])


def test_an_adapter_is_followed_too(stand_ins, connect, policy, prompts, check_logprobs):
    server = stand_ins()
    server.lora_rank = 8
    lora = adapted(policy)
    owner, follower = connect(server), connect(server)
    owner.sync(lora, 1)
    follower.follow(owner.shared_policy)
    check_logprobs(lora, prompts[:2], follower.generate(prompts[:2], 1, SHORT, range(2)))


def test_ctrl_c_leaves_at_once_and_the_backend_goes_on(stand_ins, connect, policy):
    server = stand_ins()
    backend = connect(server)
    backend.sync(policy, 1)
    server.fault = lambda path: "hang" if path == "/v1/completions" else None
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    started = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            backend.generate([[5], [6]], 1, SHORT, [0, 1])
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)
    assert time.monotonic() - started < 4
    server.fault = lambda path: None
    assert len(backend.generate([[5]], 1, SHORT, [0])) == 1


def test_an_interpreter_that_forgets_to_close_ends_all_the_same(stand_ins, policy, tmp_path):
    server = stand_ins()
    policy.save_pretrained(tmp_path)
    script = f"""
from rltoolkit.rollout.servers.backend import ServerOptions, VLLMServerBackend
from rltoolkit.rollout.weights import load_policy
from rltoolkit.types import SamplingParams
backend = VLLMServerBackend(ServerOptions(urls=({server.url!r},)), eos_token_ids=[2])
backend.sync(load_policy({str(tmp_path)!r}), 1)
print(backend._folder.path, len(backend.generate([[5]], 1, SamplingParams(max_new_tokens=2), [0])))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder, count = done.stdout.split()
    assert count == "1"
    assert not Path(folder).exists()


def in_a_fork(use):
    """Return the exit status of `use` in a forked child, 1 for an exception."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(use())
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_process_is_told_to_make_its_own_and_takes_nothing_away(stand_ins, connect, policy):
    backend = connect(stand_ins())
    backend.sync(policy, 1)

    def child():
        with pytest.raises(RolloutError, match="made before a fork"):
            backend.generate([[5]], 1, SHORT, [0])
        folder = backend._folder
        backend.close()
        folder._end()  # what the end of an interpreter calls
        return 7

    assert in_a_fork(child) == 7
    assert any(backend._folder.path.glob("*/model.safetensors"))
    assert len(backend.generate([[5]], 1, SHORT, [0])) == 1

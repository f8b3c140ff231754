import threading
import time
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from standin import end_unseen

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers import dispatch
from rltoolkit.types import SamplingParams

SHORT = SamplingParams(max_new_tokens=4)
COMPLETIONS = "/v1/completions"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Have failures asked again sooner than real servers need."""
    monkeypatch.setattr(dispatch, "FIRST_PAUSE_S", 0.05)


@pytest.fixture
def synced(stand_ins, connect, policy):
    """Return a maker of stand-ins and a backend whose policy they all have."""

    def make(count=1, **options):
        made = stand_ins(count)
        servers = made if count > 1 else [made]
        backend = connect(*servers, **options)
        backend.sync(policy, 3)
        for server in servers:
            server.paths.clear()
        return backend, servers

    return make


def faulty(server, fault, times=10**9, path=COMPLETIONS):
    """Have the next requests for `path` fail."""
    left = iter(range(times))

    def decide(asked):
        return fault if asked == path and next(left, None) is not None else None

    server.fault = decide


def once_asked(server, action, requests=1):
    """Do something to a server beside its answers, once it was asked."""

    def wait():
        while server.count(COMPLETIONS) < requests:
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def many(count):
    return [[3 + i % 29, 3 + i // 29] for i in range(count)]


def test_the_least_loaded_server_is_asked(synced, policy, check_logprobs):
    backend, (quick, slow) = synced(2, concurrency=4)
    faulty(slow, 0.2)
    prompts = many(60)
    check_logprobs(policy, prompts, backend.generate(prompts, 1, SHORT, range(60)))
    assert quick.count(COMPLETIONS) + slow.count(COMPLETIONS) == 60
    assert quick.count(COMPLETIONS) > 2 * slow.count(COMPLETIONS) > 0
    assert 2 <= max(quick.most_running, slow.most_running) <= 8


def test_equal_servers_get_equal_shares(synced):
    backend, (one, other) = synced(2, concurrency=8)
    for server in (one, other):
        faulty(server, 0.5)
    backend.generate(many(8), 1, SHORT, range(8))
    assert one.count(COMPLETIONS) == other.count(COMPLETIONS) == 4


def test_many_requests_need_few_connections(synced, policy, check_logprobs):
    backend, (server,) = synced(concurrency=8)
    before = server.connections
    prompts = many(160)
    samples = backend.generate(prompts, 1, SamplingParams(max_new_tokens=1), range(160))
    check_logprobs(policy, prompts, samples)
    assert server.connections - before <= 8 + 3
    assert server.most_running <= 8
    assert server.count("/weight_info") < 140  # looks are shared by answers that come together


def test_a_server_that_dies_loses_nothing(synced, policy, check_logprobs):
    backend, (one, other) = synced(2, concurrency=8)
    faulty(one, 0.1)
    faulty(other, 0.05)
    killer = once_asked(one, one.die)
    prompts = many(60)
    samples = backend.generate(prompts, 2, SHORT, range(60))
    killer.join()
    check_logprobs(policy, prompts, samples)
    assert [len(group) for group in samples] == [2] * 60
    assert 60 <= one.count(COMPLETIONS) + other.count(COMPLETIONS) <= 60 + 8
    assert other.most_running <= 8  # its own share, not that of the dead one, too


def test_a_server_that_comes_back_with_its_start_weights_gets_the_policy_first(synced, policy, check_logprobs):
    backend, (server,) = synced(concurrency=4)
    faulty(server, 0.05)

    def restart():
        server.die()
        time.sleep(0.5)
        server.start()

    restarter = once_asked(server, restart, requests=6)
    prompts = many(30)
    samples = backend.generate(prompts, 1, SHORT, range(30))
    restarter.join()
    check_logprobs(policy, prompts, samples)
    assert server.tag.startswith(f"{backend.shared_policy.policy}:3:")


def test_no_sample_of_a_server_that_forgot_the_policy_unnoticed_is_taken(synced, policy, check_logprobs):
    backend, (one, _) = synced(2, concurrency=4)
    prompts = many(120)

    def forget_again_and_again():
        for _ in range(3):
            time.sleep(0.1)
            one.forget()

    forgetter = once_asked(one, forget_again_and_again)
    samples = backend.generate(prompts, 1, SHORT, range(120))
    forgetter.join()
    check_logprobs(policy, prompts, samples)
    assert len(one.loaded) >= 2  # the sync, and at least once after it


def test_all_servers_away_and_back_again(synced, policy, check_logprobs):
    backend, servers = synced(2)
    for server in servers:
        server.die()
    timer = threading.Timer(0.6, servers[1].start)
    timer.start()
    samples = backend.generate(many(5), 1, SHORT, range(5))
    timer.join()
    check_logprobs(policy, many(5), samples)
    assert len(servers[1].loaded) == 2


def test_a_sync_waits_for_a_server_and_the_others_get_the_policy_later(stand_ins, connect, policy, check_logprobs):
    one, other = stand_ins(2)
    one.die()
    other.die()
    timers = [threading.Timer(0.3, one.start), threading.Timer(1.0, other.start)]
    for timer in timers:
        timer.start()
    backend = connect(one, other, concurrency=1)
    backend.sync(policy, 1)
    assert other.tag == "default"
    faulty(one, 0.1)
    samples = backend.generate(many(30), 1, SHORT, range(30))
    check_logprobs(policy, many(30), samples)
    assert other.count(COMPLETIONS) > 8  # beside the proof
    for timer in timers:
        timer.join()


def test_all_servers_away_for_too_long(synced):
    backend, servers = synced(2, wait_s=0.7)
    for server in servers:
        server.die()
    started = time.monotonic()
    with pytest.raises(RolloutError) as caught:
        backend.generate(many(5), 1, SHORT, range(5))
    assert 0.5 < time.monotonic() - started < 6
    message = str(caught.value)
    assert all(f"{server.url} (for" in message for server in servers)
    assert "no server could be used for 0.7 s" in message
    assert "ConnectionRefusedError" in message
    assert "Start them again" in message


def test_the_wait_begins_with_the_call(synced, policy):
    backend, (server,) = synced()
    server.die()
    backend._servers[0].mark_down("away for long")
    backend._pool._none_since = -1e9
    timer = threading.Timer(0.3, server.start)
    timer.start()
    assert len(backend.generate([[5]], 1, SHORT, [0])) == 1
    timer.join()


def test_a_server_that_hangs_is_left(synced, policy, check_logprobs):
    backend, (one, other) = synced(2, health_timeout_s=0.5)
    one.fault = lambda path: "hang"
    started = time.monotonic()
    prompts = many(20)
    samples = backend.generate(prompts, 1, SHORT, range(20))
    assert time.monotonic() - started < 15  # request_timeout_s is 20
    check_logprobs(policy, prompts, samples)
    started = time.monotonic()
    backend.sync(policy, 4)  # does not wait for it again
    backend.generate(prompts, 1, SHORT, range(20))
    assert other.tag.startswith(f"{backend.shared_policy.policy}:4:")
    assert not one.tag.startswith(backend.shared_policy.policy)


def test_an_engine_that_hangs_behind_a_healthy_front_is_left(synced, policy, check_logprobs):
    backend, (one, _) = synced(2, health_timeout_s=0.5, request_timeout_s=1.0)
    faulty(one, "hang")
    prompts = many(20)
    check_logprobs(policy, prompts, backend.generate(prompts, 1, SHORT, range(20)))


def test_a_slow_server_is_not_given_up(synced, policy, check_logprobs):
    backend, (server,) = synced(health_timeout_s=0.7, concurrency=2)
    server.fault = lambda path: {COMPLETIONS: 0.9, "/health": 0.2}.get(path)
    samples = backend.generate(many(4), 1, SHORT, range(4))
    check_logprobs(policy, many(4), samples)
    assert server.count(COMPLETIONS) == 4
    assert server.count("/health") >= 2
    assert len(server.loaded) == 1


def test_a_server_with_a_queue_is_slow_not_hung(synced, policy, check_logprobs, caplog):
    backend, (server,) = synced(health_timeout_s=1.0, request_timeout_s=0.6, retries=20, concurrency=32)
    server.queue_s = 0.06  # of 32 at once, 10 are answered in time
    prompts = many(32)
    check_logprobs(policy, prompts, backend.generate(prompts, 1, SHORT, range(32)))
    assert server.count(COMPLETIONS) > 32
    assert "not asked any more" not in caplog.text
    assert len(server.loaded) == 1


def test_a_server_that_comes_back_without_room_for_the_adapter_is_left(synced, policy, check_logprobs, caplog):
    backend, (one, other) = synced(2)
    one.lora_rank = other.lora_rank = 8
    lora = get_peft_model(policy, LoraConfig(r=4, target_modules=["q_proj"]))
    backend.sync(lora, 4)
    loads = len(one.loaded)
    one.lora_rank = None
    one.forget()
    samples = backend.generate(many(20), 1, SHORT, range(20))
    check_logprobs(lora, many(20), samples)
    time.sleep(0.5)
    assert len(one.loaded) == loads
    assert caplog.text.count("takes adapters up to rank 0, the policy's has 4") == 1


def test_a_server_that_comes_back_with_a_shorter_context_is_left(synced, policy, check_logprobs):
    backend, (one, other) = synced(2)
    one.max_model_len = 16
    one.forget()
    long = [[5] * 20 + [3 + i] for i in range(20)]
    check_logprobs(policy, long, backend.generate(long, 1, SHORT, range(20)))
    assert len(one.loaded) == 1
    other.die()
    backend._pool._times = replace(backend._pool._times, wait_s=0.3)
    with pytest.raises(RolloutError, match=r"has max_model_len 16, those of the sync had 128"):
        backend.generate(long, 1, SHORT, range(20))


def test_a_server_that_cannot_load_does_not_end_the_sync_of_the_others(synced, policy, check_logprobs, caplog):
    backend, (one, other) = synced(2)
    one.fault = lambda path: 500 if path == "/collective_rpc" and one.tag.startswith("loading") else None
    other.fault = lambda path: 0.2 if path == "/collective_rpc" else None  # it loads for longer than the first fails
    backend.sync(policy, 4)
    check_logprobs(policy, many(6), backend.generate(many(6), 1, SHORT, range(6)))
    assert other.tag.startswith(f"{backend.shared_policy.policy}:4:")
    assert "HTTP 500: something broke; the server must see the folder" in caplog.text


def test_a_server_that_hangs_while_it_loads_holds_a_sync_no_longer_than_a_look(synced, policy, check_logprobs, caplog):
    backend, (one, other) = synced(2, health_timeout_s=0.7)
    one.fault = lambda path: "hang" if path == "/collective_rpc" and one.tag.startswith("loading") else None
    started = time.monotonic()
    backend.sync(policy, 4)
    assert time.monotonic() - started < 10  # request_timeout_s is 20
    check_logprobs(policy, many(6), backend.generate(many(6), 1, SHORT, range(6)))
    assert f"sampling without {one.url}" in caplog.text
    assert other.tag.startswith(f"{backend.shared_policy.policy}:4:")


def test_a_watch_survives_what_nobody_expected(synced, monkeypatch, policy, check_logprobs):
    monkeypatch.setattr(dispatch, "REFUSED_PAUSE_S", 0.1)
    backend, (server,) = synced()
    broken = iter([True])
    bring = backend._pool._policy.bring

    async def surprise(server):
        if next(broken, False):
            raise KeyError("nobody knows")
        await bring(server)

    backend._pool._policy.bring = surprise
    server.forget()
    check_logprobs(policy, [[5]], backend.generate([[5]], 1, SHORT, [0]))


def test_between_calls_a_follower_leaves_the_servers_alone(synced, connect):
    backend, (server,) = synced(health_timeout_s=0.3)
    follower = connect(server, health_timeout_s=0.3)
    follower.follow(backend.shared_policy)
    end_unseen(backend)
    server.paths.clear()
    time.sleep(0.4)
    assert len(server.paths) <= 1  # a look may have been under way
    server.fault = lambda path: "hang" if path == "/weight_info" else None  # as one that loads
    time.sleep(0.4)
    server.fault = lambda path: None
    assert len(follower.generate([[5]], 1, SHORT, [0])) == 1


@pytest.mark.parametrize("fault", ["cut", "drop", "html", 500, 502, 404])
def test_a_request_that_fails_now_and_then_is_asked_again(synced, policy, check_logprobs, fault):
    backend, (one, other) = synced(2, concurrency=2)
    faulty(one, fault, times=2)
    prompts = many(12)
    samples = backend.generate(prompts, 1, SHORT, range(12))
    check_logprobs(policy, prompts, samples)
    assert one.count(COMPLETIONS) + other.count(COMPLETIONS) >= 13


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", "the answer was cut off"),
        ("html", "HTTP 200 with a body that is no JSON: <html>"),
        (500, "HTTP 500: something broke"),
    ],
)
def test_a_request_that_always_fails_is_an_error(synced, fault, message):
    backend, (server,) = synced(retries=2)
    faulty(server, fault)
    with pytest.raises(RolloutError) as caught:
        backend.generate([[5]], 1, SHORT, [0])
    assert "prompt 0 failed 3 times on servers that are up" in str(caught.value)
    assert f"POST {server.url}/v1/completions" in str(caught.value)
    assert message in str(caught.value)
    assert server.count(COMPLETIONS) == 3


def test_a_request_past_its_deadline_on_a_healthy_server_is_an_error(synced):
    backend, (server,) = synced(retries=1, request_timeout_s=0.4)
    faulty(server, 1.0)
    with pytest.raises(RolloutError, match=r"failed 2 times.*no answer within 0\.4 s.*request_timeout_s or lower conc"):
        backend.generate([[5]], 1, SHORT, [0])


def test_a_proxy_without_a_server_behind_it_is_waited_for(synced, policy, check_logprobs):
    backend, (server,) = synced()
    server.fault = lambda path: 502
    threading.Timer(0.8, setattr, (server, "fault", lambda path: None)).start()
    check_logprobs(policy, [[5]], backend.generate([[5]], 1, SHORT, [0]))


def test_the_callers_mistake_ends_the_call_at_once(synced):
    backend, (server,) = synced(concurrency=4)
    server.fault = lambda path: (400 if server.count(COMPLETIONS) == 3 else 0.3) if path == COMPLETIONS else None
    with pytest.raises(RolloutError, match=f"POST {server.url}.*HTTP 400: something broke; change the request"):
        backend.generate(many(50), 1, SHORT, range(50))
    assert server.count(COMPLETIONS) <= 8
    asked = server.count(COMPLETIONS)
    time.sleep(0.5)
    assert server.count(COMPLETIONS) == asked  # the others were cancelled


def test_a_request_that_ends_every_server_is_not_asked_for_ever(synced, monkeypatch):
    monkeypatch.setattr(dispatch, "MOST_LOSSES", 2)
    backend, (server,) = synced()
    policy = backend.shared_policy.policy

    def deadly(path):
        if path == COMPLETIONS and server.tag.startswith(policy):
            server.forget()

    server.fault = deadly
    with pytest.raises(RolloutError, match=r"prompt 0 was on a server that went down 3 times.*it may be this request"):
        backend.generate([[5]], 1, SHORT, [0])


def test_two_runs_on_one_server_are_told_so(synced):
    backend, (server,) = synced()
    policy = backend.shared_policy.policy

    def another_run(path):
        if path == COMPLETIONS and server.tag.startswith(policy):
            server.tag = "somebody:1:else"

    server.fault = another_run
    with pytest.raises(RolloutError, match=f"^another run uses {server.url}: .*servers of its own"):
        backend.generate(many(20), 1, SHORT, range(20))
    server.fault = lambda path: None  # the other one has ended
    assert len(backend.generate([[5]], 1, SHORT, [0])) == 1


def test_two_backends_may_use_a_server_in_turn(synced, connect, tiny_model, policy, check_logprobs):
    backend, (server,) = synced()
    other_policy = tiny_model(seed=6, dtype=torch.float32).eval()
    other = connect(server)
    for turn in range(2):
        other.sync(other_policy, turn)
        check_logprobs(other_policy, [[5]], other.generate([[5]], 1, SHORT, [0]))
        check_logprobs(policy, [[5]], backend.generate([[5]], 1, SHORT, [0]))  # loads it again


def test_a_load_that_somebody_else_crossed_is_done_again(stand_ins, connect, policy, check_logprobs):
    server = stand_ins()
    backend = connect(server)
    crossed = iter([True])

    def cross(path):
        if path == "/reset_prefix_cache" and next(crossed, False):
            server.forget()  # other weights, and another tag, between our load and our tag
            server.tag = "loading:another:1:run"

    server.fault = cross
    backend.sync(policy, 1)
    assert server.count("/reset_prefix_cache") == 2
    check_logprobs(policy, [[5]], backend.generate([[5]], 1, SHORT, [0]))


def test_restarts_while_it_loads_are_no_conflict(stand_ins, connect, policy):
    server = stand_ins()
    left = iter([True] * 5)
    server.fault = lambda path: server.forget() if path == "/reset_prefix_cache" and next(left, None) else None
    connect(server).sync(policy, 1)
    assert server.count("/reset_prefix_cache") == 6


def test_the_cache_is_emptied_between_load_and_tag(synced, policy):
    backend, (server,) = synced()
    backend.sync(policy, 4)
    steps = ("/update_weight_version", "/collective_rpc", "/reset_prefix_cache")
    order = [path for path in server.paths if path in steps]
    assert order[-4:] == [steps[0], steps[1], steps[2], steps[0]]

"""The pool where the system, the caller or a check does what it should not: no call hangs, and the next one works."""

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from forks import in_a_fork
from misbehaving_verifiers import ByCommand

from reward_models import IntegerVerifier, Outcome, VerifierError, VerifierPool


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(ByCommand(), workers=1, timeout_s=1.0) as running:
        yield running


def test_a_worker_that_cannot_be_replaced_ends_the_call_and_not_the_pool(pool: VerifierPool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            with pytest.raises(VerifierError, match=r"a worker process cannot be started \(.*Too many open files"):
                pool.check("exit 1", "x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pool.check("ok", "ok").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("written", "seconds", "outcome"),
    [
        ("0000", "60", Outcome.TIMEOUT),  # the start of a length
        ("0000001041", "60", Outcome.TIMEOUT),  # a length, and one byte of as many as it says
        ("ffffffff", "60", Outcome.ERROR),  # the length of a message beyond two gigabytes
        ("7fffffff", "60", Outcome.ERROR),
        ("00000001" + b"x".hex(), "60", Outcome.ERROR),  # a message that is no JSON
        ("00000002" + b"{}".hex(), "60", Outcome.ERROR),
        ("00001000" + b"[".hex() * 4096, "60", Outcome.ERROR),
        ("0000", "0", Outcome.ERROR),  # and then a verdict
    ],
)
def test_bytes_on_the_wire_cost_the_row_that_wrote_them(
    pool: VerifierPool, written: str, seconds: str, outcome: Outcome
) -> None:
    start = time.perf_counter()
    verdicts = pool.check_many(["ok", f"wire {written} {seconds}", "ok"], ["ok"] * 3)
    assert [verdict.outcome for verdict in verdicts] == [Outcome.CORRECT, outcome, Outcome.CORRECT]
    assert time.perf_counter() - start < 30  # the limit is 1 s; without it, the 60 s of sleep


@pytest.mark.slow
def test_a_worker_that_reads_no_more_does_not_hold_the_pool() -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=30.0, start_timeout_s=20.0) as pool:
        os.kill(int(pool.check("pid", "x").extracted or 0), signal.SIGSTOP)
        assert pool.check("x" * 10_000_000, "x").outcome is Outcome.WRONG  # more than the socket holds


def test_closing_ends_the_calls_of_other_threads() -> None:
    raised: list[str] = []

    def judge(pool: VerifierPool) -> None:
        try:
            pool.check_many(["sleep 100"] * 3, ["x"] * 3)
        except VerifierError as error:
            raised.append(str(error))

    start = time.perf_counter()
    with VerifierPool(ByCommand(), workers=1, timeout_s=100) as pool:
        threads = [threading.Thread(target=judge, args=(pool,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(timeout=60)
    assert raised == ["the pool is closed; start a new VerifierPool"] * 2
    assert time.perf_counter() - start < 60  # one check alone would take 100 s


def test_a_fork_of_a_busy_pool_is_refused_and_does_not_wait(pool: VerifierPool) -> None:
    thread = threading.Thread(target=pool.check_many, args=(["sleep 0.9"] * 4, ["x"] * 4))
    thread.start()
    time.sleep(0.3)
    remedy = "start a pool in the process that uses it"
    refused = in_a_fork(lambda: pool.check("ok", "ok"))
    closed = in_a_fork(pool.close)
    thread.join(timeout=60)
    assert remedy in refused
    assert closed == "None"
    assert remedy in in_a_fork(lambda: pool.check("ok", "ok"))
    assert pool.check("ok", "ok").outcome is Outcome.CORRECT


def test_the_same_verifier_is_known_again(pool: VerifierPool) -> None:
    assert pool.judges_like(ByCommand())
    assert not pool.judges_like(IntegerVerifier())

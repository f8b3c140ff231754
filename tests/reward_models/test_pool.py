"""The pool: order, deadlines, deaths, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from misbehaving_verifiers import ByCommand, FailsToLoad, LengthOnly, Unpicklable

from reward_models import CountdownVerifier, Outcome, Verdict, VerifierError, VerifierPool

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(ByCommand(), workers=2, timeout_s=2.0) as running:
        yield running


def live_children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def outcomes(pool: VerifierPool, responses: list[str]) -> list[Outcome]:
    return [verdict.outcome for verdict in pool.check_many(responses, ["ok"] * len(responses))]


def test_verdicts_keep_the_order(pool: VerifierPool) -> None:
    responses = [f"sleep {0.1 if i % 7 == 0 else 0}" if i % 5 == 0 else str(i) for i in range(60)]
    verdicts = pool.check_many(responses, [str(i) if i % 2 else "other" for i in range(60)])
    for i, verdict in enumerate(verdicts):
        if i % 5 == 0:
            assert verdict == Verdict.correct("slept")
        else:
            assert verdict == (Verdict.correct(str(i)) if i % 2 else Verdict.wrong(str(i)))


def test_nothing_to_check(pool: VerifierPool) -> None:
    assert pool.check_many([], []) == []


@pytest.mark.parametrize("hang", ["sleep 60", "spin"])
def test_a_hang_is_killed_and_costs_only_itself(pool: VerifierPool, hang: str) -> None:
    start = time.perf_counter()
    got = outcomes(pool, ["ok", "no", hang] + ["ok"] * 20)
    # The limit is 2 s; the rest is allowance for two busy cores.
    assert time.perf_counter() - start < 10
    assert got == [Outcome.CORRECT, Outcome.WRONG, Outcome.TIMEOUT] + [Outcome.CORRECT] * 20


def test_more_hangs_than_workers(pool: VerifierPool) -> None:
    assert outcomes(pool, ["sleep 60"] * 3 + ["ok"]) == [Outcome.TIMEOUT] * 3 + [Outcome.CORRECT]


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ("exit 7", "ended with exit status 7 during the check"),
        ("leave now", "ByCommand.check raised SystemExit: 3"),
        ("raise trouble", "ByCommand.check raised RuntimeError: trouble"),
        ("raise ", "raised RuntimeError: (its text cannot be printed)"),
        ("number", "returned float, expected Verdict"),
        ("unprintable", "returned a Verdict with extracted int and detail str, expected str"),
        ("deep", "ByCommand.check raised RecursionError"),
        ("signal SIGSEGV", "was ended by signal 11 during the check"),
    ],
)
def test_a_failure_is_an_error_of_one_answer(pool: VerifierPool, response: str, detail: str) -> None:
    verdicts = pool.check_many(["ok", response, "ok", "ok"], ["ok"] * 4)
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.ERROR, Outcome.CORRECT, Outcome.CORRECT]
    assert detail in verdicts[1].detail
    assert verdicts[1].score is None


def test_memory_is_limited_and_given_back() -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=60, memory_mb=900) as pool:
        before = pool.check("pid", "x").extracted
        eaten = pool.check("eat everything", "x")
        assert eaten.outcome is Outcome.ERROR
        assert "raised MemoryError" in eaten.detail
        assert pool.check("pid", "x").extracted not in {None, before}


def test_a_large_parent_does_not_hide_what_a_worker_eats() -> None:
    ballast = bytearray(1_500_000_000)  # a trainer's process is larger than its workers ever get
    ballast[::4096] = b"x" * len(ballast[::4096])
    test_memory_is_limited_and_given_back()
    assert len(ballast) == 1_500_000_000


def test_processor_time_is_limited_anew_for_every_answer() -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=30) as pool:
        granted = [float(pool.check(f"cpu {used}", "x").extracted or 0) for used in (1.2, 1.2, 0)]
    # the time limit, a second more, and up to one for the system's whole seconds
    assert all(31 <= seconds <= 32.5 for seconds in granted)


def test_too_much_processor_time_is_a_timeout(pool: VerifierPool) -> None:
    verdicts = pool.check_many(["ok", "signal SIGXCPU", "ok"], ["ok"] * 3)
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.TIMEOUT, Outcome.CORRECT]
    assert "more processor time than its time limit" in verdicts[1].detail


@pytest.mark.slow
def test_a_thread_that_a_check_left_behind_does_not_stop_the_pool() -> None:
    with VerifierPool(ByCommand(), workers=1, timeout_s=1.0) as pool:
        assert pool.check("haunt 0.1", "x").extracted == "haunted"
        time.sleep(0.5)
        # more than a socket holds: nobody reads it until the system ends the thread for its processor time
        assert outcomes(pool, ["x" * 10_000_000, "ok"]) == [Outcome.WRONG, Outcome.CORRECT]


def test_no_file_grows_large(pool: VerifierPool) -> None:
    assert pool.check("write 1000000", "x").extracted == "written"
    too_much = pool.check("write 20000000", "x")
    assert too_much.outcome is Outcome.ERROR
    assert "File too large" in too_much.detail


def test_a_verifier_does_not_write_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with VerifierPool(ByCommand(), workers=1) as pool:
        assert pool.check("say hello", "x").extracted == "said"
    assert capfd.readouterr() == ("", "")


def test_what_is_no_text_is_judged_without_a_worker(pool: VerifierPool) -> None:
    responses: list[str] = [b"ok", "ok", None]  # type: ignore[list-item]
    references: list[str] = ["ok", 7, "ok"]  # type: ignore[list-item]
    got = pool.check_many(responses, references)
    assert [v.outcome for v in got] == [Outcome.ERROR, Outcome.BAD_REFERENCE, Outcome.ERROR]
    assert "bytes, expected str" in got[0].detail


def test_any_text_arrives_unchanged() -> None:
    texts = ["x" * 10_000_000, "\ud800", "\x00\u2028\U0001f600", "line\r\nline\n"]
    with VerifierPool(LengthOnly(), workers=1, timeout_s=30) as pool:
        verdicts = pool.check_many(texts, ["a\ud800", "b", "c", "d"])
    assert [v.extracted for v in verdicts] == [f"{len(t)} {ord(t[-1])}" for t in texts]
    assert [v.detail for v in verdicts] == ["a\ud800", "b", "c", "d"]


def test_long_verdicts_are_cut(pool: VerifierPool) -> None:
    verdict = pool.check("length", "x")
    assert verdict.extracted == "x" * 2000
    assert verdict.detail == "y" * 2000


def test_workers_have_no_torch_and_no_secrets(pool: VerifierPool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.check("loaded torch", "x").extracted == "False"
    assert pool.check("loaded reward_models", "x").extracted == "True"
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "secret")
    with VerifierPool(ByCommand(), workers=1) as fresh:
        assert fresh.check("environment SOME_SERVICE_TOKEN", "x").extracted == "None"
        assert fresh.check("environment PATH", "x").extracted == os.environ["PATH"]
        assert fresh.check("environment OMP_NUM_THREADS", "x").extracted == "1"


def test_lengths_must_agree(pool: VerifierPool) -> None:
    with pytest.raises(VerifierError, match="2 responses and 1 references"):
        pool.check_many(["a", "b"], ["a"])


def test_closing_leaves_no_child() -> None:
    before = live_children()
    pool = VerifierPool(ByCommand(), workers=3, timeout_s=0.5)
    assert len(live_children() - before) == 3
    outcomes(pool, ["sleep 60", "exit 1", "ok"])
    pool.close()
    assert live_children() <= before
    pool.close()
    with pytest.raises(VerifierError, match="the pool is closed"):
        pool.check("ok", "ok")


def test_a_forgotten_pool_is_closed_with_its_last_reference() -> None:
    before = live_children()
    pool = VerifierPool(ByCommand(), workers=1)
    assert live_children() - before
    del pool
    assert live_children() <= before


def test_processes_that_a_verifier_started_die_with_it() -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    with VerifierPool(ByCommand(), workers=1, timeout_s=1.0) as pool:
        assert pool.check(f"family {marker}", "x").outcome is Outcome.TIMEOUT
    deadline = time.monotonic() + 5
    while (left := _running_with(marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_processes_that_a_verifier_left_when_it_ended_die_too() -> None:
    marker = f"orphan-{os.getpid()}-{time.monotonic_ns()}"
    with VerifierPool(ByCommand(), workers=1) as pool:
        verdicts = pool.check_many([f"orphan {marker}", "ok"], ["x", "ok"])
        assert [v.outcome for v in verdicts] == [Outcome.ERROR, Outcome.CORRECT]
        deadline = time.monotonic() + 5
        while (left := _running_with(marker)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


def test_outcomes_are_counted_since_the_start() -> None:
    with VerifierPool(ByCommand(), workers=2, timeout_s=0.5) as pool:
        assert pool.counts == {}
        outcomes(pool, ["ok", "no", "sleep 60", "exit 1", "ok"])
        pool.check_many(["ok", "ok"], ["ok", 7])  # type: ignore[list-item]
        expected = {"correct": 3, "wrong": 1, "timeout": 1, "error": 1, "bad_reference": 1}
        assert pool.counts == expected
        pool.counts.clear()
        assert pool.counts == expected


def test_a_coroutine_does_not_stop_the_event_loop(pool: VerifierPool) -> None:
    async def ticks() -> int:
        count = 0
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                return count
            count += 1

    async def main() -> tuple[list[Verdict], int]:
        ticking = asyncio.create_task(ticks())
        verdicts = await pool.acheck_many(["sleep 0.5", "no"], ["ok"] * 2)
        ticking.cancel()
        return verdicts, await ticking

    before = pool.counts.total()
    verdicts, count = asyncio.run(main())
    assert verdicts == [Verdict.correct("slept"), Verdict.wrong("no")]
    assert count >= 5
    assert pool.counts.total() == before + 2


def test_many_coroutines_at_once(pool: VerifierPool) -> None:
    async def main() -> list[list[Verdict]]:
        calls = [pool.acheck_many([f"row {i}", "raise trouble", f"row {i}"], [f"row {i}"] * 3) for i in range(12)]
        return await asyncio.gather(*calls)

    for i, verdicts in enumerate(asyncio.run(main())):
        assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.ERROR, Outcome.CORRECT]
        assert verdicts[0].extracted == f"row {i}"


def test_a_coroutine_that_is_cancelled_ends_its_checks() -> None:
    async def main(pool: VerifierPool) -> list[Verdict]:
        running = asyncio.create_task(pool.acheck_many(["sleep 100"] * 4, ["x"] * 4))
        waiting = asyncio.create_task(pool.acheck_many(["ok"], ["x"]))
        await asyncio.sleep(0.2)
        for task in (running, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return await pool.acheck_many(["ok", "no"], ["ok"] * 2)

    start = time.perf_counter()
    with VerifierPool(ByCommand(), workers=2, timeout_s=90) as pool:
        assert [v.outcome for v in asyncio.run(main(pool))] == [Outcome.CORRECT, Outcome.WRONG]
        assert pool.counts == {Outcome.CORRECT: 1, Outcome.WRONG: 1}
    # Without an end to the checks it would be the time limit; two busy cores need a few seconds.
    assert time.perf_counter() - start < 60


def test_works_from_other_threads_at_once(pool: VerifierPool) -> None:
    results: dict[int, list[Outcome]] = {}

    def work(index: int) -> None:
        results[index] = outcomes(pool, ["ok", "no"] * (10 + index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == {index: [Outcome.CORRECT, Outcome.WRONG] * (10 + index) for index in range(4)}


def test_can_be_started_in_another_thread() -> None:
    results: list[Outcome] = []

    def work() -> None:
        with VerifierPool(ByCommand(), workers=1, timeout_s=0.5) as pool:
            results.extend(outcomes(pool, ["sleep 60", "ok"]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=30)
    assert results == [Outcome.TIMEOUT, Outcome.CORRECT]


def test_a_worker_that_died_between_calls_is_nobodys_fault() -> None:
    with VerifierPool(ByCommand(), workers=2) as pool:
        pids = {int(verdict.extracted or 0) for verdict in pool.check_many(["pid"] * 40, ["x"] * 40)}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert _gone(list(pids), seconds=5.0)
        assert outcomes(pool, ["ok"] * 6) == [Outcome.CORRECT] * 6


def test_an_interrupted_call_leaves_no_stale_verdict() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with VerifierPool(ByCommand(), workers=2, timeout_s=5.0) as pool:
        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                pool.check_many(["sleep 1"] * 4, ["x"] * 4)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert outcomes(pool, ["no"]) == [Outcome.WRONG]
        assert outcomes(pool, ["no"]) == [Outcome.WRONG]


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (FailsToLoad(), "could not load the verifier: OSError: the grammar file is missing"),
        (Unpicklable(), "Unpicklable cannot be pickled"),
        (object(), "object, which has no method check"),
        (ByCommand, r"the verifier is the class ByCommand; give an instance, ByCommand\(...\)"),
    ],
)
def test_a_verifier_that_cannot_travel_is_refused_at_once(verifier: CountdownVerifier, message: str) -> None:
    before = live_children()
    with pytest.raises(VerifierError, match=message) as caught:
        VerifierPool(verifier)
    assert live_children() <= before
    assert caught.value.__traceback__ is not None  # which keeps the pool alive: it has closed itself


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; give a whole number from 1 to 1024"),
        ({"workers": 5000}, "workers is 5000"),
        ({"workers": 2.5}, "workers is 2.5"),
        ({"workers": "2"}, "workers is '2'"),
        ({"workers": True}, "workers is True"),
        ({"timeout_s": 0}, "timeout_s is 0; give a number of seconds > 0 to 604800"),
        ({"timeout_s": 1e9}, "timeout_s is 1000000000.0"),
        ({"timeout_s": "5"}, "timeout_s is '5'"),
        ({"timeout_s": None}, "timeout_s is None"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"memory_mb": 0}, "memory_mb is 0"),
        ({"memory_mb": 10**15}, "memory_mb is 1000000000000000"),
        ({"start_timeout_s": -1}, "start_timeout_s is -1"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        VerifierPool(CountdownVerifier(), **options)  # type: ignore[arg-type]


def test_a_start_that_takes_too_long_is_reported() -> None:
    before = live_children()
    with pytest.raises(VerifierError, match="did not load the verifier within start_timeout_s") as caught:
        VerifierPool(ByCommand(), workers=1, start_timeout_s=0.001)
    assert live_children() <= before
    assert caught.value.__traceback__ is not None


def test_a_pool_cannot_be_pickled(pool: VerifierPool) -> None:
    import pickle

    with pytest.raises(VerifierError, match="pickle the verifier and start a pool where it is used"):
        pickle.dumps(pool)


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = """
        from reward_models import CountdownVerifier, VerifierPool
        print("once")
        with VerifierPool(CountdownVerifier()) as pool:
            print(pool.check("\\\\boxed{(3+5)*2}", "numbers=3,5,2;target=16").outcome)
    """
    done = _run(tmp_path, script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\ncorrect\n", "")


def test_a_verifier_in_the_script_itself_is_explained(tmp_path: Path) -> None:
    script = """
        from reward_models import Verdict, VerifierPool
        class Mine:
            def check(self, response, reference):
                return Verdict.correct(response)
        VerifierPool(Mine())
    """
    done = _run(tmp_path, script)
    assert done.returncode == 1
    assert "Mine is defined in the script that is being run" in done.stderr
    assert "move the class into a file of its own and import it" in done.stderr


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)"])
def test_workers_end_with_their_parent(tmp_path: Path, ending: str) -> None:
    script = f"""
        import os, signal, sys, threading, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from misbehaving_verifiers import ByCommand
        from reward_models import VerifierPool
        pool = VerifierPool(ByCommand(), workers=2, timeout_s=0.5)
        print(*{{v.extracted for v in pool.check_many(["pid"] * 40, ["x"] * 40)}}, flush=True)
        {ending}
    """
    done = _run(tmp_path, script)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    assert _gone(pids, seconds=5.0)


def test_a_hanging_worker_ends_with_its_parent_too(tmp_path: Path) -> None:
    """Nothing but the kernel's alarm can end it: it computes in C and never reads its closed connection."""
    script = f"""
        import os, signal, sys, threading, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from misbehaving_verifiers import ByCommand
        from reward_models import VerifierPool
        pool = VerifierPool(ByCommand(), workers=1, timeout_s=0.5)
        print(pool.check("pid", "x").extracted, flush=True)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        pool.check("spin", "x")
    """
    done = _run(tmp_path, script)
    pids = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL
    assert psutil.pid_exists(pids[0])
    assert _gone(pids, seconds=15.0)


def _run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(textwrap.dedent(script), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=folder,
        check=False,
    )


def _gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(_runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _running_with(marker: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found

"""Where a judge is called from, and what it leaves behind: threads, forks, signals."""

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from judge_server import score

from reward_models import VerifierError
from reward_models.judge import Judge, JudgeOutcome, JudgeSettings

ROOT = Path(__file__).parents[3]
OK = JudgeOutcome.OK
# Of anyio, when a connection is given up in its first step.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp")


def test_within_a_running_event_loop(server):
    async def both():
        with Judge(server.settings()) as judge:
            direct = judge.score_many("anything", ["do: score 0.5"])
            aside = await asyncio.to_thread(judge.score_many, "anything", ["do: score 0.25"])
            return direct + aside

    assert [judgement.value for judgement in asyncio.run(both())] == [0.5, 0.25]


def test_a_copy_through_pickle_asks_for_itself(server):
    with Judge(server.settings()) as judge:
        judge.score_many("anything", ["do: score 0.5"])
        with pickle.loads(pickle.dumps(judge)) as copy:
            assert copy.score_many("anything", ["do: score 0.25"])[0].value == 0.25
            assert copy.counts().requests == 1


def judge_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("judge")]


def test_closing_leaves_no_threads_and_no_sockets(server):
    process = psutil.Process()
    score(server, ["score 0.5"])
    threads, files, sockets = threading.active_count(), process.num_fds(), len(process.net_connections())
    for _ in range(3):
        score(server, ["score 0.5", "cut", "hang"], timeout_s=0.3, max_retries=0)
    assert (threading.active_count(), process.num_fds(), len(process.net_connections())) == (threads, files, sockets)


def test_a_judge_that_nobody_closed_goes_with_its_last_reference(server):
    judge = Judge(server.settings())
    judge.score_many("anything", ["do: score 0.5"])
    assert judge_threads()
    del judge
    gc.collect()
    assert judge_threads() == []


def test_a_closed_judge_starts_again(server):
    judge = Judge(server.settings())
    for _ in range(2):
        assert judge.score_many("anything", ["do: score 0.5"])[0].value == 0.5
        judge.close()
        judge.close()
    assert judge.counts().requests == 2
    assert judge_threads() == []


def test_closing_under_a_running_batch_ends_it_with_one_sentence(server):
    judge = Judge(server.settings())
    said = []

    def ask():
        try:
            judge.score_many("anything", ["do: hang"])
        except VerifierError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(600):  # until the request is under way; bounded, not measured
        if server.requests():
            break
        time.sleep(0.1)
    judge.close()
    asking.join(timeout=20)  # the server would hold it up for 30 s
    assert said == ["the judge was closed while it was judging; close it after the last batch"]


def test_closing_again_and_again_while_others_ask_never_hangs(server):
    judge = Judge(server.settings(max_retries=0))
    ends = []

    def ask(thread: int) -> None:
        for i in range(5):
            try:
                ends.append(judge.score_many("anything", [f"do: score 0.{thread}{i}"])[0].outcome)
            except VerifierError:
                ends.append("closed")

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and len(ends) < 15:
        judge.close()
        time.sleep(0.01)
    for thread in threads:
        thread.join(timeout=30)
    judge.close()
    assert len(ends) == 15
    assert set(ends) <= {OK, "closed"}
    assert judge_threads() == []
    gc.collect()  # so that what anyio has to say about it is said, and kept quiet, here


def test_nothing_to_judge_starts_nothing():
    judge = Judge(JudgeSettings("judge", base_url="http://127.0.0.1:9/v1"))
    assert judge.score_many("anything", []) == []
    assert judge.prefer_many([], [], []) == []
    assert judge_threads() == []


def run_script(server, body):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise
        from reward_models.judge import Judge, JudgeSettings
        judge = Judge(JudgeSettings("judge", base_url={server.url!r}, max_retries=0, concurrency=1))
        {textwrap.indent(textwrap.dedent(body), " " * 8).strip()}
        """
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_ends_a_batch_at_once(server):
    body = """
    try:
        judge.score_many("anything", ["do: hang"])
    except KeyboardInterrupt:
        print(judge.score_many("anything", ["do: score 0.5"])[0].value)  # the one slot is free again
    """
    process = run_script(server, body)
    for _ in range(600):  # until the request is under way; bounded, not measured
        if server.requests() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)  # the server would hold it up for 30 s
    assert (process.returncode, output.strip(), errors) == (0, b"0.5", b"")


def test_a_process_may_end_without_closing_its_judge(server):
    process = run_script(server, 'print(judge.score_many("anything", ["do: score 0.5"])[0].value)')
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip(), errors) == (0, b"0.5", b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_of_a_started_judge_asks_for_itself(server):
    body = """
    judge.score_many("anything", ["do: score 0.5"])
    child = os.fork()
    print(judge.score_many("anything", ["do: score 0.25" if child else "do: score 0.75"])[0].value, flush=True)
    if child:
        print(os.waitpid(child, 0)[1])
    """
    process = run_script(server, body)
    output, errors = process.communicate(timeout=60)
    assert (sorted(output.split()), errors) == ([b"0", b"0.25", b"0.75"], b"")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_holds_a_lock_asks_and_ends(server):
    body = """
    import faulthandler, threading
    judge.score_many("anything", ["do: score 0.5"])
    held, forked = threading.Event(), threading.Event()

    def hold():
        with judge._lock, judge._tally._lock, judge._engine._loop._lock:
            held.set()
            forked.wait()

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(20, exit=True)  # far beyond what it takes
        print(judge.score_many("anything", ["do: score 0.75"])[0].value, flush=True)
        judge.close()
        sys.exit()
    forked.set()
    print(os.waitpid(child, 0)[1])
    """
    process = run_script(server, body)
    output, errors = process.communicate(timeout=60)
    assert (output.split(), errors) == ([b"0.75", b"0"], b"")


def test_importing_the_judge_does_not_load_openai():
    code = "import sys, reward_models.judge, reward_models.judged_effort; print('openai' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).strip() == b"False"

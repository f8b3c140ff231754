"""The inside of a pool's worker process: read a job, check it, answer, until the pool hangs up.

Messages are JSON, so that nothing a worker says is ever executed by the process that trains; only the
verifier itself travels as a pickle, and only towards the worker.

Limits of a worker: address space, processor time and wall time of one answer, size of a file, no core dumps. They
keep an answer from hanging or filling the machine. They are no sandbox: what a verifier evaluates may still read what
the user may read, open connections and start processes. Those die with the worker's process group; one that has made
itself a session of its own is out of reach and stays. There is no limit on processes, because the system counts those
per user, the trainer's included.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from reward_models.gold import gold_verdict
from reward_models.verdict import Outcome, Verdict, Verifier, checked, error_text

# A worker whose pool has died is ended by the kernel this long after the time limit of its job. An alarm
# without a handler needs no cooperation: it ends C code that holds the interpreter, too.
ORPHAN_MARGIN_S = 5.0
# Processor time of one answer beyond its time limit. One thread cannot use more than the clock shows, so this ends
# only a check that computes in several threads at once, and a worker whose pool has died.
CPU_MARGIN_S = 1.0
# Bytes of one file: enough for a temporary script, too little to fill a disk.
MAX_FILE_BYTES = 16 * 1024 * 1024
# Longer texts in a verdict are cut: they are for people to read, and the pool's owner keeps them all.
MAX_VERDICT_CHARS = 2000
# A worker that has once grown by this much gives the memory back by being replaced.
RETIRE_GROWTH_KB = 512 * 1024


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Limits of one worker; `memory_bytes` bounds its address space, None for no bound."""

    timeout_s: float
    memory_bytes: int | None
    start_timeout_s: float = 60.0

    def to_json(self) -> bytes:
        """Return the settings as a message."""
        return json.dumps(asdict(self)).encode()


def serve(connection: Connection) -> None:
    """Run a worker: settings, the pickled verifier, then jobs; returns when the other end is closed."""
    try:
        settings = WorkerSettings(**json.loads(connection.recv_bytes()))
        _limit_memory(settings)
        _limit_time(settings.start_timeout_s)
        verifier = _load(connection)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _limit_output()
        usual_kb = _peak_kb()
        while True:
            response, reference = json.loads(connection.recv_bytes())
            _limit_time(settings.timeout_s)
            verdict = gold_verdict(verifier, reference) if response is None else checked(verifier, response, reference)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(encode_reply(verdict, retire=_peak_kb() > usual_kb + RETIRE_GROWTH_KB))
    except (EOFError, ConnectionError):
        return


def encode_job(response: str | None, reference: str) -> bytes:
    """Return a job as a message, None for the gold response; keeps lone surrogates, which no UTF-8 text may hold."""
    return json.dumps([response, reference]).encode()


def encode_reply(verdict: Verdict, *, retire: bool) -> bytes:
    """Return a verdict as a message; `retire` asks the pool for a fresh worker after it."""
    extracted = None if verdict.extracted is None else verdict.extracted[:MAX_VERDICT_CHARS]
    return json.dumps([str(verdict.outcome), extracted, verdict.detail[:MAX_VERDICT_CHARS], retire]).encode()


def decode_reply(message: bytes) -> tuple[Verdict, bool]:
    """Read what `encode_reply` wrote."""
    outcome_text, extracted, detail, retire = json.loads(message)
    outcome = Outcome(outcome_text)
    return Verdict(outcome, outcome.score, extracted, detail), bool(retire)


def _load(connection: Connection) -> Verifier:
    """Unpickle and warm up the verifier, and say so; ends the process if that fails."""
    try:
        verifier: Verifier = pickle.loads(connection.recv_bytes())
        warm_up = getattr(verifier, "warm_up", None)
        if callable(warm_up):
            warm_up()
    except Exception as error:  # noqa: BLE001  whatever the user's module raises is reported to the pool
        _refuse(connection, error_text(error))
    connection.send_bytes(json.dumps({"failed": None}).encode())
    return verifier


def _refuse(connection: Connection, reason: str) -> NoReturn:
    connection.send_bytes(json.dumps({"failed": reason[:MAX_VERDICT_CHARS]}).encode())
    sys.exit(1)


def _limit_memory(settings: WorkerSettings) -> None:
    """Bound the memory; not every system allows it, and the time limit does not depend on it."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.memory_bytes is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (settings.memory_bytes, settings.memory_bytes))


def _limit_time(seconds: float) -> None:
    """Bound what begins now, by the clock and by the processor time that this process has used before.

    The soft limit on processor time moves on with every answer: the worker lives for thousands of them.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds + ORPHAN_MARGIN_S)
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = math.ceil(time.process_time() + seconds + CPU_MARGIN_S)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit_output() -> None:
    """From here on answers are judged: nothing is written to the trainer's terminal, and no file grows large.

    Only now, so that a failure to import is seen and compiled modules are kept. The terminal goes first: it may be
    a log file that is larger than the limit.
    """
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  a device, no path
        os.dup2(nowhere.fileno(), 2)
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        soft = MAX_FILE_BYTES if hard == resource.RLIM_INFINITY else min(MAX_FILE_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _peak_kb() -> int:
    """Most memory that this process has held, in KiB.

    Linux's ru_maxrss starts at the size of the process that started this one, which for a trainer is gigabytes.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0])

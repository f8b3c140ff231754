"""The inside of a pool's worker process: read a job, check it, answer, until the pool hangs up.

Messages are JSON, so that nothing a worker says is ever executed by the process that trains; only the
verifier itself travels as a pickle, and only towards the worker.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from reward_models.verdict import Outcome, Verdict, Verifier, checked

# A worker whose pool has died is ended by the kernel this long after the time limit of its job. An alarm
# without a handler needs no cooperation: it ends C code that holds the interpreter, too.
ORPHAN_MARGIN_S = 5.0
# Longer texts in a verdict are cut: they are for people to read, and the pool's owner keeps them all.
MAX_VERDICT_CHARS = 2000
# A worker that has once grown by this much gives the memory back by being replaced.
RETIRE_GROWTH_KB = 512 * 1024


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Limits of one worker; `memory_bytes` bounds its address space, None for no bound."""

    timeout_s: float
    memory_bytes: int | None

    def to_json(self) -> bytes:
        """Return the settings as a message."""
        return json.dumps(asdict(self)).encode()


def serve(connection: Connection) -> None:
    """Run a worker: settings, the pickled verifier, then jobs; returns when the other end is closed."""
    try:
        settings = WorkerSettings(**json.loads(connection.recv_bytes()))
        _limit(settings)
        verifier = _load(connection)
        usual_kb = _peak_kb()
        while True:
            response, reference = json.loads(connection.recv_bytes())
            signal.setitimer(signal.ITIMER_REAL, settings.timeout_s + ORPHAN_MARGIN_S)
            verdict = checked(verifier, response, reference)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(encode_reply(verdict, retire=_peak_kb() > usual_kb + RETIRE_GROWTH_KB))
    except (EOFError, ConnectionError):
        return


def encode_job(response: str, reference: str) -> bytes:
    """Return a job as a message; keeps lone surrogates, which no UTF-8 text may hold."""
    return json.dumps([response, reference]).encode()


def encode_reply(verdict: Verdict, *, retire: bool) -> bytes:
    """Return a verdict as a message; `retire` asks the pool for a fresh worker after it."""
    extracted = None if verdict.extracted is None else str(verdict.extracted)[:MAX_VERDICT_CHARS]
    return json.dumps([str(verdict.outcome), extracted, str(verdict.detail)[:MAX_VERDICT_CHARS], retire]).encode()


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
        _refuse(connection, f"{type(error).__name__}: {error}")
    connection.send_bytes(json.dumps({"failed": None}).encode())
    return verifier


def _refuse(connection: Connection, reason: str) -> NoReturn:
    connection.send_bytes(json.dumps({"failed": reason[:MAX_VERDICT_CHARS]}).encode())
    sys.exit(1)


def _limit(settings: WorkerSettings) -> None:
    """Bound the memory; not every system allows it, and the time limit does not depend on it."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.memory_bytes is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (settings.memory_bytes, settings.memory_bytes))


def _peak_kb() -> int:
    """Most memory that this process has held, in KiB.

    Linux's ru_maxrss starts at the size of the process that started this one, which for a trainer is gigabytes.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0])

"""One worker process, seen from the pool: start, send a job, read the answer, kill.

The process is a fresh interpreter that imports `reward_models.worker` and nothing of the program that starts
it: the main script is not run again (so it needs no `if __name__ == "__main__"`), and torch is not loaded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from enum import StrEnum
from multiprocessing.connection import Connection

from reward_models.verdict import Verdict, error_text
from reward_models.worker import WorkerSettings, decode_reply, encode_job

_BOOTSTRAP = """\
import json, sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = json.loads(connection.recv_bytes())
from reward_models.worker import serve
serve(connection)
"""
# Answers are hostile text and verifiers evaluate parts of it: a worker gets this environment and no keys.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES = ("LC_", "PYTHON")
# Of a message of a worker: its length, as `Connection` writes it, and the most that an honest one needs (a verdict's
# texts are cut, and a character takes at most twelve bytes of JSON).
_LENGTH = struct.Struct("!i")
_MAX_MESSAGE_BYTES = 64 * 1024
# One thread each: the pool's workers are the parallelism.
_ENVIRONMENT_FIXED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
# What reading a message raises that is not what `reward_models.worker` writes.
_NO_MESSAGE = (ValueError, TypeError, KeyError, RecursionError)


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"


class WorkerProcess:
    """A worker and the job it has in flight, at most one."""

    def __init__(self, verifier_pickle: bytes, settings: WorkerSettings) -> None:
        ours, theirs = socket.socketpair()
        # A worker that has stopped reading does not hold the pool: a write that makes no progress fails.
        ours.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(settings.start_timeout_s), 0)
        )
        with ours, theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOTSTRAP, str(theirs.fileno()), "verifier-worker"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a verifier that prints must not write into the trainer's output
                start_new_session=True,  # Ctrl-C is the trainer's; and the whole group can be killed
                env=_environment(),
            )
            self.connection = Connection(ours.detach())
        self._received = b""
        self.state = State.STARTING
        self.job: int | None = None
        self.deadline = time.monotonic() + settings.start_timeout_s
        # A worker that dies before it has read this is found by its closed connection, like any other death.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps([path or os.getcwd() for path in sys.path]).encode())  # noqa: PTH109
            self.connection.send_bytes(settings.to_json())
            self.connection.send_bytes(verifier_pickle)

    def finish_start(self) -> str | None:
        """Read what there is of the first message; return why the verifier could not be loaded.

        None when it could, and while the message is incomplete: `state` tells.
        """
        try:
            message = self._read()
            failed: str | None = None if message is None else json.loads(message)["failed"]
        except (EOFError, OSError):
            return f"the worker process {_ending(self._exit_status())} before it was ready"
        except _NO_MESSAGE as error:
            return f"the worker process sent something else than whether it is ready ({error_text(error)})"
        if message is not None and failed is None:
            self.state = State.IDLE
        return failed

    def send(self, job: int, response: str | None, reference: str, timeout_s: float) -> bool:
        """Start a job; False if the worker died while it was idle, which is not the job's fault."""
        message = encode_job(response, reference)
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False
        self.state, self.job, self.deadline = State.BUSY, job, time.monotonic() + timeout_s
        return True

    def receive(self) -> tuple[Verdict, bool] | None:
        """Read the verdict on the job in flight, and whether the worker must be replaced; None while incomplete."""
        try:
            message = self._read()
            if message is None:
                return None
            verdict, retire = decode_reply(message)
        except (EOFError, OSError):
            return _verdict_on_death(self._exit_status()), True
        except _NO_MESSAGE as error:
            return Verdict.error(f"the worker process sent no verdict ({error_text(error)})"), True
        self.state, self.job = State.IDLE, None
        return verdict, retire

    def _read(self) -> bytes | None:
        """Take what has arrived, without waiting for more; the message when it is complete.

        A check may write to the connection, too: the start of a message must not hold the pool, nor a huge one fill it.
        """
        arrived = os.read(self.connection.fileno(), _MAX_MESSAGE_BYTES)
        if not arrived:
            raise EOFError
        self._received += arrived
        if len(self._received) < _LENGTH.size:
            return None
        [size] = _LENGTH.unpack_from(self._received)
        excess = len(self._received) - _LENGTH.size - size
        if not 0 <= size <= _MAX_MESSAGE_BYTES or excess > 0:
            raise ValueError("its bytes are no message")
        if excess < 0:
            return None
        message, self._received = self._received[_LENGTH.size :], b""
        return message

    def kill(self) -> None:
        """End the process and whatever it has started, at once, and reap it; may be called more than once."""
        if self.connection.closed:
            return
        self.connection.close()
        # Also when the worker itself has ended: its group lives as long as a process that it started.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _exit_status(self) -> int | None:
        """Status of a worker that closed its connection and so is about to end; negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout=1.0)
        return None


def _verdict_on_death(status: int | None) -> Verdict:
    if status == -signal.SIGXCPU:
        return Verdict.timeout("the check used more processor time than its time limit; the system ended it")
    return Verdict.error(f"the worker process {_ending(status)} during the check")


def _ending(status: int | None) -> str:
    if status is None:
        return "closed its connection"
    return f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(_ENVIRONMENT_PREFIXES)}
    return kept | _ENVIRONMENT_FIXED

"""Worker processes for verifiers, with a time limit that kills.

A time limit inside a process does not hold: signals need the main thread and the interpreter's attention,
threads cannot be ended. Here an answer that takes too long costs a worker its life and nobody else anything.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

from reward_models.errors import VerifierError
from reward_models.gold import GoldCheck, gold_check
from reward_models.verdict import Outcome, Verdict, Verifier, refusal, require_verifier
from reward_models.worker import WorkerSettings
from reward_models.worker_process import State, WorkerProcess

# Fresh workers that fail one after the other before the pool gives up: what loaded once should load again.
MAX_START_FAILURES = 3
# A call that is abandoned, or whose pool is closed, notices within this time; looking is all it costs.
CANCEL_POLL_S = 0.05
# More is a slip of the keyboard, and larger than what the system's timers and limits can hold.
MAX_WORKERS = 1024
MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_MEMORY_MB = 2**30
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Settings of a pool, as `VerifierPool` takes them.

    Raises:
        VerifierError: one is of another type or out of range.
    """

    workers: int
    timeout_s: float
    memory_mb: int | None
    start_timeout_s: float

    def __post_init__(self) -> None:
        """Check the types and the ranges."""
        _require("workers", self.workers, int, MAX_WORKERS, "whole number from 1")
        for name, seconds in (("timeout_s", self.timeout_s), ("start_timeout_s", self.start_timeout_s)):
            _require(name, seconds, int | float, MAX_TIMEOUT_S, "number of seconds > 0")
        if self.memory_mb is not None:
            _require("memory_mb", self.memory_mb, int, MAX_MEMORY_MB, "whole number of megabytes from 1, or None,")

    def for_worker(self) -> WorkerSettings:
        """Return what a worker must know."""
        memory_bytes = None if self.memory_mb is None else self.memory_mb * _MB
        return WorkerSettings(self.timeout_s, memory_bytes, self.start_timeout_s)

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that start a pool like this one."""
        return asdict(self)


class VerifierPool:
    """Checks answers in worker processes, each with one job in flight and a deadline.

    A check that passes its deadline is ended with SIGKILL and becomes a TIMEOUT verdict, as does one that uses more
    processor time; a worker that dies, or a verifier that raises, becomes an ERROR verdict for that answer alone.
    May be used from any thread and, with `acheck_many`, from coroutines; calls take turns. Workers see none of the
    environment's secrets, write nothing to the terminal and do not run the main script again; what else they are
    kept from stands in `reward_models.worker`. One answer costs about 0.1 ms more than the check itself.

    Args:
        verifier: picklable, of a class in an importable module.
        workers: number of processes.
        timeout_s: seconds for one answer; loading the verifier does not count.
        memory_mb: address space of one worker, None for no limit.
        start_timeout_s: seconds for a worker to load the verifier.

    Raises:
        VerifierError: a setting is out of range, or the workers cannot load the verifier.
    """

    def __init__(
        self,
        verifier: Verifier,
        workers: int = 2,
        timeout_s: float = 5.0,
        *,
        memory_mb: int | None = 2048,
        start_timeout_s: float = 60.0,
    ) -> None:
        self.settings = PoolSettings(workers, timeout_s, memory_mb, start_timeout_s)
        self._verifier = verifier
        self._pickle = _pickled(verifier)
        self._counts: Counter[Outcome] = Counter()
        self._lock = threading.Lock()
        self._workers: list[WorkerProcess] = []
        self._start_failures = 0
        self._closing = False
        self._process_id = os.getpid()
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, self._process_id)
        self._start()

    def check(self, response: str, reference: str) -> Verdict:
        """Judge one answer."""
        return self.check_many([response], [reference])[0]

    def check_many(self, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
        """Judge answers in parallel; verdicts come in the order of the answers.

        Raises:
            VerifierError: the lengths differ, the pool is closed, or workers can no longer be started; the next call
                tries again.
        """
        return self._judge(responses, references)

    async def acheck_many(self, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
        """`check_many` for coroutines: the event loop goes on meanwhile.

        A call that is cancelled ends its checks and leaves the pool ready for the next.
        """
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._judge, responses, references, cancelled=cancelled)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def check_gold(self, references: Sequence[str]) -> GoldCheck:
        """Judge every reference against itself, written as a right response would write it.

        Meant for the start: a row on which the verifier refuses the gold answer teaches the model that right is
        wrong. The workers write the responses, within the time limit. Not counted in `counts`. See
        `reward_models.gold`.
        """
        return gold_check(self._verifier, references, self._judge(None, references))

    @property
    def counts(self) -> Counter[Outcome]:
        """How many verdicts of each outcome the pool has returned since it was started."""
        return Counter(self._counts)

    @property
    def verifier_type(self) -> type:
        """The class of the verifier that judges here."""
        return type(self._verifier)

    def judges_like(self, verifier: Verifier) -> bool:
        """Whether a verifier is the one that judges here, or one of the same class and the same options."""
        return verifier is self._verifier or _pickled(verifier) == self._pickle

    def close(self) -> None:
        """End the workers and the calls that are running in other threads, which raise VerifierError.

        May be called more than once; in a fork of the process that started the pool it does nothing.
        """
        if os.getpid() != self._process_id:
            return
        self._closing = True
        with self._lock:
            self._finalizer()

    def __enter__(self) -> VerifierPool:
        """Return the pool, which is already running."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()

    def __reduce__(self) -> str:
        """Refuse to be pickled: processes cannot travel."""
        raise VerifierError("a VerifierPool cannot be pickled; pickle the verifier and start a pool where it is used")

    def _judge(
        self, responses: Sequence[str] | None, references: Sequence[str], cancelled: threading.Event | None = None
    ) -> list[Verdict]:
        """Judge responses, or where there are none those that the verifier writes, which are not counted."""
        if responses is not None and len(responses) != len(references):
            raise VerifierError(f"{len(responses)} responses and {len(references)} references; give one per response")
        self._require_own_process()  # before the lock, which a busy pool's fork would wait for without end
        with self._lock:
            self._require_open()
            try:
                verdicts = _Round(self, responses, references, cancelled).run()
            except BaseException:
                self._drop_jobs()
                raise
            if responses is not None:
                self._counts.update(verdict.outcome for verdict in verdicts)
            return verdicts

    def _require_own_process(self) -> None:
        if os.getpid() != self._process_id:
            raise VerifierError(
                f"this pool belongs to process {self._process_id} and was used in its fork {os.getpid()}; "
                "start a pool in the process that uses it"
            )

    def _require_open(self) -> None:
        if self._closing or not self._finalizer.alive:
            raise VerifierError("the pool is closed; start a new VerifierPool")

    def _start(self) -> None:
        """Start the first workers side by side and wait until all have loaded the verifier."""
        try:
            self._fill()
            for worker in self._workers:
                while worker.state is State.STARTING:
                    if not worker.connection.poll(max(0.0, worker.deadline - time.monotonic())):
                        raise VerifierError(
                            "a worker did not load the verifier within "
                            f"start_timeout_s={self.settings.start_timeout_s}; "
                            "raise it, or make the verifier's module import less"
                        )
                    self._finish_start(worker)
        except BaseException:
            self._finalizer()
            raise

    def _finish_start(self, worker: WorkerProcess) -> None:
        reason = worker.finish_start()
        if reason is not None:
            raise VerifierError(
                f"a worker process could not load the verifier: {reason}. Its class and all it holds "
                "must be importable in a fresh interpreter, from a file on sys.path"
            )
        self._start_failures = 0

    def _fill(self) -> None:
        """Start the workers that are missing, without waiting for them; an earlier call may have failed to."""
        while len(self._workers) < self.settings.workers:
            try:
                self._workers.append(WorkerProcess(self._pickle, self.settings.for_worker()))
            except OSError as error:
                raise VerifierError(
                    f"a worker process cannot be started ({error}); free memory, processes or open files, "
                    "or give the pool fewer workers"
                ) from error

    def _end(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        worker.kill()

    def _replace(self, worker: WorkerProcess) -> None:
        """Kill a worker and start another, without waiting for it."""
        self._end(worker)
        self._fill()

    def _restart(self, worker: WorkerProcess, reason: str) -> None:
        """Replace a worker that did not come up, a few times at most."""
        self._end(worker)
        self._start_failures += 1
        if self._start_failures >= MAX_START_FAILURES:
            self._start_failures = 0
            raise VerifierError(f"{MAX_START_FAILURES} worker processes in a row did not start; the last: {reason}")
        self._fill()

    def _drop_jobs(self) -> None:
        """After an interruption no answer may be left that the next call would take for its own."""
        for worker in [w for w in self._workers if w.state is State.BUSY]:
            self._end(worker)


class _CancelledError(Exception):
    """The coroutine that wanted the verdicts is gone; nobody sees this."""


class _Round:
    """One call of `check_many`: the jobs still to be done and the verdicts so far."""

    def __init__(
        self,
        pool: VerifierPool,
        responses: Sequence[str] | None,
        references: Sequence[str],
        cancelled: threading.Event | None,
    ) -> None:
        self.pool = pool
        self.cancelled = cancelled
        self.responses = responses
        self.references = references
        self.verdicts: dict[int, Verdict] = {}
        self.waiting: deque[int] = deque()
        for job, reference in enumerate(references):
            refused = refusal("" if responses is None else responses[job], reference)
            if refused is None:
                self.waiting.append(job)
            else:
                self.verdicts[job] = refused

    def run(self) -> list[Verdict]:
        self.pool._fill()
        for worker in list(self.pool._workers):
            self.hand_out(worker)
        while len(self.verdicts) < len(self.references):
            self.pool._require_open()
            if self.cancelled is not None and self.cancelled.is_set():
                raise _CancelledError
            ready = wait([worker.connection for worker in self.pool._workers], self.seconds_left())
            for worker in [w for w in self.pool._workers if w.connection in ready]:
                self.read(worker)
            self.end_overdue()
        return [self.verdicts[job] for job in range(len(self.references))]

    def hand_out(self, worker: WorkerProcess) -> None:
        if worker.state is not State.IDLE or not self.waiting:
            return
        job = self.waiting.popleft()
        response = None if self.responses is None else self.responses[job]
        if not worker.send(job, response, self.references[job], self.pool.settings.timeout_s):
            self.waiting.appendleft(job)
            self.pool._replace(worker)

    def read(self, worker: WorkerProcess) -> None:
        if worker.state is State.STARTING:
            reason = worker.finish_start()
            if reason is not None:
                self.pool._restart(worker, reason)
                return
            self.pool._start_failures = 0
        elif worker.job is not None:
            job = worker.job
            received = worker.receive()
            if received is None:
                return
            self.verdicts[job], retire = received
            if retire:
                self.pool._replace(worker)
                return
        else:  # an idle worker has nothing to say but that it died
            self.pool._replace(worker)
            return
        self.hand_out(worker)

    def seconds_left(self) -> float:
        """Time until the next worker is overdue, or until the call must look whether it is still wanted."""
        now = time.monotonic()
        waits = [max(0.0, worker.deadline - now) for worker in self.pool._workers if worker.state is not State.IDLE]
        return min([CANCEL_POLL_S, *waits])

    def end_overdue(self) -> None:
        now = time.monotonic()
        for worker in list(self.pool._workers):
            if worker.state is State.IDLE or now < worker.deadline or worker.connection.poll():
                continue
            if worker.job is None:
                self.pool._restart(worker, f"not ready within start_timeout_s = {self.pool.settings.start_timeout_s}")
            else:
                self.verdicts[worker.job] = Verdict.timeout(
                    f"no verdict within {self.pool.settings.timeout_s} s; killed the check"
                )
                self.pool._replace(worker)


def _require(name: str, value: object, kind: Any, most: int, expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool) or not (0 < value <= most):
        raise VerifierError(f"pool {name} is {value!r}; give a {expected} to {most}")


def _pickled(verifier: Verifier) -> bytes:
    """Pickle a verifier for the workers, or say why that cannot work."""
    require_verifier(verifier, "the verifier")
    kind = type(verifier)
    if kind.__module__ == "__main__":
        raise VerifierError(
            f"the verifier's class {kind.__name__} is defined in the script that is being run, which "
            "worker processes do not execute; move the class into a file of its own and import it"
        )
    try:
        return pickle.dumps(verifier)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise VerifierError(
            f"the verifier {kind.__module__}.{kind.__name__} cannot be pickled ({error}); keep "
            "only plain data in it, no open files, locks or lambdas, and define its class at module level"
        ) from error


def _shut_down(workers: list[WorkerProcess], process_id: int) -> None:
    """End all workers; a fork of the process that started them leaves them alone."""
    if os.getpid() != process_id:
        return
    while workers:
        workers.pop().kill()

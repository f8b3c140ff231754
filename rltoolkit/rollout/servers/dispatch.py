"""Requests to the least loaded of several servers; servers that fail are watched and taken back."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.http import ServerError, SilentServerError
from rltoolkit.rollout.servers.messages import Expected, read_completion
from rltoolkit.rollout.servers.policy import NO_TAG, ConflictError, Policy, RefusalError
from rltoolkit.rollout.servers.server import Server
from rltoolkit.rollout.servers.tasks import cancel, together
from rltoolkit.rollout.vllm_sampling import choices_asked, completion_request
from rltoolkit.types import Sample, SamplingParams

__all__ = ["Job", "PoolTimes", "Question", "ServerPool"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""Between attempts to take a server back, doubled each time."""

REFUSED_PAUSE_S = 30.0
"""Between attempts with a server that lives and will not take the policy."""

WATCH_S = 5.0
"""Between looks at a server that is asked; a third of the health limit where that is shorter."""

TELL_EVERY_S = 30.0
"""Between words about servers that are waited for."""

MOST_LOSSES = 8
"""So often may a request be on a server that goes down; one that kills servers must not do so for ever."""


@dataclass(frozen=True)
class PoolTimes:
    """Limits of a pool; see `ServerOptions`."""

    request_s: float
    health_s: float
    wait_s: float
    retries: int
    concurrency: int


@dataclass(frozen=True)
class Question:
    """What all requests of one call have in common."""

    n: int
    sampling: SamplingParams
    eos_token_ids: Collection[int]
    vocabulary: int
    version: int

    def body(self, job: "Job", model: str) -> dict[str, Any]:
        """Return the request for one prompt."""
        return completion_request(model, job.prompt, self.sampling, self.n, job.seed, tuple(self.eos_token_ids))

    def read(self, job: "Job", answer: Any) -> list[Sample]:
        """Return the `n` samples of an answer; ServerError when it does not fit."""
        choices = choices_asked(self.sampling, self.n)
        limit = self.sampling.max_new_tokens
        expected = Expected(job.prompt, choices, limit, self.eos_token_ids, self.vocabulary, self.version)
        samples = read_completion(answer, expected)
        return samples * (self.n // choices)


@dataclass
class Job:
    """One prompt, and what happened to its request so far."""

    index: int
    prompt: Sequence[int]
    seed: int
    failures: list[str] = field(default_factory=list)
    """Attempts that failed on a server which is fine otherwise."""
    losses: int = 0
    """Attempts on servers that went down meanwhile."""
    avoid: set[str] = field(default_factory=set)
    """Servers it failed on."""


class _LostError(Exception):
    """The server went down, or lost the policy, while the request was on it."""


class ServerPool:
    """The servers of one backend; everything here runs on one event loop.

    A server is up while it is known to show the present policy's tag. While it is up it is looked at every few
    seconds if requests run on it; while it is down, bringing it back is tried again and again.
    """

    def __init__(self, servers: Sequence[Server], times: PoolTimes) -> None:
        """Contact nothing yet."""
        self.servers = list(servers)
        self._times = times
        self._policy: Policy | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        """Set while servers are to be looked at."""
        self._asking = 0
        """Calls under way."""
        self._none_since: float | None = None
        self._fatal: RolloutError | None = None

    async def reach(self, action: Callable[[Server], Awaitable[T]]) -> dict[str, T]:
        """Do something with every server at once; return what came of it, by URL.

        Servers that cannot be reached are left out, as those that could not be before, which would cost their
        timeout at each sync; if that is all, all are tried for `wait_s`. A RolloutError is raised at once.
        """
        give_up, tell = _now() + self._times.wait_s, _now()
        pause = FIRST_PAUSE_S
        servers = [server for server in self.servers if server.reachable] or self.servers
        while True:
            results = await together(self._noting(server, action) for server in servers)
            found = {server.url: done[0] for server, done in zip(servers, results, strict=True) if done}
            if found:
                return found
            servers = self.servers
            if _now() + pause > give_up:
                raise RolloutError(self._none_left())
            if _now() >= tell:
                tell = _now() + TELL_EVERY_S
                said = "; ".join(server.describe() for server in servers)
                logger.warning("waiting for a server, %.0f s more at most: %s", give_up - _now(), said)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def install(self, policy: Policy) -> None:
        """Bring servers to the policy, and watch them from then on.

        Returns when all that could be reached before have it; once one has it, the others get as long as a look may
        take, and come later. Raises RolloutError when one cannot have it, when all refuse it, or when none could be
        reached for `wait_s`.
        """
        await self.stop()
        self._policy, self._fatal = policy, None
        expected = [server for server in self.servers if server.reachable] or self.servers
        for server in self.servers:
            server.trouble, server.said = None, "it was not brought to the policy yet"
        self._wanted.set()
        self._watches = [asyncio.create_task(self._watch(server, policy)) for server in self.servers]
        try:
            await self._first_outcomes(expected)
        except BaseException:
            await self.stop()
            raise
        self._rest(policy)
        for server in self.servers:
            if server.tag is None:
                logger.warning("sampling without %s until it is back", server.describe())

    async def _first_outcomes(self, expected: Sequence[Server]) -> None:
        """Wait until servers have the policy; see `install`."""
        give_up, first_up = _now() + self._times.wait_s, None
        while True:
            troubles = [server.trouble for server in self.servers]
            if wrong := [error for error in troubles if error is not None and not isinstance(error, ServerError)]:
                raise wrong[0]
            pending = [server for server in expected if server.tag is None and server.trouble is None]
            until: float | None = None
            if self._up():
                first_up = first_up or _now()
                until = first_up + self._times.health_s
                if not pending or _now() >= until:
                    return
            elif not pending:
                until = give_up
                if all(isinstance(error, RefusalError) for error in troubles):
                    raise RolloutError(str(troubles[0])) from troubles[0]
                if _now() >= give_up:
                    raise RolloutError(self._none_left())
            await self._change(until)

    async def leave(self) -> None:
        """Stop for good, and have servers forget what nobody else needs."""
        policy, known = self._policy, [(server, server.model) for server in self._up()]
        await self.stop()
        if policy is not None:
            await together(policy.leave(server, model) for server, model in known)

    def _rest(self, policy: Policy) -> None:
        if not policy.watched_between_calls and not self._asking:
            self._wanted.clear()

    async def stop(self) -> None:
        """Ask no server any more and watch none."""
        watches, self._watches, self._policy = self._watches, [], None
        await cancel(watches)
        self._wanted.clear()
        for server in self.servers:
            server.release()
        self._announce()

    async def ask(self, jobs: Sequence[Job], question: Question) -> list[list[Sample]]:
        """Answer every job once, in order. RolloutError when one cannot be answered."""
        if self._policy is None:
            raise RolloutError("the servers have no policy: the last sync failed; call sync(source, version) first")
        policy = self._policy
        policy.begin_call()
        self._fatal = None
        self._asking += 1
        self._wanted.set()
        self._none_since = None if self._up() else _now()
        # Notices early, beside the first requests, what was restarted since the last call.
        looks = [asyncio.create_task(self._check(server)) for server in self._up()]
        queue = deque(jobs)
        answers: dict[int, list[Sample]] = {}

        async def work() -> None:
            while queue:
                job = queue.popleft()
                answers[job.index] = await self._answer(job, question, policy)

        try:
            at_once = min(len(queue), self._times.concurrency * len(self.servers))
            await together(work() for _ in range(at_once))
            return [answers[job.index] for job in jobs]
        finally:
            self._asking -= 1
            self._rest(policy)
            await cancel(looks)

    async def _answer(self, job: Job, question: Question, policy: Policy) -> list[Sample]:
        """Ask until there is an answer, as often as the limits allow."""
        while True:
            server = await self._free_server(job, policy)
            task = asyncio.create_task(self._attempt(server, server.tag or "", job, question))
            server.tasks.add(task)
            try:
                await asyncio.wait([task])
            finally:
                if not task.done():  # this request itself is cancelled
                    await cancel([task])
                server.tasks.discard(task)
                server.served += 1
                self._announce()
            job.avoid.add(server.url)
            try:
                return task.result()
            except (_LostError, asyncio.CancelledError):
                job.losses += 1
            except ServerError as error:
                job.failures.append(str(error))
            self._refuse_hopeless(job, server)
            if job.failures:
                await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** len(job.failures), LONGEST_PAUSE_S))

    def _refuse_hopeless(self, job: Job, server: Server) -> None:
        if len(job.failures) > self._times.retries:
            raise RolloutError(
                f"the request for prompt {job.index} failed {len(job.failures)} times on servers that are up, the last "
                f"time: {job.failures[-1]}; look at the server's log; if it was too slow, raise request_timeout_s or "
                "lower concurrency"
            )
        if job.losses > MOST_LOSSES:
            raise RolloutError(
                f"the request for prompt {job.index} was on a server that went down {job.losses} times, the last time "
                f"{server.describe()}; look at the servers' logs, it may be this request that ends them"
            )

    async def _attempt(self, server: Server, tag: str, job: Job, question: Question) -> list[Sample]:
        """Ask one server once; what is returned was drawn from the present policy (see `policy`)."""
        trouble: RolloutError | None = None
        samples: list[Sample] = []
        where = f"POST {server.url}/v1/completions for prompt {job.index}"
        try:
            answer = await server.complete(question.body(job, server.model), self._times.request_s)
            if answer.status in (400, 422):  # the caller's mistake, if it was said by the right model
                trouble = RolloutError(f"{where}: HTTP {answer.status}: {answer.text()}; change the request")
            elif answer.status != 200:
                trouble = ServerError(f"{where}: HTTP {answer.status}: {answer.text()}")
            else:
                samples = question.read(job, answer.json())
        except SilentServerError as error:
            trouble = error
            await self._look(server, lambda: self._still_samples(server, tag))
        except ServerError as error:
            trouble = ServerError(f"{where}: {error}")
        if isinstance(trouble, ServerError) and server.tag == tag:
            await self._look(server, server.check_health)
        if server.tag == tag:
            await self._look(server, server.fresh_tag)
        if server.tag != tag:
            raise _LostError
        if trouble is not None:
            raise trouble
        return samples

    async def _still_samples(self, server: Server, tag: str) -> None:
        """After a request past its deadline: tell a slow server from one whose engine hangs.

        An engine that finished any request of ours of late lives, and the late one is behind others there. Else it is
        asked for one token, for which it has time while it finishes others.
        """
        if self._lives(server):
            return
        body = completion_request(server.model, (0,), SamplingParams(max_new_tokens=1), 1, 0, ())
        try:
            answer = await server.complete(body, self._times.health_s)
        except SilentServerError:
            if self._lives(server):
                return
            raise
        if answer.status != 200:
            raise ServerError(f"a request of one token: HTTP {answer.status} at {tag}: {answer.text()}")

    def _lives(self, server: Server) -> bool:
        return time.monotonic() - server.answered <= self._times.health_s

    async def _look(self, server: Server, look: Callable[[], Awaitable[str | None]]) -> None:
        """Look at a server that is up, and mark it down for trouble or for a tag that is not the policy's."""
        tag = server.tag
        try:
            shown = await look()
        except ServerError as error:
            if server.tag == tag:
                self._mark_down(server, str(error))
            return
        if shown is not None and tag is not None and shown != tag and server.tag == tag:
            self._mark_down(server, f"it shows {shown!r} instead of {tag!r}: restarted, or loaded by somebody else")

    def _mark_down(self, server: Server, said: str) -> None:
        if server.tag is not None:
            logger.warning("%s is not asked any more: %s", server.url, said)
        server.mark_down(said)
        if self._none_since is None and not self._up():
            self._none_since = _now()
        self._announce()

    async def _watch(self, server: Server, policy: Policy) -> None:
        """Look at the server while it is up, bring it back while it is down; for as long as the policy stands."""
        pause = FIRST_PAUSE_S
        while True:
            await self._wanted.wait()
            try:
                if server.tag is not None:
                    pause = FIRST_PAUSE_S
                    await self._watch_up(server)
                    continue
                await self._bring_back(server, policy)
            except Exception as error:  # noqa: BLE001  a watch that ended unseen would leave its server down for ever
                self._note_trouble(server, RolloutError(f"{server.url}: {type(error).__name__}: {error}"))
            if server.tag is None:
                passing = isinstance(server.trouble, ServerError | ConflictError)
                refused = not passing or isinstance(server.trouble, RefusalError)
                await asyncio.sleep(REFUSED_PAUSE_S if refused else pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _watch_up(self, server: Server) -> None:
        """Look at a server that is up once it has been for a while, or is no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(WATCH_S, self._times.health_s / 3)):
                await server.down.wait()
        if self._wanted.is_set():
            await self._check(server)

    async def _check(self, server: Server) -> None:
        """Look at a server that is up: its health while requests run on it, its tag in any case.

        Between calls a tag set by others is left alone: another backend may use the servers in turn.
        """
        if server.tag is None:
            return
        if server.tasks:
            await self._look(server, server.check_health)
        if server.tag is not None:
            await self._look(server, server.shown_tag if self._asking else lambda: self._lost_tag(server))

    async def _lost_tag(self, server: Server) -> str | None:
        """Return the tag of a server that was restarted, else None."""
        shown = await server.shown_tag()
        return shown if shown == NO_TAG else None

    async def _bring_back(self, server: Server, policy: Policy) -> None:
        try:
            await policy.bring(server)
        except RolloutError as error:  # also a server that came back with another model: the others go on
            self._note_trouble(server, error)
        else:
            logger.info("%s is asked", server.url)
            self._none_since = None
            self._announce()

    def _note_trouble(self, server: Server, error: RolloutError) -> None:
        """Leave a server that was not brought to the policy, and say why, once."""
        if server.said != str(error):
            logger.warning("%s cannot be used: %s", server.url, error)
        if isinstance(error, ConflictError):
            self._fatal = error
        server.trouble = error
        self._mark_down(server, str(error))

    async def _free_server(self, job: Job, policy: Policy) -> Server:
        """Wait for a server with room; one that the job has not failed on, if there is one. The least loaded."""
        while True:
            if self._fatal is not None:
                raise self._fatal
            if self._policy is not policy:
                raise RolloutError("the servers got another policy while samples were drawn; sync between calls")
            up = self._up()
            fresh = [server for server in up if server.url not in job.avoid] or up
            free = [server for server in fresh if len(server.tasks) < self._times.concurrency]
            if free:
                return min(free, key=lambda server: (len(server.tasks), server.served))
            left = None
            if self._none_since is not None and (left := self._none_since + self._times.wait_s - _now()) <= 0:
                raise RolloutError(self._none_left())
            await self._change(left and _now() + left)

    async def _change(self, until: float | None) -> None:
        """Wait until something changed with a server, or for the time `until`."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()

    def _up(self) -> list[Server]:
        return [server for server in self.servers if server.tag is not None]

    def _none_left(self) -> str:
        said = "; ".join(server.describe() for server in self.servers)
        return (
            f"no server could be used for {self._times.wait_s:g} s: {said}. Start them again (`rltoolkit serve`), "
            "correct the URLs, or raise wait_s (rollout.servers.wait_s; --wait of `rltoolkit eval`)"
        )

    def _announce(self) -> None:
        """Wake up whoever waits for a server."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _noting(self, server: Server, action: Callable[[Server], Awaitable[T]]) -> tuple[T] | None:
        try:
            return (await action(server),)
        except ServerError as error:
            server.mark_down(str(error))
            return None


def _now() -> float:
    return asyncio.get_running_loop().time()

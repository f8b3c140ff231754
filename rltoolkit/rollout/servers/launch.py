"""vLLM servers as processes of this machine: started with the right flags, watched, and ended without a trace.

What is protected: every server leads a process group of its own, and ending it ends the whole group, so that no
engine process outlives a server that crashed. If the process that holds a `ServerFleet` dies without ending it, even
by `kill -9`, a guard process ends the groups (see `guard`). Not protected: a machine on which both are killed at once.
"""

import contextlib
import http.client
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers.launch_options import LaunchOptions, server_command, server_environment

__all__ = ["LaunchOptions", "ServerFleet", "ServerState", "is_loopback", "log_end"]

GUARD = Path(__file__).with_name("guard.py")
GRACE_S = 30.0
"""From SIGTERM to SIGKILL; a server gives back its GPU in that time."""
RESTART_GRACE_S = 5.0
"""The same for a server that hangs or never got ready: it has no requests to finish, and the others wait."""
GUARD_GRACE_S = 10.0
"""The same for the guard, where nobody is left to ask for more."""
KILLED_S = 10.0
"""How long the system may take to clear away what was killed; a GPU's memory is free only then."""
LOG_LINES, LOG_BYTES = 20, 64_000
NOISE = re.compile(r"nanobind|^ - leaked |^ - \.\.\. skipped|resource_tracker")
"""What Python's exit adds to a log after a crash, in plenty."""
HEALTH_S = 2.0
"""How long one look at /health may take; a server that is loading does not answer at all."""
HUNG_S = 120.0
"""So long may a server that was healthy leave /health without a 200: no load or compilation blocks it for that."""


class ServerState(StrEnum):
    """What a look at a server found."""

    LOADING = "loading"
    """Alive, and does not say that it is healthy."""
    HEALTHY = "healthy"
    DEAD = "dead"
    LATE = "late"
    """Not healthy within `start_timeout_s` of its start."""
    HUNG = "hung"
    """Was healthy, and has not said so for two minutes."""

    @property
    def is_lost(self) -> bool:
        """Whether only a restart helps."""
        return self in (ServerState.DEAD, ServerState.LATE, ServerState.HUNG)


@dataclass
class _Server:
    """One process and its place."""

    process: subprocess.Popen[bytes]
    started: float
    was_healthy: bool = False
    silent_since: float | None = None
    """When it was first looked at in vain since it was healthy last: a time in which nobody looked does not count."""
    ended: bool = False
    """Ended by us, and waited for: its id may be that of another group by now."""


@dataclass
class _Guard:
    """The guard process and the pipe to it."""

    process: subprocess.Popen[str]
    orders: IO[str] = field(init=False)

    def __post_init__(self) -> None:
        if self.process.stdin is None:
            raise RuntimeError("the guard was started without a pipe")
        self.orders = self.process.stdin

    def tell(self, order: str, group: int) -> None:
        """Give a group into its care ("+") or take it out ("-"); a guard that was killed is no reason to stop."""
        with contextlib.suppress(OSError):
            self.orders.write(f"{order}{group}\n")
            self.orders.flush()

    def close(self) -> None:
        """Let it go."""
        with contextlib.suppress(OSError):
            self.orders.close()
        self.process.wait()


class ServerFleet:
    """vLLM servers of this machine, one process each; a context manager that starts and ends them.

    `with ServerFleet(options) as fleet: fleet.wait_until_healthy()`. Not for use from several threads at once.
    """

    def __init__(self, options: LaunchOptions) -> None:
        """Start nothing yet."""
        self.options = options
        self._servers: list[_Server] = []
        self._guard: _Guard | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers' addresses; where they bind every interface, those by this machine's name."""
        host = socket.gethostname() if _binds_all(self.options.host) else self.options.host
        return tuple(f"http://{_in_url(host)}:{port}" for port in self.options.ports)

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The servers' processes, in the order of the ports; each leads a process group of its own."""
        return tuple(server.process for server in self._servers)

    def start(self) -> None:
        """Start all servers, and come back at once.

        Raises RolloutError, with nothing left running, for a port that is taken, a host that is not this machine's,
        or an interpreter that does not start.
        """
        if self._servers:
            return
        for port in self.options.ports:
            _require_free(self.options.host, port)
        self.options.log_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-S", str(GUARD), str(GUARD_GRACE_S)]
        self._guard = _Guard(subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True))
        try:
            for index in range(len(self.options.ports)):
                self._servers.append(self._launch(index))
        except BaseException:
            self.stop(grace_s=0.0)
            raise

    def look(self) -> tuple[ServerState, ...]:
        """Look at every server once; takes up to two seconds for each that does not answer."""
        return tuple(self._look(index, server) for index, server in enumerate(self._servers))

    def wait_until_healthy(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Wait for all servers; `say` hears which ones are still loading, every ten seconds.

        Raises RolloutError with the end of the log when one of them dies, hangs or is late.
        """
        told = time.monotonic()
        while True:
            states = self.look()
            for index, state in enumerate(states):
                if state.is_lost:
                    raise RolloutError(self.epitaph(index, state))
            loading = [url for url, state in zip(self.urls, states, strict=True) if state is not ServerState.HEALTHY]
            if not loading:
                return
            if time.monotonic() - told >= 10:
                told = time.monotonic()
                say(f"loading: {' '.join(loading)}")
            time.sleep(0.25)

    def epitaph(self, index: int, state: ServerState) -> str:
        """What happened to a server that is lost, and the end of its log."""
        log, server = self.options.log_of(index), self._servers[index]
        if state is ServerState.LATE:
            what = f"is not healthy after {self.options.start_timeout_s:g} s; give it more (start_timeout_s) or mend it"
        elif state is ServerState.HUNG:
            what = f"was healthy, and has not said so any more for {HUNG_S:g} s"
        else:
            what = f"ended {_how(server.process)}{'' if server.was_healthy else ' before it was healthy'}"
        return f"the vLLM server {self.urls[index]} {what}; the end of {log}:\n{log_end(log)}"

    def end(self, index: int) -> None:
        """End one server that is lost, with whatever it left behind; may be called twice."""
        self._end([self._servers[index]], RESTART_GRACE_S)

    def restart(self, index: int) -> None:
        """End one server and start it again.

        Raises RolloutError where its port is not free: what was killed may hold it for a moment, so try again.
        """
        self.end(index)
        _require_free(self.options.host, self.options.ports[index])
        self._servers[index] = self._launch(index)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End all servers and all that they started; may be called twice."""
        servers, self._servers = self._servers, []
        guard = self._guard
        self._end(servers, grace_s)
        self._guard = None
        if guard is not None:
            guard.close()

    def __enter__(self) -> Self:
        """Start the servers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them."""
        self.stop()

    def _launch(self, index: int) -> _Server:
        command = server_command(self.options, index)
        environment = server_environment(self.options, index, os.environ)
        try:
            with self.options.log_of(index).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise RolloutError(
                f"{self.options.python} cannot be started ({error.strerror}); give the interpreter of an environment "
                "with vLLM"
            ) from error
        if self._guard is not None:
            self._guard.tell("+", process.pid)
        return _Server(process, time.monotonic())

    def _look(self, index: int, server: _Server) -> ServerState:
        if _is_dead(server.process):
            return ServerState.DEAD
        began = time.monotonic()
        if _answers(self.options.host, self.options.ports[index]):
            server.was_healthy, server.silent_since = True, None
            return ServerState.HEALTHY
        if server.was_healthy:
            server.silent_since = began if server.silent_since is None else server.silent_since
            return ServerState.HUNG if time.monotonic() - server.silent_since > HUNG_S else ServerState.LOADING
        late = time.monotonic() - server.started > self.options.start_timeout_s
        return ServerState.LATE if late else ServerState.LOADING

    def _end(self, servers: list[_Server], grace_s: float) -> None:
        """SIGTERM to the groups, SIGKILL to what is left of each once its server is gone or the grace is over.

        A dead server is waited for only at the end: until then its id cannot become that of another group.
        """
        servers = [server for server in servers if not server.ended]
        for server in servers:
            _signal_group(server.process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for server in servers:
            while not _is_dead(server.process) and time.monotonic() < deadline:
                time.sleep(0.05)
            _signal_group(server.process, signal.SIGKILL)
            while not _is_dead(server.process):
                time.sleep(0.01)
            if self._guard is not None:
                self._guard.tell("-", server.process.pid)
            server.process.wait()
            server.ended = True
        for server in servers:
            _await_end_of_group(server.process.pid)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; every user of it can."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def log_end(path: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, indented, without those that say nothing of what happened."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (cannot be read: {error.strerror})"
    telling = [line for line in text.splitlines() if not NOISE.search(line)]
    return "\n".join(f"  {line}" for line in telling[-lines:]) or "  (empty)"


def _binds_all(host: str) -> bool:
    return host in ("0.0.0.0", "::", "")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _require_free(host: str, port: int) -> None:
    """Raise RolloutError unless the address can be bound; vLLM itself would share a port with another server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise RolloutError(
            f"a server cannot bind {host} port {port} ({error.strerror}); choose another address by "
            "rollout.servers.host, rollout.servers.port or rollout.servers.urls, or end what uses it"
        ) from error


def _answers(host: str, port: int) -> bool:
    """Whether /health says 200."""
    nearby = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(nearby, port, timeout=HEALTH_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_dead(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended, without taking its id away as `poll` does."""
    if process.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else waited for it
        return True


def _how(process: subprocess.Popen[bytes]) -> str:
    """How a dead process ended, without taking its id away."""
    code = process.returncode
    if code is None:
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    if code is None:
        return "in an unknown way"
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _await_end_of_group(group: int) -> None:
    """Wait until the members of a group that was killed are gone."""
    deadline = time.monotonic() + KILLED_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)

"""Start the vLLM servers that a recipe's rollouts ask, watch them, and stop them without a trace."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from rltoolkit.commands.serve_plan import ServePlan, plan_servers
from rltoolkit.errors import RolloutError
from rltoolkit.recipe.load import LoadedRecipe
from rltoolkit.recipe.paths import is_embedded, resolve_data_path
from rltoolkit.rollout.servers.launch import ServerFleet, ServerState, is_loopback
from rltoolkit.rollout.servers.launch_options import LaunchOptions

MOST_RESTARTS = 5
"""Of one server; the count starts anew once it was up for `STEADY_S`."""
STEADY_S = 3600.0
START_AGAIN_S = 120.0
"""How long a start is tried that fails at once: the port of what was killed may not be free yet."""
LOOK_EVERY_S = 0.5
TELL_EVERY_S = 10.0
OF_SERVING = ("urls", "host", "port", "devices", "python", "start_timeout_s")
"""Keys of rollout.servers that say how servers start, and nothing to the trainer."""
EXIT_GAVE_UP, EXIT_INTERRUPTED = 1, 130


def serve(loaded: LoadedRecipe, say: Callable[[str], None]) -> int:
    """Serve the recipe's model until Ctrl-C or SIGTERM; the exit code.

    0 when it was stopped, 130 for a Ctrl-C before the servers were ready, 1 when none is left because each died too
    often. Raises RecipeError for what the recipe gets wrong, RolloutError for a server that does not become ready.
    """
    plan = plan_servers(loaded, say)
    if not is_loopback(plan.host):
        _say_on_stderr(
            f"warning: {plan.host} can be reached from other machines, and the servers' control endpoints (weights, "
            "rpc) have no authentication: whoever reaches them can replace the model and run code here. Bind a "
            "private network only."
        )
    logs = Path(tempfile.mkdtemp(prefix="rltoolkit-serve-"))
    with _StopSignals() as stop, tempfile.TemporaryDirectory(prefix="rltoolkit-model-") as model_folder:
        model = _model(loaded, Path(model_folder))
        with ServerFleet(_options(loaded, plan, model, logs)) as fleet:
            say(f"starting {plan} with {plan.python} (vLLM {plan.vllm}); logs: {logs}")
            watch = _Watch(fleet, stop, say, train_command(loaded, fleet.urls))
            code = watch.run()
            if stop.caught is not None:
                say("stopping")
    if code == 0 and watch.all_well:
        shutil.rmtree(logs, ignore_errors=True)
    return code


@dataclass
class _Life:
    """What is remembered of one server."""

    restarts: int = 0
    """Since it was steady last."""
    up_since: float | None = None
    """When it was first seen healthy after its start."""
    failing_since: float | None = None
    """Since when it cannot be started."""


class _Watch:
    """Brings the servers up, and each back when it is lost."""

    def __init__(self, fleet: ServerFleet, stop: _StopSignals, say: Callable[[str], None], next_step: str) -> None:
        self.fleet, self.stop, self.say, self.next_step = fleet, stop, say, next_step
        self.lives = [_Life() for _ in fleet.urls]
        self.down = set(range(len(fleet.urls)))
        self.given_up: set[int] = set()
        self.ready = False
        self.all_well = True

    def run(self) -> int:
        """Watch until a signal, or until no server is left; the exit code."""
        told = time.monotonic()
        while not self.stop.event.wait(LOOK_EVERY_S):
            for index, state in enumerate(self.fleet.look()):
                if index not in self.given_up:
                    self._follow(index, state)
            if len(self.given_up) == len(self.lives):
                return EXIT_GAVE_UP
            if not self.down and not self.ready:
                self.ready = True
                self.say(f"ready; in another terminal:\n{self.next_step}")
            if self.down and time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                self.say(f"loading: {' '.join(self.fleet.urls[index] for index in sorted(self.down))}")
        early = not self.ready and self.stop.caught == signal.SIGINT
        return EXIT_INTERRUPTED if early else 0

    def _follow(self, index: int, state: ServerState) -> None:
        if state.is_lost:
            self._bring_back(index, state)
        elif state is ServerState.HEALTHY and index in self.down:
            self.down.discard(index)
            self.lives[index].up_since = time.monotonic()
            self.say(f"healthy: {self.fleet.urls[index]}")

    def _bring_back(self, index: int, state: ServerState) -> None:
        """Start a server again, or give it up where that has been done too often."""
        life, now = self.lives[index], time.monotonic()
        if life.failing_since is None:
            what = self.fleet.epitaph(index, state)
            if not self.ready:
                raise RolloutError(what)
            self.all_well = False
            _say_on_stderr(what)
            if life.up_since is not None and now - life.up_since >= STEADY_S:
                life.restarts = 0
            if life.restarts == MOST_RESTARTS:
                self._give_up(index, f"giving up {self.fleet.urls[index]} after {MOST_RESTARTS} restarts")
                return
            life.restarts, life.up_since = life.restarts + 1, None
            self.down.add(index)
            self.say(f"restarting {self.fleet.urls[index]} ({life.restarts} of at most {MOST_RESTARTS} times)")
        self._start(index)

    def _start(self, index: int) -> None:
        """Start a lost server; where that fails, the next look comes here again."""
        life, now = self.lives[index], time.monotonic()
        try:
            self.fleet.restart(index)
        except RolloutError as error:
            if life.failing_since is None:
                life.failing_since = now
                _say_on_stderr(f"{error}; trying again for {START_AGAIN_S:g} s")
            elif now - life.failing_since > START_AGAIN_S:
                self._give_up(index, f"giving up {self.fleet.urls[index]}: {error}")
            return
        life.failing_since = None

    def _give_up(self, index: int, why: str) -> None:
        """Leave one server ended; the others serve on."""
        self.fleet.end(index)
        self.given_up.add(index)
        self.down.discard(index)
        left = len(self.lives) - len(self.given_up)
        _say_on_stderr(f"{why}; mend what its log says, and serve again ({left} of {len(self.lives)} servers left)")


class _StopSignals:
    """Ctrl-C, SIGTERM and a closed terminal as an event, instead of an exception in the middle of anything."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.event = threading.Event()
        self.caught: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._catch) for number in self.NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self.caught = self.caught or number
        self.event.set()


def train_command(loaded: LoadedRecipe, urls: tuple[str, ...]) -> str:
    """What to type to train with these servers, with the overrides given here; a shell leaves its brackets alone."""
    ours = {("rollout", "backend"), *(("rollout", "servers", name) for name in OF_SERVING)}
    given = [f"{'.'.join(key)}={text}" for key, text in loaded.overrides.items() if key not in ours]
    chosen = ["rollout.backend=vllm-server", f"rollout.servers.urls={json.dumps(list(urls))}"]
    return shlex.join([*_program(), "train", str(loaded.path), *given, *chosen])


def _program() -> list[str]:
    """How this program was started, so that the same one trains."""
    started = sys.argv[0]
    if Path(started).name == "__main__.py":
        return [sys.executable, "-m", "rltoolkit"]
    found = shutil.which(Path(started).name)
    return [Path(started).name] if found is not None and found == started else [started]


def _options(loaded: LoadedRecipe, plan: ServePlan, model: str, logs: Path) -> LaunchOptions:
    from rltoolkit.rollout.choose import engine_options

    return LaunchOptions(
        model=model,
        python=plan.python,
        host=plan.host,
        ports=plan.ports,
        devices=plan.devices,
        engine=engine_options(loaded.recipe),
        log_dir=logs,
        start_timeout_s=loaded.recipe.rollout.servers.start_timeout_s,
    )


def _model(loaded: LoadedRecipe, folder: Path) -> str:
    """The model to load first: an absolute folder or a hub name; an embedded one is written to `folder`."""
    where = resolve_data_path(loaded.recipe.model.name_or_path, loaded.path)
    if isinstance(where, Path):
        return str(where.absolute())
    if not is_embedded(where):
        return where
    from transformers.utils import logging

    from rltoolkit.embedded.models import save_countdown_model

    logging.disable_progress_bar()  # for a model of one megabyte
    save_countdown_model(folder, loaded.recipe.seed)
    return str(folder)


def _say_on_stderr(text: str) -> None:
    sys.stderr.write(f"rltoolkit serve: {text}\n")
    sys.stderr.flush()

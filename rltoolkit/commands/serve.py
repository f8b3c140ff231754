"""Start the vLLM servers that a recipe's rollouts ask, watch them, and stop them without a trace."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
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
LOOK_EVERY_S = 0.5
TELL_EVERY_S = 10.0
EXIT_GAVE_UP, EXIT_INTERRUPTED = 1, 130


def serve(loaded: LoadedRecipe, say: Callable[[str], None]) -> int:
    """Serve the recipe's model until Ctrl-C or SIGTERM; the exit code.

    0 when it was stopped, 130 for a Ctrl-C before the servers were ready, 1 when they died too often. Raises
    RecipeError for what the recipe gets wrong, RolloutError for a server that does not become ready.
    """
    plan = plan_servers(loaded)
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
            watch = _Watch(fleet, stop, say, loaded.path)
            code = watch.run()
            if stop.caught is not None:
                say("stopping")
    if code == 0 and watch.restarts == 0:
        shutil.rmtree(logs, ignore_errors=True)
    return code


class _Watch:
    """Brings the servers up, and back when they die."""

    def __init__(self, fleet: ServerFleet, stop: _StopSignals, say: Callable[[str], None], recipe: Path) -> None:
        self.fleet, self.stop, self.say, self.recipe = fleet, stop, say, recipe
        self.restarts = 0
        self.down = set(fleet.urls)
        self.ready = False

    def run(self) -> int:
        """Watch until a signal, or until the servers died too often; the exit code."""
        waited_s = 0.0
        while not self.stop.event.wait(LOOK_EVERY_S):
            states = self.fleet.look()
            for index, state in enumerate(states):
                if state in (ServerState.DEAD, ServerState.LATE) and not self._bring_back(index, state):
                    return EXIT_GAVE_UP
            self._tell_healthy(states)
            waited_s += LOOK_EVERY_S
            if self.down and waited_s >= TELL_EVERY_S:
                waited_s = 0.0
                self.say(f"loading: {' '.join(url for url in self.fleet.urls if url in self.down)}")
        early = not self.ready and self.stop.caught == signal.SIGINT
        return EXIT_INTERRUPTED if early else 0

    def _bring_back(self, index: int, state: ServerState) -> bool:
        """Start a server again; False where that has been done too often."""
        what = self.fleet.epitaph(index, state)
        if not self.ready:
            raise RolloutError(what)
        _say_on_stderr(what)
        if self.restarts == MOST_RESTARTS:
            _say_on_stderr(f"giving up after {MOST_RESTARTS} restarts; mend what its log says, and serve again")
            return False
        self.restarts += 1
        self.say(f"restarting {self.fleet.urls[index]} ({self.restarts} of at most {MOST_RESTARTS} times)")
        self.fleet.restart(index)
        self.down.add(self.fleet.urls[index])
        return True

    def _tell_healthy(self, states: tuple[ServerState, ...]) -> None:
        healthy = {url for url, state in zip(self.fleet.urls, states, strict=True) if state is ServerState.HEALTHY}
        for url in sorted(self.down & healthy):
            self.say(f"healthy: {url}")
        self.down -= healthy
        if not self.down and not self.ready:
            self.ready = True
            self.say(f"ready; in another terminal:\n{train_command(self.recipe, self.fleet.urls)}")


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


def train_command(recipe: Path, urls: tuple[str, ...]) -> str:
    """What to type to train with these servers; also where a shell gives brackets a meaning."""
    overrides = ["rollout.backend=vllm-server", f"rollout.servers.urls={json.dumps(list(urls))}"]
    return shlex.join(["rltoolkit", "train", str(recipe), *overrides])


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

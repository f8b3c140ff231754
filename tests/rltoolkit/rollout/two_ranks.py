"""Run by torchrun from test_ranks.py: scenes of two processes with one shared sampler, and what each process saw."""

import json
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.ranks import awake, on_main_process, sample_together, sync_together


class Own:
    """A sampler in each process."""

    def __init__(self, broken_sync=None, broken_follow=None, broken=()):
        self.broken_sync, self.broken_follow, self.broken = broken_sync, broken_follow, broken
        self.calls = []

    def _call(self, name):
        self.calls.append(name)
        if name in self.broken:
            raise RolloutError(f"no {name}")

    def sync(self, source, version):
        if self.broken_sync is not None:
            raise self.broken_sync
        self.calls.append(f"sync {source} {version}")

    def wake(self):
        self._call("wake")

    def sleep(self):
        self._call("sleep")

    def generate(self):
        self._call("generate")
        return [self.calls[:]]


class Shared(Own):
    """Servers, seen from one process."""

    @property
    def shared_policy(self):
        return {"policy": self.calls[-1]}

    def follow(self, policy):
        if self.broken_follow is not None:
            raise self.broken_follow
        self.calls.append(f"follow {policy['policy']}")


def scene(backend, version):
    try:
        with awake(backend):
            sync_together(backend, "folder", version)
    except RolloutError as error:
        return {"calls": backend.calls, "error": str(error), "cause": type(error.__cause__).__name__}
    return {"calls": backend.calls, "error": None}


def rollout(backend, version):
    """What a trainer does; the process that failed would otherwise leave the other in the next gather."""
    try:
        samples = sample_together(backend, "folder", version, backend.generate)
    except RolloutError as error:
        return {"calls": backend.calls, "error": str(error), "cause": type(error.__cause__).__name__}
    return {"calls": backend.calls, "error": None, "samples": samples}


def evaluated_by_the_main_process(state):
    """What evaluation in training does: one process samples alone, the others wait."""
    backend = Shared()

    def work():
        with awake(backend):
            backend.sync("folder", 9)
        return backend.calls

    return {"calls": backend.calls, "result": on_main_process("evaluate", work), "rank": state.process_index}


def failing_on_the_main_process():
    try:
        on_main_process("evaluate", lambda: 1 // 0)
    except RolloutError as error:
        return {"error": str(error), "cause": type(error.__cause__).__name__}
    return {"error": None}


def main(folder: Path) -> None:
    state = PartialState(cpu=True)
    main_process = state.is_main_process
    report = {
        "processes": state.num_processes,
        "shared": scene(Shared(), 1),
        "own": scene(Own(), 2),
        "refused": scene(Shared(broken_sync=RolloutError("all servers are down") if main_process else None), 3),
        "disk": scene(Shared(broken_sync=OSError("no space left") if main_process else None), 4),
        "follower": scene(Shared(broken_follow=None if main_process else RolloutError("no route")), 5),
        "rollout": rollout(Shared(), 10),
        "first fails": rollout(Shared(broken=["generate"] if main_process else ()), 11),
        "second fails": rollout(Own(broken=() if main_process else ["generate"]), 12),
        "no wake": rollout(Shared(broken=() if main_process else ["wake"]), 13),
        "no sleep": rollout(Own(broken=["sleep"] if main_process else ()), 14),
        "no own sync": rollout(Own(broken_sync=None if main_process else OSError("no space left")), 15),
        "no sync": rollout(Shared(broken_sync=RolloutError("all are down") if main_process else None), 16),
        "alone": evaluated_by_the_main_process(state),
        "alone fails": failing_on_the_main_process(),
        "after": scene(Shared(), 6),
        "in_step": gather_object([state.process_index]),
    }
    (folder / f"rank{state.process_index}.json").write_text(json.dumps(report))
    state.destroy_process_group()  # the threads of gloo abort a process that ends while they run


if __name__ == "__main__":
    main(Path(sys.argv[1]))

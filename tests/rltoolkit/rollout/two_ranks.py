"""Run by torchrun from test_ranks.py: scenes of two processes with one shared sampler, and what each process saw."""

import json
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.ranks import awake, sync_together


class Own:
    """A sampler in each process."""

    def __init__(self, broken_sync=None, broken_follow=None):
        self.broken_sync, self.broken_follow = broken_sync, broken_follow
        self.calls = []

    def sync(self, source, version):
        if self.broken_sync is not None:
            raise self.broken_sync
        self.calls.append(f"sync {source} {version}")

    def wake(self):
        self.calls.append("wake")

    def sleep(self):
        self.calls.append("sleep")


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


def evaluated_by_the_main_process(state):
    """What evaluation in training does: one process samples alone, the others wait."""
    backend = Shared()
    if state.is_main_process:
        with awake(backend):
            backend.sync("folder", 9)
    state.wait_for_everyone()
    return {"calls": backend.calls, "error": None}


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
        "alone": evaluated_by_the_main_process(state),
        "after": scene(Shared(), 6),
        "in_step": gather_object([state.process_index]),
    }
    (folder / f"rank{state.process_index}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

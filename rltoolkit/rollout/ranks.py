"""One policy for the samplers of all processes: who gives it to them, and what happens when that fails."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import RolloutBackend
from rltoolkit.types import Sample

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

__all__ = [
    "FollowingBackend",
    "awake",
    "is_shared",
    "on_main_process",
    "sample_together",
    "sync_together",
    "told_to_all",
]


class _ToldError(RolloutError):
    """A failure that every process has been told of, and raises at the same place."""


class FollowingBackend(RolloutBackend, Protocol):
    """A backend whose sampler is shared by all processes, such as servers: one process syncs, the others follow."""

    @property
    def shared_policy(self) -> Any:
        """What another process must know of the policy that was synced last; can be pickled."""
        ...

    def follow(self, policy: Any) -> None:
        """Accept samples of `policy`, which another process has synced, and of no other."""
        ...


def is_shared(backend: RolloutBackend) -> TypeGuard[FollowingBackend]:
    """Whether all processes ask one sampler through backends like this one."""
    return callable(getattr(backend, "follow", None))


@contextmanager
def awake(backend: RolloutBackend) -> Iterator[None]:
    """Wake the backend, and put it to sleep at the end; a failure in between stays the one that is told."""
    backend.wake()
    try:
        yield
    except BaseException:
        with suppress(RolloutError):
            backend.sleep()
        raise
    backend.sleep()


@contextmanager
def told_to_all(what: str) -> Iterator[None]:
    """Do something on every process; the failure of one is raised as the same RolloutError on every process.

    `what` completes "process 1 could not ...". A process that failed alone would leave the others waiting at the next
    gather until it times out, half an hour later. One process gets its error as it is.
    """
    if PartialState().num_processes == 1:
        yield
        return
    cause, failure = None, None
    try:
        yield
    except _ToldError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, the other processes wait for this answer
        cause, failure = error, _said(error, what)
    failures = [message for message in gather_object([failure]) if message is not None]
    if failures:
        raise _ToldError(failures[0]) from cause


def sample_together(
    backend: RolloutBackend, source: "nn.Module | str | Path", version: int, sample: Callable[[], list[list[Sample]]]
) -> list[list[Sample]]:
    """Wake the backend, give it the weights of `source`, `sample`, and let it sleep; every process calls it.

    What fails on one process is raised on all of them.
    """
    with told_to_all(f"sample from version {version} of the policy"), ExitStack() as stack:
        with told_to_all("wake its sampler"):  # before the processes talk to each other in `sync_together`
            stack.enter_context(awake(backend))
        sync_together(backend, source, version)
        return sample()


def on_main_process(what: str, action: Callable[[], T]) -> T:
    """Do something on the main process alone while the others wait; all return what came of it.

    Every process calls it. `what` completes "process 0 could not ..."; a failure is raised on every process (see
    `told_to_all`). The result can be pickled.
    """
    told: list[Any] = [None]
    with told_to_all(what):
        if PartialState().is_main_process:
            told = [action()]
    result: T = broadcast_object_list(told, from_process=0)[0]
    return result


def sync_together(backend: RolloutBackend, source: "nn.Module | str | Path", version: int) -> None:
    """Give the samplers of all processes the weights of `source`; every process calls it, with its own backend.

    Where the sampler is shared, the main process syncs and the others follow; otherwise each process syncs its own.
    A failure of one process with a shared sampler is raised as the same RolloutError on every process: a process
    that went on alone would wait for the others for ever.
    """
    state = PartialState()
    if state.num_processes == 1 or not is_shared(backend):
        backend.sync(source, version)
        return
    what = f"give version {version} of the policy to its sampler"
    told: list[Any] = [None]
    with told_to_all(what):
        if state.is_main_process:
            backend.sync(source, version)
            told = [backend.shared_policy]
    [policy] = broadcast_object_list(told, from_process=0)
    with told_to_all(what):
        if not state.is_main_process:
            backend.follow(policy)


def _said(error: Exception, what: str) -> str:
    name = "" if isinstance(error, RolloutError) else f"{type(error).__name__}: "
    return f"process {PartialState().process_index} could not {what}: {name}{error}"

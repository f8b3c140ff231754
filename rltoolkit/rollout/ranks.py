"""One policy for the samplers of all processes: who gives it to them, and what happens when that fails."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.base import RolloutBackend

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FollowingBackend", "awake", "is_shared", "sync_together"]


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
    cause: Exception | None = None
    told: list[Any] = [None, None]
    if state.is_main_process:
        try:
            backend.sync(source, version)
            told = [backend.shared_policy, None]
        except Exception as error:  # noqa: BLE001  whatever it is, the other processes wait for this answer
            cause, told = error, [None, _said(error, version, 0)]
    policy, failure = broadcast_object_list(told, from_process=0)
    if failure is not None:
        raise RolloutError(failure) from cause
    if not state.is_main_process:
        try:
            backend.follow(policy)
        except Exception as error:  # noqa: BLE001  as above
            cause, failure = error, _said(error, version, state.process_index)
    failures = [message for message in gather_object([failure]) if message is not None]
    if failures:
        raise RolloutError(failures[0]) from cause


def _said(error: Exception, version: int, process: int) -> str:
    name = "" if isinstance(error, RolloutError) else f"{type(error).__name__}: "
    return f"process {process} could not give version {version} of the policy to its sampler: {name}{error}"

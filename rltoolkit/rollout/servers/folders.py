"""The folder that a process writes weights into, for servers to load, and its end."""

import os
import shutil
import socket
import tempfile
import weakref
from pathlib import Path

__all__ = ["WeightsFolder"]

PREFIX = "policy-"


class WeightsFolder:
    """A folder of this process alone, removed with all in it by `close` or at the end of the process.

    What a process left behind that was killed is removed by the next one that writes to the same place.
    """

    def __init__(self, place: Path | None) -> None:
        """Make a new folder in `place`, None: where the system keeps temporary files."""
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            _remove_left_behind(place)
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_here()}-{os.getpid()}-", dir=place))
        self.path.chmod(0o755)  # servers may run as another user
        self._end = weakref.finalize(self, _remove, self.path, os.getpid())

    def keep_only(self, *kept: Path | None) -> None:
        """Remove all else, also what was half written."""
        for old in self.path.iterdir():
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder; in a fork of the process that made it, do nothing."""
        self._end()


def _here() -> str:
    """Name the set of processes among which an id says which one: those of a host, or of a container on it."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname().replace('/', '_')}-{namespace.stat().st_ino if namespace.exists() else 0}"


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _remove_left_behind(place: Path) -> None:
    """Remove the folders of processes from here that have ended."""
    for folder in place.glob(f"{PREFIX}{_here()}-*"):
        number = folder.name.removeprefix(f"{PREFIX}{_here()}-").partition("-")[0]
        if number.isdigit() and not _alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

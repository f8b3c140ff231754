"""Ends process groups when the process that started them is gone, however it went.

Run as a script, in a session of its own, with a pipe from its owner as standard input. A line "+123" gives group 123
into its care, "-123" takes it out again. When the pipe ends, which the system sees to even after `kill -9` of the
owner, all groups still in its care are ended: SIGTERM, and after a grace time SIGKILL.

It protects against the death of the owner, not against its own: who kills the guard as well leaves the groups
running. A fork of the owner that never calls exec keeps the pipe open for as long as it lives.

The grace time in seconds is its one argument. It uses the standard library alone, to start in a few milliseconds.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> set[int]:
    """Read orders until they end; the groups that are then still in care."""
    groups: set[int] = set()
    for line in lines:
        order, group = line[:1], int(line[1:])
        (groups.add if order == "+" else groups.discard)(group)
    return groups


def end(groups: Iterable[int], grace_s: float) -> None:
    """End the groups: politely, then not."""
    left = {group for group in groups if _send(group, signal.SIGTERM)}
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = {group for group in left if _send(group, 0)}
    for group in left:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    """Whether there was anyone left to send it to."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # ends with its owner, never before
        signal.signal(number, signal.SIG_IGN)
    end(watch(sys.stdin), float(sys.argv[1]))

"""What a fork of the test's process does, for the tests of what a fork may and may not do."""

import os
import signal
import threading
from collections.abc import Callable


def in_a_fork(action: Callable[[], object], seconds: float = 30.0) -> str:
    """Run something in a fork; what it returned, or the class and the text of what it raised, or "it hangs"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(action())
        except BaseException as error:  # noqa: BLE001  the test looks at it
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    killer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    killer.start()
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    killer.cancel()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return text if status == 0 else "it hangs"

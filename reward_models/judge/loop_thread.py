"""An event loop in a thread of its own, so that batches can be asked from anywhere: threads, async code, plain code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, TypeVar

from reward_models.errors import VerifierError

T = TypeVar("T")
# How long closing waits for connections; they are closed by the system at the latest when the process ends.
CLOSE_TIMEOUT_S = 5.0
_STOPPED = "the judge was closed while it was judging; close it after the last batch"


class LoopThread:
    """Runs coroutines for other threads until it is stopped; `on_stop` runs last, inside the loop."""

    def __init__(self, on_stop: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="judge-helper")  # for names of hosts and the like
        self._loop.set_default_executor(self._executor)
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, args=(on_stop,), name="judge", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result; Ctrl-C cancels it.

        Raises:
            VerifierError: the loop was stopped meanwhile.
        """
        with self._lock:  # what is submitted to a loop that stops would never end
            future = None if self._stopped else asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if future is None:
            coroutine.close()
            raise VerifierError(_STOPPED)
        try:
            return future.result()
        except CancelledError:
            raise VerifierError(_STOPPED) from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what runs, close, and wait for the thread; may be called from any thread, and twice."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:  # a garbage collection may call from inside
            self._thread.join(2 * CLOSE_TIMEOUT_S)

    def _main(self, on_stop: Callable[[], Awaitable[None]]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._finish(on_stop))
        finally:
            self._executor.shutdown(cancel_futures=True)
            self._loop.close()

    async def _finish(self, on_stop: Callable[[], Awaitable[None]]) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CLOSE_TIMEOUT_S)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await on_stop()
        except TimeoutError:
            return

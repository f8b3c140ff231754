"""The thread with the event loop of a judge."""

import pytest

from reward_models import VerifierError
from reward_models.judge.loop_thread import LoopThread


async def answer() -> int:
    return 42


def test_it_runs_until_it_is_stopped():
    ended = []

    async def on_stop() -> None:
        ended.append(True)

    loop = LoopThread(on_stop)
    assert loop.run(answer()) == 42
    loop.stop()
    loop.stop()
    assert ended == [True]


def test_after_that_it_says_so_instead_of_waiting_for_ever():
    loop = LoopThread(answer)
    loop.stop()
    with pytest.raises(VerifierError, match="the judge was closed"):
        loop.run(answer())


def test_an_error_reaches_the_caller():
    async def fail() -> None:
        raise LookupError("inside")

    loop = LoopThread(answer)
    with pytest.raises(LookupError, match="inside"):
        loop.run(fail())
    loop.stop()

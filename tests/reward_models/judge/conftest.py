"""A judge server that misbehaves on request, one for all tests of this folder."""

from collections.abc import Iterator

import pytest
from judge_server import JudgeServer, running_judge_server


@pytest.fixture(scope="session")
def _server() -> Iterator[JudgeServer]:
    with running_judge_server() as server:
        yield server


@pytest.fixture
def server(_server: JudgeServer) -> JudgeServer:
    _server.forget()
    return _server

"""A hub that does not answer is noticed in seconds."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rltoolkit.check.hub import hub_reachable, use_hub_or_cache


class Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[200, 404])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handler = type("Handler", (Answer,), {"status": request.param})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield
        httpd.shutdown()


def test_any_answer_counts(server: None) -> None:
    assert hub_reachable()


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not hub_reachable(0.5)
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    assert not hub_reachable(0.5)


def test_a_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        started = time.monotonic()
        assert not hub_reachable(0.3)
        assert time.monotonic() - started < 30  # its libraries would try for minutes


def test_offline_by_choice_uses_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert use_hub_or_cache(0.2)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not use_hub_or_cache(0.2)  # imported already, and would try the network

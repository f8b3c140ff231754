import asyncio
import threading
import time

import pytest

from rltoolkit.errors import RolloutError
from rltoolkit.rollout.servers import http
from rltoolkit.rollout.servers.http import HttpClient, LoopThread, ServerError, SilentServerError

JSON = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'


def talk(script, use):
    """Serve each connection by `script(connection number, reader, writer)`; return what `use(client)` returns."""

    async def run():
        count = 0

        async def serve(reader, writer):
            nonlocal count
            count += 1
            try:
                await script(count, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        try:
            return await use(client), count
        finally:
            client.close()
            server.close()

    return asyncio.run(run())


def always(answer):
    """Answer every request of a connection alike."""

    async def script(_, reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Le"))
            await reader.readexactly(length)
            writer.write(answer)
            await writer.drain()
            if b"Content-Length" not in answer and b"chunked" not in answer:
                return

    return script


def get(client):
    return client.request("GET", "/x", timeout_s=5)


def test_a_request_and_what_is_sent():
    sent = []

    async def script(_, reader, writer):
        sent.append(await reader.readuntil(b"}"))
        writer.write(JSON)

    answer, _ = talk(script, lambda client: client.request("POST", "/v1/x?y=1", {"k": [1]}, timeout_s=5))
    assert (answer.status, answer.json()) == (200, {"a": 1})
    head, body = sent[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Content-Length: 10" in head
    assert body == b'{"k": [1]}'


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\nTrailer: 1\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}',
        b"HTTP/1.1 100 Continue\r\n\r\n" + JSON,
        JSON.replace(b"200 OK", b"200"),
    ],
)
def test_forms_of_an_answer(answer):
    async def twice(client):
        return [(await get(client)).json() for _ in range(2)]

    assert talk(always(answer), twice)[0] == [{"a": 1}] * 2


def test_connections_are_kept_and_shared_by_requests_one_after_another():
    async def use(client):
        for _ in range(5):
            await asyncio.gather(*(get(client) for _ in range(3)))

    assert talk(always(JSON), use)[1] == 3


def test_a_kept_connection_that_the_server_closed_costs_nothing():
    async def script(_, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(JSON)
        await writer.drain()
        await reader.readexactly(1)  # the next request is not answered

    async def use(client):
        return [(await get(client)).status for _ in range(3)]

    assert talk(script, use) == ([200] * 3, 3)


def test_an_order_is_given_once():
    heads = []

    async def script(number, reader, writer):
        if number == 1:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(JSON)
        heads.append((await reader.readuntil(b"\r\n\r\n")).split()[1])  # read, and not answered

    async def use(client):
        await get(client)
        with pytest.raises(ServerError, match="closed without an answer"):
            await client.request("POST", "/v1/load_lora_adapter", {}, timeout_s=5)

    talk(script, use)
    assert heads == [b"/v1/load_lora_adapter"]


def test_old_connections_are_not_used(monkeypatch):
    monkeypatch.setattr(http, "KEEP_ALIVE_S", 0.0)

    async def use(client):
        for _ in range(3):
            await get(client)
            await asyncio.sleep(0.01)

    assert talk(always(JSON), use)[1] == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (JSON[:-3], "the answer was cut off"),
        (JSON[:30], "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "ValueError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "ValueError"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "begins with 'SSH-2.0-OpenSSH', which is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "LimitOverrunError|cut off"),
        (b"", "closed without an answer"),
    ],
)
def test_answers_that_are_none(answer, message):
    async def script(_, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    with pytest.raises(ServerError, match=rf"GET http://127.0.0.1:\d+/x: .*({message})"):
        talk(script, get)


def test_the_deadline_is_for_the_whole_answer():
    async def drop_by_drop(_, reader, writer):
        for byte in JSON:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    started = time.monotonic()
    with pytest.raises(SilentServerError, match=r"no answer within 0\.3 s"):
        talk(drop_by_drop, lambda client: client.request("GET", "/x", timeout_s=0.3))
    assert time.monotonic() - started < 1.2  # all bytes together take longer


def test_a_cancelled_request_closes_its_connection():
    closed = asyncio.Event()

    async def script(_, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        closed.set()

    async def use(client):
        task = asyncio.create_task(get(client))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(closed.wait(), 5)

    talk(script, use)


def test_nobody_there():
    async def use():
        await HttpClient("http://127.0.0.1:9").request("GET", "/", timeout_s=5)

    with pytest.raises(ServerError, match=r"GET http://127\.0\.0\.1:9/: ConnectionRefusedError"):
        asyncio.run(use())


@pytest.mark.parametrize(
    "url", ["", "localhost:80", "ftp://a", "http://", "http://a?x=1", "http://a/v1", "http://a:99999", "http://[::1"]
)
def test_a_url_that_is_none(url):
    with pytest.raises(RolloutError, match="the servers' URLs"):
        HttpClient(url)


def test_the_message_of_an_error_is_found_and_shortened():
    assert http.Answer(400, b'{"error": {"message": "too long"}}').text() == "too long"
    assert http.Answer(502, b"<html>" + b"x" * 1000).text() == "<html>" + "x" * 294
    assert http.Answer(500, b"").text() == "(empty)"
    with pytest.raises(ServerError, match="HTTP 200 with a body that is no JSON: <html>"):
        http.Answer(200, b"<html>").json()


def test_the_thread_ends_with_what_runs_on_it():
    ended = threading.Event()
    thread = LoopThread()

    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def start():
        asyncio.get_running_loop().kept = asyncio.create_task(forever())
        return 7

    assert thread.run(start()) == 7
    inner = thread._thread
    thread.close()
    thread.close()
    assert ended.is_set()
    assert not inner.is_alive()
    assert thread.run(start()) == 7  # and may start again
    thread.close()


def test_an_error_on_the_loop_is_raised_by_the_caller():
    thread = LoopThread()

    async def fail():
        raise RolloutError("so it is")

    with pytest.raises(RolloutError, match="so it is"):
        thread.run(fail())
    thread.close()

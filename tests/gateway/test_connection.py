"""What a client may do to a connection: heads without end, answers that it does not read, requests in a row."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from eyelid.gateway import connection
from eyelid.gateway.logs import Lines

from .gate import Gate, both, completion, verdict

BODY = json.dumps({"model": "ecso", "messages": [{"role": "user", "content": "hi"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


async def opened(gate: Gate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gate.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def until(what: Callable[[], bool]) -> None:
    while not what():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("lines", [[b"x-a: " + b"a" * 9000 + b"\r\n"], [b"a" * 9000], [b"x-%d: a\r\n" * 1000]])
async def test_a_head_without_end_is_not_collected(lines: list[bytes]) -> None:
    async with both() as (gate, _):
        reader, writer = await opened(gate)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + (b"x-b: " if lines[0][:1] == b"a" else b""))
        sent = 0
        try:
            while sent < 4_000_000 and not reader.at_eof():
                writer.write(lines[0])
                sent += len(lines[0])
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        await until_closed(reader)
        writer.close()
        healthy = await gate.get("/healthz")
    assert sent < 4_000_000
    assert healthy.status == 200


async def test_the_server_has_no_line_of_its_own_for_a_request() -> None:
    out = io.StringIO()
    async with both() as (gate, _):
        lines = Lines(out)  # after the server, as `eyelid serve` has it
        try:
            statuses = [(await gate.ask()).status, (await gate.get("/healthz")).status]
            logging.getLogger("eyelid.here").info("here")
        finally:
            lines.close()
    assert statuses == [200, 200]
    assert {json.loads(line)["logger"] for line in out.getvalue().splitlines()} == {"eyelid.here"}


async def test_a_head_that_is_too_large_in_one_piece_is_answered_with_400() -> None:
    async with both() as (gate, _):
        reader, writer = await opened(gate)
        writer.write(HEALTH[:-2] + b"x-a: " + b"a" * connection.MAX_HEAD + b"\r\n\r\n")
        answer = await until_closed(reader)
        writer.close()
    assert b" 400 " in answer or answer == b""
    assert b" 200 " not in answer


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"\r\n", HEALTH + b"GET /hea", HEALTH + b"|\r\n"])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    async with both() as (gate, _):
        reader, writer = await opened(gate)
        first, _, then = sent.partition(b"|")
        writer.write(first)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5) if then else b""
        writer.write(then)
        answer += await until_closed(reader)
        writer.close()
    assert answer.count(b" 200 OK") == sent.count(b"HTTP/1.1")


async def test_a_long_answer_is_not_ended_by_what_comes_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)

    async def slow(_: object) -> str:
        await asyncio.sleep(0.5)
        return "fine"

    async with both(slow) as (gate, _):
        reader, writer = await opened(gate)
        writer.write(POST + b"\r\n")
        first = await asyncio.wait_for(reader.readuntil(b"fine"), 5)
        writer.close()
        reader, writer = await opened(gate)
        writer.write(POST + b"GET /hea")
        second = await until_closed(reader)
        writer.close()
    assert b" 200 OK" in first
    assert b"fine" in second


async def test_requests_in_a_row_are_answered_in_their_order_and_large_bodies_are_no_heads() -> None:
    async with both() as (gate, model):
        reader, writer = await opened(gate)
        large = json.dumps({"model": "ecso", "messages": [{"role": "user", "content": "x" * 900_000}]}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(large)
        end = HEALTH[:-2] + b"connection: close\r\n\r\n"
        writer.write(POST + head + large + POST + end)
        answer = await until_closed(reader)
        writer.close()
    assert answer.count(b" 200 OK") == 4
    assert answer.endswith(b'{"status":"ok"}')
    assert len(model.asked) == 3


def large(_: object) -> web.Response:
    """An answer that no kernel holds."""
    body = io.BytesIO(json.dumps(completion("word " * 1_000_000)).encode())
    return web.Response(body=body, content_type="application/json")


@asynccontextmanager
async def unread(gate: Gate, sent: bytes) -> AsyncIterator[socket.socket]:
    """A client that sends this, and reads nothing, for 20 seconds at most."""
    host, port = gate.url.removeprefix("http://").split(":")
    client, loop = socket.socket(), asyncio.get_running_loop()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    async with asyncio.timeout(20):
        with client:
            await loop.sock_connect(client, (host, int(port)))
            await loop.sock_sendall(client, sent)
            yield client


@pytest.mark.parametrize("stream", [True, False])
async def test_who_does_not_read_its_answer_keeps_neither_a_place_nor_memory(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    body = BODY[:-1] + (b', "stream": true}' if stream else b"}")
    sent = POST.replace(b"length: %d" % len(BODY), b"length: %d" % len(body)).replace(BODY, body)
    async with both(large) as (gate, model), unread(gate, sent):
        model.judge = lambda _: verdict({"messages": []})
        await until(lambda: bool(model.parts))
        await until(lambda: not gate.server.server_state.connections)
        await until(lambda: not gate.gateway.room.taken)
        records = gate.kept.records
    assert len(records) == 1
    if stream:
        assert records[0].outcome == "disconnected"


@pytest.mark.parametrize("closing", ["asked for", "half closed", "by the server"])
async def test_who_does_not_read_does_not_hold_up_the_end_of_its_connection(
    closing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSE_SECONDS", 0.3)
    sent = POST.replace(b"host:", b"connection: close\r\nhost:") if closing == "asked for" else POST
    async with both(large) as (gate, model), unread(gate, sent) as client:
        model.judge = lambda _: verdict({"messages": []})
        await until(lambda: bool(gate.server.server_state.connections))
        (served,) = gate.server.server_state.connections
        await until(lambda: served.cycle is not None and served.cycle.response_complete)
        assert served.transport.get_write_buffer_size()
        if closing == "half closed":
            client.shutdown(socket.SHUT_WR)
        elif closing == "by the server":
            served.shutdown()
        await until(lambda: not gate.server.server_state.connections)


async def test_a_head_and_what_follows_are_written_as_one_piece_and_an_empty_one_is_none() -> None:
    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []

        def write(self, data: bytes) -> None:  # type: ignore[override]
            self.written.append(data)

        def writelines(self, list_of_data: object) -> None:
            raise AssertionError("asyncio's own has three faults in Python 3.12")

        def is_closing(self) -> bool:
            return False

    wire = Wire()
    outgoing = connection._Outgoing(wire, asyncio.get_running_loop(), lambda: None)
    outgoing.write(b"HTTP/1.1 200 OK\r\n\r\n")
    outgoing.write(b"first")
    outgoing.write(b"second")
    outgoing.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    outgoing.write(b"")
    outgoing.write(b"HTTP/1.1 200 OK\r\n")
    await asyncio.sleep(0)
    assert wire.written == [
        b"HTTP/1.1 200 OK\r\n\r\nfirst",
        b"second",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ]


@pytest.mark.parametrize("closing", [False, True])
async def test_a_client_that_reads_slowly_is_waited_for(closing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wire(asyncio.Transport):
        size, ended, left = 300_000, False, False

        def get_write_buffer_size(self) -> int:
            self.size -= 1
            return max(self.size, 299_960)

        def is_closing(self) -> bool:
            return self.ended

        def close(self) -> None:
            self.ended = True

        def abort(self) -> None:
            self.ended = self.left = True

    monkeypatch.setattr(connection, "CLOSE_SECONDS" if closing else "READ_SECONDS", 0.01)
    async with both() as (gate, _):
        wire, found = Wire(), connection.Connection(gate.server.config, gate.server.server_state, {})
        found.connection_made(wire)
        found.pause_writing()
        if closing:
            found.transport.close()
            found.resume_writing()  # most of it got away: the rest is watched as well
        await asyncio.sleep(0.05)
        assert not wire.left, "something got away each time"
        async with asyncio.timeout(5):
            await until(lambda: wire.left)
        found.connection_lost(OSError())


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1/chat/completions", "/v1/chat", "/V1/chat/completions"])
async def test_no_path_leads_elsewhere(path: str) -> None:
    async with both() as (gate, model):
        reader, writer = await opened(gate)
        sent = POST.replace(b"/v1/chat/completions", path.encode()).replace(b"127.0.0.1", b"other.example")
        writer.write(sent.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
        answer = await until_closed(reader)
        writer.close()
    assert b" 404 " in answer
    assert b"other.example" not in answer
    assert b'"code":"http_404"' in answer
    assert model.parts == []

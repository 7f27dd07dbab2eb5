"""A light client, and bursts of requests by many of them.

It writes prepared bytes and reads answers with httptools: aiohttp's own client costs more than what is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httptools

from benchmarks.gateway_processes import Process

CHAT = "/v1/chat/completions"


class Client(asyncio.Protocol):
    """One connection that is kept: a request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._parser: Any = None
        self.body: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.status = 0

    async def ask(self, host: str, port: int, raw: bytes) -> bytes:
        """The body of the answer. Raises OSError for a connection that broke; `status` has the status."""
        if self._transport is None or self._transport.is_closing():
            await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        assert self._transport is not None
        self.body, self.headers, self._parser = [], {}, httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        await self._done
        return b"".join(self.body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(error or ConnectionResetError("closed in the middle of an answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.startswith(b"x-eyelid-"):
            self.headers[name.decode()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        assert self._done is not None
        self._done.set_result(None)


def prepared(process: Process, body: object, *, path: str = CHAT, key: str | None = None) -> bytes:
    """A whole HTTP request."""
    data = json.dumps(body, separators=(",", ":")).encode()
    place = process.url.removeprefix("http://")
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: {place}\r\ncontent-type: application/json\r\n{auth}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst of requests came to. Times in seconds; `cpu` is that of the server, None where there is none."""

    latencies: list[float]
    wall: float
    cpu: float | None
    wrong: int

    @property
    def requests(self) -> int:
        return len(self.latencies)


async def burst(
    process: Process, raws: Sequence[bytes], check: Callable[[int, bytes], bool], *, requests: int, clients: int
) -> Burst:
    """`requests` requests by `clients` connections, each asking again as soon as it was answered.

    Each connection has asked once before the clocks start. `raws` are sent in turn; `check(n, body)` says whether an
    answer to `raws[n]` is right.
    """
    host, _, port = process.url.removeprefix("http://").partition(":")
    latencies: list[float] = []
    todo = iter(range(requests))
    wrong = 0

    async def ask(client: Client) -> None:
        nonlocal wrong
        for n in todo:
            which = n % len(raws)
            start = time.perf_counter()
            body = await client.ask(host, int(port), raws[which])
            latencies.append(time.perf_counter() - start)
            wrong += client.status != 200 or not check(which, body)

    opened = [Client() for _ in range(clients)]
    try:
        # Uncounted: connections, those behind the server too, which it may have closed since its last turn.
        await asyncio.gather(*(c.ask(host, int(port), raws[0]) for c in opened))
        cpu, start = process.cpu_seconds, time.perf_counter()
        await asyncio.gather(*(ask(c) for c in opened))
    finally:
        for client in opened:
            client.close()
    return Burst(latencies, time.perf_counter() - start, process.cpu_seconds - cpu, wrong)

"""A real HTTP server on loopback that answers chat completions as a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """`bodies` and `headers` of every request seen, in order; `connections` counts the distinct ones."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)


@asynccontextmanager
async def serving(*handlers: Handler | dict[str, Any]) -> AsyncIterator[Server]:
    """Answers with each handler in turn, the last one again and again; a dict is sent as JSON."""
    server = Server("")

    async def chat(request: web.Request) -> web.StreamResponse:
        server.bodies.append(await request.json())
        server.headers.append(dict(request.headers))
        server.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        handler = handlers[min(len(server.bodies), len(handlers)) - 1]
        return web.json_response(handler) if isinstance(handler, dict) else await handler(request)

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", chat)
    async with TestServer(app) as running:
        server.url = str(running.make_url("/v1"))
        yield server


def completion(text: str | None = "Hello.", *, reason: str | None = "stop", **message: object) -> dict[str, Any]:
    """A whole chat completion, as OpenAI documents it."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "served-model",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
    }


def chunk(text: str | None = None, *, reason: str | None = None, **delta: object) -> dict[str, Any]:
    """One event of a streamed completion."""
    delta |= {} if text is None else {"content": text}
    return {
        "object": "chat.completion.chunk",
        "model": "served-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


USAGE = {"model": "served-model", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}


def sse(*events: object, end: str = "\n\n", done: bool = True) -> bytes:
    """The bytes of an event stream."""
    lines = [f"data: {json.dumps(e)}" for e in events] + ["data: [DONE]"] * done
    return "".join(line + end for line in lines).encode()


def status(code: int, error: object = None, headers: dict[str, str] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error or {"message": "no"}}, status=code, headers=headers)

    return answer


def raw(body: bytes, content_type: str, code: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=code, content_type=content_type)

    return answer


def streaming(pieces: Iterable[bytes], *, cut: bool = False, pause_s: float = 0.0) -> Handler:
    """Sends the pieces one after another as an event stream; `cut` then drops the connection without ending it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        if cut:
            drop(request)
        else:
            await response.write_eof()
        return response

    return answer


def drop(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def left(seconds: float = 5.0) -> bool:
    """In a handler: whether the client closes the connection within `seconds`. aiohttp then cancels the handler."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return True
    return False

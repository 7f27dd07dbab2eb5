"""What answers behind a gateway under measurement, and what a gateway costs at the least.

Run as `python -m benchmarks.gateway_servers upstream|detector|proxy --port N`, it is one of the servers:

    upstream   an OpenAI-compatible model that answers at once; streams in `EVENTS` pieces, one every `PAUSE` seconds
    detector   a classify endpoint that finds everything harmless at once
    proxy      bare Starlette + aiohttp, which passes bodies on unread
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from benchmarks.gateway_client import CHAT

#: Of a stream: pieces, and seconds between two of them.
EVENTS, PAUSE = 16, 0.05
WORDS = " ".join(f"word{i}" for i in range(63))
Send = Callable[[dict[str, Any]], Awaitable[None]]


def completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served", "choices": [choice]}
    return json.dumps({**whole, "usage": usage}).encode()


def _events(text: str) -> Iterator[bytes]:
    """`EVENTS` pieces of a text, and the end."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    words = text.split(" ")
    step = -(-len(words) // EVENTS)
    for start in range(0, len(words), step):
        piece = " ".join(words[start : start + step]) + (" " if start + step < len(words) else "")
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        yield b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n"


async def body_of(receive: Callable[[], Awaitable[dict[str, Any]]]) -> bytes:
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def marked(body: bytes) -> str:
    """The mark that a question carries; the answer carries it too, so that one client's cannot pass for another's."""
    start = body.find(b"MARK-")
    return body[start : start + 13].decode() if start >= 0 else "MARK-none"


async def upstream(scope: dict[str, Any], receive: Any, send: Send) -> None:
    if scope["type"] != "http":
        return
    body = await body_of(receive)
    text = f"{marked(body)} {WORDS}"
    if b'"stream":true' in body:
        await start(send, b"text/event-stream", None)
        for event in _events(text):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(PAUSE)
        await send({"type": "http.response.body", "body": b""})
        return
    await whole(send, completion(text))


async def detector(scope: dict[str, Any], receive: Any, send: Send) -> None:
    """A request without a body is told how often it was asked."""
    if scope["type"] != "http":
        return
    body = await body_of(receive)
    if not body:
        return await whole(send, b'{"asked": %d}' % len(_ASKED))
    _ASKED.append(None)
    if scope["path"].startswith("/beta/"):  # LiteLLM's guardrail API
        return await whole(send, b'{"action": "NONE"}')
    texts = json.loads(body)["input"]
    texts = [texts] if isinstance(texts, str) else texts
    verdict = {"label": "harmless", "probs": [0.99, 0.01], "num_classes": 2}
    await whole(send, json.dumps({"data": [{"index": i, **verdict} for i in range(len(texts))]}).encode())


#: One entry for each time that the detector was asked.
_ASKED: list[None] = []


async def start(send: Send, kind: bytes, length: int | None, status: int = 200) -> None:
    headers = [(b"content-type", kind)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def whole(send: Send, body: bytes, *, kind: bytes = b"application/json", status: int = 200) -> None:
    await start(send, kind, len(body), status)
    await send({"type": "http.response.body", "body": body})


def proxy(upstream_url: str) -> Any:
    """Bare Starlette and aiohttp: reads the body, passes it on, passes the answer back, whole or as it comes."""
    import aiohttp
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4)) as session:
            app.state.session = session
            yield

    async def chat(request: Request) -> Response:
        body = await request.body()
        headers = {"content-type": "application/json"}
        answer = await request.app.state.session.post(upstream_url + CHAT, data=body, headers=headers)
        if answer.content_type != "text/event-stream":
            async with answer:
                return Response(await answer.read(), answer.status, media_type="application/json")

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def healthz(_: Request) -> Response:
        return Response(b"{}", media_type="application/json")

    routes = [Route(CHAT, chat, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    import uvicorn

    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=("upstream", "detector", "proxy"))
    a.add_argument("--port", type=int, required=True)
    a.add_argument("--upstream", default="", help="where the proxy's requests go")
    o = a.parse_args()
    app = {"upstream": upstream, "detector": detector}.get(o.what) or proxy(o.upstream)
    lifespan = "on" if o.what == "proxy" else "off"
    uvicorn.run(
        app, host="127.0.0.1", port=o.port, log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, ws="none", backlog=2048, timeout_keep_alive=75, lifespan=lifespan,
    )  # fmt: skip


if __name__ == "__main__":
    main()

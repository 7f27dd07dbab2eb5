"""A real gateway on loopback, and behind it a real HTTP server that plays a model and its judge by what it is asked.

The model writes what `answer` says. As judge it finds everything harmful that holds HARM, and cannot tell where it
reads UNSURE; its safe answer and its caption are fixed. So which answer came from where can be told from its text.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from eyelid import config
from eyelid.gateway.app import create
from eyelid.gateway.lifecycle import Gateway
from eyelid.gateway.record import Record
from eyelid.gateway.server import Server, bind

HARM, UNSURE, SAFE, CAPTION = "HARMHARM", "UNSUREUNSURE", "the safe answer", "a red square"
Json = dict[str, Any]
Reply = str | Json | web.StreamResponse


def said(body: Json) -> str:
    """All text of a request's messages."""
    texts = []
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        for part in content if isinstance(content, list) else ():
            texts.append(part.get("text", ""))
    return "\n".join(texts)


def message(content: str | None = None, **more: object) -> Json:
    return {"role": "assistant", "content": content, **more}


def completion(*messages: Json | str, reason: str = "stop", **more: object) -> Json:
    """A whole completion, one choice for each message."""
    choices = []
    for i, m in enumerate(messages):
        m = message(m) if isinstance(m, str) else m
        ended = "tool_calls" if m.get("tool_calls") else reason
        choices.append({"index": i, "message": m, "finish_reason": ended, "logprobs": None})
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "served", "choices": choices} | {
        "usage": usage,
        **more,
    }


def events(whole: Json, *, usage: bool) -> list[Json]:
    """A completion as a server streams it: role, texts word by word, calls, finish reason, usage."""
    head = {"id": whole["id"], "object": "chat.completion.chunk", "created": 1, "model": "served"}

    def chunk(index: int, delta: Json, reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}

    out = []
    for choice in whole["choices"]:
        at, said = choice["index"], choice["message"]
        out.append(chunk(at, {"role": "assistant", "content": ""}))
        for name in ("reasoning_content", "content", "refusal"):
            if isinstance(text := said.get(name), list):
                out.append(chunk(at, {name: text}))
            elif text:
                out.extend(chunk(at, {name: f"{word} "}) for word in text.split(" "))
        for i, call in enumerate(said.get("tool_calls") or ()):
            if "function" not in call:
                out.append(chunk(at, {"tool_calls": [{"index": i, **call}]}))
                continue
            out.append(
                chunk(at, {"tool_calls": [{"index": i, **call, "function": {**call["function"], "arguments": ""}}]})
            )
            for c in call["function"]["arguments"]:
                out.append(chunk(at, {"tool_calls": [{"index": i, "function": {"arguments": c}}]}))
        rest = {
            k: v for k, v in said.items() if k not in ("role", "content", "refusal", "tool_calls", "reasoning_content")
        }
        out.append(chunk(at, rest, choice["finish_reason"]))
    if usage:
        out.append({**head, "choices": [], "usage": whole["usage"]})
    return out


@dataclass
class Held:
    """A reply that is held back until `free` is set, 30 s at most; `begun` is set when it was asked for."""

    text: str = "fine"
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _: Json) -> Reply:
        self.begun.set()
        async with asyncio.timeout(30):
            await self.free.wait()
        return self.text


@dataclass
class Model:
    """`asked`: bodies of the client's own requests, as they arrived; `parts`: what every call was for, in order."""

    url: str = ""
    answer: Callable[[Json], Reply | Awaitable[Reply]] = lambda body: "a harmless answer"
    asked: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    judge: Callable[[Json], Reply | Awaitable[Reply]] | None = None
    request: web.Request | None = None
    pace: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        part = self._part(body)
        self.parts.append(part)
        self.bodies.append(body)
        self.request = request
        if part == "answer":
            self.asked.append(body)
            self.headers.append(request.headers)
        try:
            reply = await self._reply(part, body)
        except asyncio.CancelledError:
            self.gone.set()
            raise
        if isinstance(reply, web.StreamResponse):
            return reply
        whole = reply if isinstance(reply, dict) else completion(*[reply] * body.get("n", 1))
        if not body.get("stream"):
            return web.json_response(whole)
        wanted = (body.get("stream_options") or {}).get("include_usage", False)
        lines = [f"data: {json.dumps(e)}\n\n" for e in events(whole, usage=wanted)]
        if self.pace:
            return await self._slowly(request, [*lines, "data: [DONE]\n\n"])
        return web.Response(body="".join([*lines, "data: [DONE]\n\n"]), content_type="text/event-stream")

    async def _slowly(self, request: web.Request, lines: list[str]) -> web.StreamResponse:
        """At most `pace` events before every pause."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for start in range(0, len(lines), self.pace):
                await response.write("".join(lines[start : start + self.pace]).encode())
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response

    async def _reply(self, part: str, body: Json) -> Reply:
        if part == "judge":
            found = self.judge(body) if self.judge is not None else verdict(body)
        elif part == "answer":
            found = self.answer(body)
        else:
            found = {"caption": CAPTION, "safe_answer": SAFE}[part]
        return await found if isinstance(found, Awaitable) else found

    @staticmethod
    def _part(body: Json) -> str:
        last, first = said({"messages": body["messages"][-1:]}), said({"messages": body["messages"][:1]})
        if "Reply with one word" in last:
            return "judge"
        if "Describe" in last and "picture" in last:
            return "caption"
        return "safe_answer" if "who does no harm" in first else "answer"


def verdict(body: Json) -> Json:
    """What a judge's server answers: the first token with its alternatives."""
    text = said(body)
    harm = 0.95 if HARM in text else 0.03
    pair = [("yes", harm), ("no", 1 - harm)]
    if UNSURE in text:
        pair = [("maybe", 0.9), ("so", 0.1)]
    top = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in sorted(pair, key=lambda tp: -tp[1])]
    found = completion(top[0]["token"])
    found["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    return found


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


@asynccontextmanager
async def model(answer: Callable[[Json], Reply | Awaitable[Reply]] | str = "a harmless answer") -> AsyncIterator[Model]:
    found = Model()
    found.answer = (lambda body: answer) if isinstance(answer, str) else answer
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", found.handle)
    app.router.add_get("/v1/models", _models)
    server = TestServer(app)
    await server.start_server()
    try:
        found.url = str(server.make_url("/v1"))
        yield found
    finally:
        await server.close()


class Kept:
    """A sink that keeps records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = False

    def put(self, record: Record) -> None:
        self.records.append(record)

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Gate:
    """A running gateway."""

    url: str
    gateway: Gateway
    kept: Kept
    server: Server
    session: aiohttp.ClientSession
    posted: int = 0

    async def post(self, body: Json | bytes, path: str = "/v1/chat/completions", **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self.posted += 1
        async with self.session.post(self.url + path, data=data, headers=named) as r:
            return Answer(r.status, {k.lower(): v for k, v in r.headers.items()}, await r.read())

    async def get(self, path: str, **headers: str) -> Answer:
        async with self.session.get(self.url + path, headers=headers) as r:
            return Answer(r.status, {k.lower(): v for k, v in r.headers.items()}, await r.read())

    async def ask(self, text: str = "What is this?", **fields: Any) -> Answer:
        headers = fields.pop("headers", {})
        body = {"model": "ecso", "messages": [{"role": "user", "content": text}], **fields}
        return await self.post(body, **headers)

    async def recorded(self) -> Record:
        """The record of the last request: it is made when the answer is on its way, not before."""
        async with asyncio.timeout(5):
            while len(self.kept.records) < self.posted:  # noqa: ASYNC110 - a sink has nothing to wait on
                await asyncio.sleep(0.001)
        return self.kept.records[-1]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> Any:
        return self.json["choices"][0]["message"]["content"]

    @property
    def eyelid(self) -> Any:
        return self.json["eyelid"]["choices"][0]

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        lines = self.body.decode().split("\n\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        return [json.loads(d) for d in data if d != "[DONE]"]

    @property
    def streamed(self) -> str:
        return "".join(c["delta"].get("content") or "" for e in self.events for c in e["choices"])


ALIASES = """
  aliases:
    ecso: {model: "openai:URL#served", defense: ecso}
    plain: {model: "openai:URL#served", defense: none}
    window: {model: "openai:URL#served", defense: ecso, stream_mode: window}
    blind: {model: "openai:URL#served", defense: blind}
    refuse: {model: "openai:URL#served", defense: refuse}
"""


def settings(url: str, serve: str = "", top: str = "") -> config.Config:
    """The configuration of these tests; `serve` are further lines of that section, `top` of the whole."""
    own = any(line.startswith("aliases:") for line in serve.splitlines())
    text = "serve:\n" if own else f"serve:{ALIASES.replace('URL', url)}\n"
    text += "".join(f"  {line}\n" for line in serve.replace("URL", url).splitlines()) + top
    return config.parse(text, folder=Path("/"))


@asynccontextmanager
async def gate(conf: config.Config, reread: Callable[[], config.Config] | None = None) -> AsyncIterator[Gate]:
    """Serves `conf` on a free port of loopback, with uvicorn as `eyelid serve` does."""
    kept = Kept()
    app = create(conf, sinks=[kept])
    listening: socket.socket = bind("127.0.0.1", 0)
    up = asyncio.Event()
    server = Server(app, conf, reread=reread, ready=up.set)
    task = asyncio.create_task(server.serve([listening]))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        listening.close()
        task.result()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield Gate(url, app.state.gateway, kept, server, session)
    finally:
        server.should_exit = True
        await task
        listening.close()


@asynccontextmanager
async def both(
    answer: Callable[[Json], Reply | Awaitable[Reply]] | str = "a harmless answer", serve: str = "", top: str = ""
) -> AsyncIterator[tuple[Gate, Model]]:
    """A model, and a gateway in front of it."""
    async with model(answer) as m, gate(settings(m.url, serve, top)) as g:
        yield g, m

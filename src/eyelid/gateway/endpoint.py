"""Around every model endpoint: keys, room, body, a client that goes away, errors in OpenAI's shape, and the record."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import random
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from starlette.types import Receive, Scope, Send

from ..errors import EyelidError
from . import errors
from .errors import BadRequest, CrossSite, Problem, Unauthenticated
from .keys import ANYBODY, KeyInfo
from .lifecycle import Gateway, Generation
from .limits import ClientGone, read_body
from .record import ChoiceRecord, Outcome, Record
from .settings import ServeConfig
from .timers import Break, Timers

log = logging.getLogger("eyelid.gateway")
_JSON = b"application/json"
_TYPE = re.compile(r"application/([\w.+-]+\+)?json\b", re.IGNORECASE)
#: Seconds after which a request's client is watched for leaving: that takes a task, and most short answers none.
WATCH = 0.1


def _new_id() -> str:
    """An audit id: 44 bits of time in milliseconds, 52 random ones, in hex.

    In the order of time, or else each row of the audit would go to another page of its indices. It is a name and no
    secret: who may see a record is told by the key.
    """
    return f"eye-{time.time_ns() // 1_000_000:011x}{random.getrandbits(52):013x}"


@dataclass(slots=True)
class Call:
    """One request while it is answered, and what is to be told of it. Times are of `time.perf_counter`, in seconds."""

    endpoint: str
    headers: Mapping[str, str] = field(repr=False)  # by names in small letters
    id: str = field(default_factory=_new_id)
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    key: KeyInfo = ANYBODY
    alias: str | None = None
    upstream: str | None = None
    defense: str | None = None
    stream: bool = False
    stream_mode: str | None = None
    status: int = 200
    outcome: Outcome = "answered"
    error: str | None = None
    problem: Problem | None = None
    upstream_ms: float = 0.0
    guard_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    images: tuple[str, ...] = ()
    choices: tuple[ChoiceRecord, ...] = ()
    query: str | None = field(default=None, repr=False)
    #: Whether its head has left: then the status is what it was, whatever goes wrong later.
    begun: bool = False
    #: Headers that are known by now; those of a stream, when its first byte leaves.
    told: dict[str, str] = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        """Wall time since it came."""
        return (time.perf_counter() - self.began) * 1000

    @property
    def overhead_ms(self) -> float:
        """What this request took beyond its upstream's time."""
        return max(0.0, self.milliseconds - self.upstream_ms)

    def failed(self, error: BaseException) -> dict[str, object]:
        """Notes an error and returns the object that the client gets."""
        self.problem = problem = errors.describe(error)
        self.status = self.status if self.begun else problem.status
        self.outcome, self.error = problem.outcome, problem.code
        if problem.outcome == "upstream_error" and isinstance(error, EyelidError):
            log.warning("%s: %s: %s", self.id, problem.code, errors.ours(error))
        if problem.type == "internal_error":  # the texts of foreign errors may quote anything: only the place is logged
            place = "".join(traceback.format_tb(error.__traceback__)[-6:])
            log.error("%s: a defect, %s at\n%s", self.id, type(error).__name__, place)
        return errors.body(problem)

    def record(self) -> Record:
        """What sinks are told of it."""
        return Record(
            id=self.id,
            time=self.at,
            endpoint=self.endpoint,
            status=self.status,
            outcome=self.outcome,
            milliseconds=self.milliseconds,
            key=self.key.name,
            alias=self.alias,
            upstream=self.upstream,
            defense=self.defense,
            stream=self.stream,
            stream_mode=self.stream_mode,
            error=self.error,
            upstream_ms=self.upstream_ms,
            guard_ms=self.guard_ms,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            images=self.images,
            choices=self.choices,
            query=self.query,
            traceparent=self.headers.get("traceparent"),
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces. `Call.told` holds its headers once the first piece is there."""

    blocks: AsyncIterator[bytes]


#: Answers a body: an object for the client, or a stream. Headers go into `Call.told`.
Handler = Callable[[Call, bytes, Generation], Awaitable[object]]


class Endpoint:
    """An ASGI application for one POST route."""

    def __init__(self, gateway: Gateway, path: str, handler: Handler):
        self.gateway, self.path, self._handler = gateway, path, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self.path, _headers(scope))
        reply = _Reply(call, send)
        try:
            await self._answered(call, receive, reply)
        except ClientGone:
            call.status, call.outcome, call.error = 499, "disconnected", None
        except asyncio.CancelledError:  # shut down before the request was over
            if not reply.ended:
                call.status, call.outcome, call.error = 499, "disconnected", "shutting_down"
            raise
        except Exception as e:  # noqa: BLE001 - whatever broke is told in OpenAI's shape, and is nobody's answer
            body = call.failed(e)
            await reply.error(body)
        finally:
            self.gateway.put(call.record())

    async def _answered(self, call: Call, receive: Receive, reply: _Reply) -> None:
        gateway = self.gateway
        generation = gateway.current
        gateway.room.enter(generation.config.serve.limits.max_in_flight)
        generation.enter()
        try:
            key = generation.keys.identify(authorization(call.headers))
            if key is None:
                raise Unauthenticated("no valid key")
            call.key = key
            if generation.keys.open:
                if _from_elsewhere(call.headers, generation.config.serve):
                    hint = "keys let pages of other sites ask; without them only the gateway's own page may"
                    raise CrossSite("pages of other sites may not ask here", hint=hint)
                await self._admitted(call, receive, reply, generation)
            else:
                async with generation.keys.admit(key):
                    await self._admitted(call, receive, reply, generation)
        finally:
            generation.leave()
            gateway.room.leave()

    async def _admitted(self, call: Call, receive: Receive, reply: _Reply, generation: Generation) -> None:
        timers, limits = self.gateway.timers, generation.config.serve.limits
        kind = call.headers.get("content-type")
        if kind and kind != "application/json" and not _TYPE.match(kind):
            hint = "send content-type: application/json"
            raise BadRequest("the body is not said to be JSON", code="wrong_content_type", hint=hint)
        declared = call.headers.get("content-length")
        off = Break(timers.loop)
        body = await read_body(receive, declared, limits.max_body_bytes, limits.body_seconds, timers, off)
        watch = _Watch(receive, reply, timers, off)
        try:
            answer = await self._handler(call, body, generation)
            if isinstance(answer, Stream):
                await reply.stream(answer.blocks)
            else:
                await reply.json(answer)
        finally:
            watch.end()


class _Reply:
    """Sends one answer. Nothing is sent twice."""

    def __init__(self, call: Call, send: Send):
        self._call, self._send = call, send
        self.begun = self.ended = self.sent = False

    async def json(self, answer: object) -> None:
        await self._whole(self._call.status, _encoded(answer))

    async def error(self, body: dict[str, object]) -> None:
        if not self.begun:
            await self._whole(self._call.status, _encoded(body))
        elif not self.ended:  # a stream that broke where nobody expected it: end it, so that it is not taken for whole
            await self._piece(b"data: " + _encoded(body) + b"\n\n", last=True)

    async def stream(self, blocks: AsyncIterator[bytes]) -> None:
        """The head leaves with the first piece: what fails before is an HTTP status, not an event."""
        async with contextlib.aclosing(blocks) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if not self.begun and (problem := self._call.problem) is not None:
                    await self._whole(problem.status, _encoded(errors.body(problem)))
                    return
                if not self.begun:
                    await self._head(200, b"text/event-stream; charset=utf-8", None)
                await self._piece(piece)
            await self._piece(b"", last=True)

    async def _whole(self, status: int, body: bytes) -> None:
        await self._head(status, _JSON, len(body))
        await self._piece(body, last=True)

    async def _head(self, status: int, kind: bytes, length: int | None) -> None:
        call = self._call
        told = {**call.told, **call.problem.headers} if call.problem else call.told
        headers = [(b"content-type", kind), (b"x-eyelid-id", call.id.encode())]
        if length is None:
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        else:
            headers.append((b"content-length", str(length).encode()))
        headers += [(k.encode("latin-1"), v.encode("latin-1", "replace")) for k, v in told.items()]
        self.begun = call.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _piece(self, body: bytes, *, last: bool = False) -> None:
        self.ended = self.ended or last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        self.sent = self.sent or last


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, msgspec.MsgspecError, TypeError):  # half a character: only escapes can write that
        return json.dumps(value, allow_nan=False).encode("ascii")


def _headers(scope: Scope) -> dict[str, str]:
    """Of a name that stands twice the first, as Starlette's `Headers` have it, which search anew each time."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _from_elsewhere(headers: Mapping[str, str], serve: ServeConfig) -> bool:
    """Whether a page of another site asks, or one whose name was made to lead to this machine (DNS rebinding): browsers
    then say that it is the same site, but name it in `Host`, where programs of this machine name an address."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):  # the latter: another port or name beside ours
        return True
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()
    if name in ("", "127.0.0.1", "localhost") or name.endswith(".localhost") or not serve.loopback:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


class _Watch:
    """Breaks off the current task's work when the client goes away before it has its reply, but for work that is over
    within `WATCH` seconds: that goes on, and nobody hears of it."""

    __slots__ = ("_break", "_receive", "_reply", "_task", "_timer")

    def __init__(self, receive: Receive, reply: _Reply, timers: Timers, off: Break):
        self._break, self._receive, self._reply = off, receive, reply
        self._task: asyncio.Task[None] | None = None
        self._timer = timers.after(WATCH, self._begin)

    def end(self) -> None:
        """When the work is over, however it ended. Raises ClientGone where it was broken off."""
        self._timer.cancel()
        if self._task is not None:
            self._task.remove_done_callback(self._leave)
            self._task.cancel()
        if self._break.was():  # else the whole request may have been cancelled
            raise ClientGone

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(_gone(self._receive))
        self._task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._reply.sent:  # servers call a request that is over disconnected too
            task.exception()  # a connection that cannot be watched is gone
            self._break.now()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def authorization(headers: Mapping[str, str]) -> str | None:
    """OpenAI's header, or LiteLLM's for guardrails."""
    given = headers.get("authorization")
    if given is None and (key := headers.get("x-api-key")) is not None:
        return f"Bearer {key}"
    return given

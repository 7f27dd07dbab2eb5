"""Around every model endpoint: keys, room, body, a client that goes away, errors in OpenAI's shape, and the record."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from ..errors import EyelidError
from . import errors
from .errors import BadRequest, CrossSite, Problem, Unauthenticated
from .keys import KeyInfo
from .lifecycle import Gateway, Generation
from .limits import ClientGone, read_body
from .record import ChoiceRecord, Outcome, Record
from .settings import ServeConfig

T = TypeVar("T")
log = logging.getLogger("eyelid.gateway")
_JSON = b"application/json"
_TYPE = re.compile(r"application/([\w.+-]+\+)?json\b", re.IGNORECASE)


@dataclass(slots=True)
class Call:
    """One request while it is answered, and what is to be told of it. Times are of `time.perf_counter`, in seconds."""

    endpoint: str
    headers: Mapping[str, str] = field(repr=False)  # by names in small letters
    id: str = field(default_factory=lambda: f"eye-{secrets.token_hex(12)}")
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    key: KeyInfo = field(default_factory=KeyInfo)
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
        generation = self.gateway.current
        limits = generation.config.serve.limits
        with self.gateway.room.place(limits.max_in_flight), generation.use():
            key = generation.keys.identify(authorization(call.headers))
            if key is None:
                raise Unauthenticated("no valid key")
            call.key = key
            if generation.keys.open and _from_elsewhere(call.headers, generation.config.serve):
                hint = "keys let pages of other sites ask; without them only the gateway's own page may"
                raise CrossSite("pages of other sites may not ask here", hint=hint)
            async with generation.keys.admit(key):
                if (kind := call.headers.get("content-type")) and not _TYPE.match(kind):
                    raise BadRequest("the body must be JSON", code="wrong_content_type", hint="application/json")
                declared = call.headers.get("content-length")
                body = await read_body(receive, declared, limits.max_body_bytes, limits.body_seconds)
                await _unless_gone(self._handled(call, body, generation, reply), receive, reply)

    async def _handled(self, call: Call, body: bytes, generation: Generation, reply: _Reply) -> None:
        answer = await self._handler(call, body, generation)
        if isinstance(answer, Stream):
            await reply.stream(answer.blocks)
        else:
            await reply.json(answer)


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
        told = {"x-eyelid-id": call.id, **call.told, **(call.problem.headers if call.problem else {})}
        headers = [(b"content-type", kind)]
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
    if headers.get("sec-fetch-site") == "cross-site":
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


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive, reply: _Reply) -> T:
    """The result of `work`, which is cancelled when the client goes away before it has its reply. Raises ClientGone
    then."""
    task, gone = asyncio.current_task(), False
    assert task is not None

    def leave(watch: asyncio.Task[None]) -> None:
        nonlocal gone
        if not watch.cancelled() and not reply.sent:  # servers call a request that is over disconnected too
            watch.exception()  # a connection that cannot be watched is gone
            gone = True
            task.cancel()

    watch = asyncio.ensure_future(_gone(receive))
    watch.add_done_callback(leave)
    try:
        return await work
    finally:
        watch.remove_done_callback(leave)
        watch.cancel()
        if gone and not task.uncancel():  # else the whole request was cancelled as well
            raise ClientGone


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def authorization(headers: Mapping[str, str]) -> str | None:
    """OpenAI's header, or LiteLLM's for guardrails."""
    given = headers.get("authorization")
    if given is None and (key := headers.get("x-api-key")) is not None:
        return f"Bearer {key}"
    return given

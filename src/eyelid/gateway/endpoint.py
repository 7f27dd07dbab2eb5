"""Around every model endpoint: keys, room, body, a client that goes away, errors in OpenAI's shape, and the record."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from .call import Call
from .errors import BadRequest, CrossSite, Unauthenticated
from .lifecycle import Gateway, Generation
from .limits import ClientGone, read_body
from .reply import Reply
from .settings import ServeConfig
from .timers import Break, Timers

_TYPE = re.compile(r"application/([\w.+-]+\+)?json\b", re.IGNORECASE)
#: Seconds after which a request's client is watched for leaving: that takes a task, and most short answers none.
WATCH = 0.1


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
        reply = Reply(call, send)
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

    async def _answered(self, call: Call, receive: Receive, reply: Reply) -> None:
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

    async def _admitted(self, call: Call, receive: Receive, reply: Reply, generation: Generation) -> None:
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

    def __init__(self, receive: Receive, reply: Reply, timers: Timers, off: Break):
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

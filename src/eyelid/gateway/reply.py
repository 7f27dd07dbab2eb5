"""What is sent to the client of one call: a whole answer, an error, or a stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import msgspec
from starlette.types import Send

from . import errors
from .call import Call

_JSON = b"application/json"


class Reply:
    """Sends one answer. Nothing is sent twice."""

    def __init__(self, call: Call, send: Send):
        self._call, self._send = call, send
        self.begun = self.ended = self.sent = False

    async def json(self, answer: object) -> None:
        """A whole answer, with the call's status and headers."""
        await self._whole(self._call.status, _encoded(answer))

    async def error(self, body: dict[str, object]) -> None:
        """An error in place of what has not been sent: as a whole answer, or as a stream's last event."""
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

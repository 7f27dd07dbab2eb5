"""Server-sent events on both sides: an upstream's bytes -> JSON objects, and JSON objects -> bytes for a client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec

from ..backends.sse import SSEParser
from ..errors import BackendProtocol

#: A comment: clients skip it, proxies see that the connection lives.
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
#: The largest single event that is read from an upstream, in bytes.
MAX_EVENT = 8 * 1024 * 1024


def event(obj: object) -> bytes:
    """One event with `obj` as its data, as JSON on one line."""
    try:
        return b"data: " + msgspec.json.encode(obj) + b"\n\n"
    except (UnicodeEncodeError, msgspec.MsgspecError, TypeError):  # half a character: only escapes can write that
        return b"data: " + json.dumps(obj, allow_nan=False).encode("ascii") + b"\n\n"


async def objects(pieces: AsyncIterator[bytes], *, max_event: int = MAX_EVENT) -> AsyncIterator[dict[str, object]]:
    """The JSON objects of an event stream, up to `[DONE]` or its end; `pieces` may be cut anywhere.

    An event that the stream broke off in is left out: whoever collects the answer sees that its end is missing.
    Raises BackendProtocol for data that is no JSON object, and for an event of more than `max_event` bytes.
    """
    parser = SSEParser(max_event)
    async for piece in pieces:
        for data in parser.feed(piece):
            if (text := data.strip()) == "[DONE]":
                return
            if text:
                yield _object(text)
    for data in parser.close():
        if (text := data.strip()) == "[DONE]":
            return
        try:
            last = _object(text)
        except BackendProtocol:  # cut in the middle
            return
        yield last


def _object(text: str) -> dict[str, object]:
    try:
        obj = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        obj = _lenient(text)
    if not isinstance(obj, dict):
        raise BackendProtocol(
            "an event of the stream is not a JSON object", hint="is this an OpenAI-compatible server?"
        )
    return obj


def _lenient(text: str) -> object:
    """As Python's own reader: it takes halves of characters in escapes, which some servers send one per event."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BackendProtocol(
            "an event of the stream is not JSON", hint="is this an OpenAI-compatible server?"
        ) from None

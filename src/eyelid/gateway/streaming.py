"""Streams that are guarded whole (`buffer` mode): nothing of the answer leaves before all of it was judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import BackendUnavailable
from .assembly import TEXTS, Assembly
from .pieces import Json
from .sse import DONE, PING, event

Finish = Callable[[Json], Awaitable[Json]]
ErrorPayload = Callable[[BaseException], Mapping[str, object]]

#: Characters of one delta, and how many deltas a text is cut into before they grow. The answer is there as a whole:
#: small pieces would only cost the client time, and those of megabytes would hold up everybody's.
PIECE, PIECES = 256, 512
_BLOCK = 32 * 1024
_TOP = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"})
_OF_CHOICE = frozenset({"index", "message", "finish_reason", "logprobs"})


async def buffered(
    events: AsyncIterator[Json],
    finish: Finish,
    *,
    ping_seconds: float,
    include_usage: bool,
    error_payload: ErrorPayload,
    aside: Aside | None = None,
) -> AsyncIterator[bytes]:
    """The bytes of a guarded stream: pings while the answer is written and judged, then the answer as chunks.

    events: the upstream's `chat.completion.chunk` objects, up to and without `[DONE]`.
    finish: is given the whole `chat.completion` and returns the one to deliver; fields of its own at the top level
        (`eyelid`, `moderation`) go onto the last chunk of the choices, and those of a choice onto its last chunk.
    error_payload: what stands for an error of `events` or `finish`: `{"error": {...}}`. Such a stream has no `[DONE]`.
    aside: blocks that leave as soon as they are put there, before the answer.

    Closing this iterator, or cancelling who reads it, closes `events` at once.
    """
    work = asyncio.create_task(_collect(events, finish))
    try:
        async for block in pings(work, ping_seconds, aside):
            yield block
        try:
            blocks = [*joined((*chunks(result(work), include_usage=include_usage), DONE))]
        except Exception as e:  # noqa: BLE001 - whatever broke, the client gets an error and no answer
            blocks = [event(error_payload(e))]
        for block in blocks:
            yield block
    finally:
        await stop(work)


async def _collect(events: AsyncIterator[Json], finish: Finish) -> Json:
    assembly = Assembly()
    try:
        async for chunk in events:
            assembly.add(chunk)
    finally:
        await close(events)
    return await finish(assembly.completion())


class Aside:
    """Blocks that leave while an answer is still worked on."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self.wake = asyncio.Event()

    def put(self, block: bytes) -> None:
        """A block, to leave as soon as it may."""
        self._blocks.append(block)
        self.wake.set()

    def take(self) -> list[bytes]:
        """The blocks that wait, in their order."""
        self.wake.clear()
        found, self._blocks = self._blocks, []
        return found


async def pings(work: asyncio.Task[Any], seconds: float, aside: Aside | None = None) -> AsyncIterator[bytes]:
    """A ping whenever `work` has taken `seconds` more, and what is put `aside`; ends with the work. Raises nothing of
    what it raised."""
    if aside is None:
        while not (await asyncio.wait({work}, timeout=seconds))[0]:
            yield PING
        return
    work.add_done_callback(lambda _: aside.wake.set())
    while not work.done():
        try:
            async with asyncio.timeout(seconds):
                await aside.wake.wait()
        except TimeoutError:
            yield PING
        for block in aside.take():
            yield block


def result(work: asyncio.Task[Json]) -> Json:
    """What the work came to. Raises what it raised, and BackendUnavailable where it was given up."""
    if work.cancelled():
        raise BackendUnavailable("the request was given up", hint="try again")
    return work.result()


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what still runs and wait for it; errors that nobody asked for any more are dropped."""
    for task in tasks:
        if not task.done():
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def close(events: AsyncIterator[Any]) -> None:
    """Close an iterator that can be closed."""
    if (aclose := getattr(events, "aclose", None)) is not None:
        await aclose()


def joined(parts: Sequence[bytes]) -> Iterator[bytes]:
    """The parts in blocks of a moderate size: each block that is sent costs a write."""
    block: list[bytes] = []
    size = 0
    for part in parts:
        block.append(part)
        size += len(part)
        if size >= _BLOCK:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)


def chunks(completion: Json, *, include_usage: bool) -> Iterator[bytes]:
    """A whole completion as the events of a stream, without `[DONE]`."""
    head = chunk_head(completion, include_usage)
    choices: list[Any] = list(completion.get("choices") or [])  # type: ignore[call-overload]
    for place, choice in enumerate(choices):
        index, message = choice["index"], choice["message"]
        first: Json = {"role": "assistant", "content": "" if message.get("content") is not None else None}
        yield chunk(head, index, first)
        yield from deltas(head, index, message, choice.get("logprobs"))
        yield last(head, choice, extensions(completion) if place == len(choices) - 1 else {})
    if include_usage and completion.get("usage") is not None:
        yield event({**head, "choices": [], "usage": completion["usage"]})


def chunk_head(completion: Mapping[str, object], include_usage: bool) -> Json:
    """What every chunk of this completion's stream has; `include_usage` as the client asked."""
    head = {name: completion[name] for name in completion if name in _TOP - {"choices", "usage"}}
    head["object"] = "chat.completion.chunk"
    return {**head, "usage": None} if include_usage else head


def chunk(head: Json, index: int, delta: Json, logprobs: object = None) -> bytes:
    """A piece of a choice as an event."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
    return event({**head, "choices": [choice]})


def extensions(completion: Mapping[str, object]) -> Json:
    """The completion's fields that are ours."""
    return {name: value for name, value in completion.items() if name not in _TOP}


def last(head: Json, choice: Mapping[str, object], extra: Json) -> bytes:
    """The chunk that ends a choice: its finish reason, and what was said about it."""
    own = {name: value for name, value in choice.items() if name not in _OF_CHOICE}
    end = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice.get("finish_reason"), **own}
    return event({**head, "choices": [end], **extra})


def deltas(head: Json, index: int, message: Mapping[str, Any], logprobs: Any = None) -> Iterator[bytes]:
    """The texts and calls of a message, reasoning first; log-probabilities go with the content that they are of."""
    for name in (*TEXTS[2:], "content", "refusal"):
        text = message.get(name) or ""
        tokens = logprobs.get(name) if isinstance(logprobs, dict) else None
        for piece, entries in _pieces(text, tokens):
            yield chunk(head, index, {name: piece}, {name: entries} if entries else None)
    for place, call in enumerate(message.get("tool_calls") or ()):
        yield from call_deltas(head, index, place, call)
    if (legacy := message.get("function_call")) is not None:
        yield from legacy_deltas(head, index, legacy)


def call_deltas(
    head: Json, index: int, place: int, call: Mapping[str, Any], sent: int | None = None
) -> Iterator[bytes]:
    """A call's id and name, then its arguments; `sent`: the former have left, and so many characters of the latter."""
    kind = call.get("type", "function")
    inner = "arguments" if kind == "function" else "input"
    if sent is None:
        named = {"index": place, "id": call["id"], "type": kind, kind: {"name": call[kind]["name"], inner: ""}}
        yield chunk(head, index, {"tool_calls": [named]})
    for piece, _ in _pieces(call[kind][inner][sent or 0 :]):
        yield chunk(head, index, {"tool_calls": [{"index": place, kind: {inner: piece}}]})


def legacy_deltas(head: Json, index: int, call: Mapping[str, Any], sent: int | None = None) -> Iterator[bytes]:
    """As `call_deltas`, for `function_call`."""
    if sent is None:
        yield chunk(head, index, {"function_call": {"name": call["name"], "arguments": ""}})
    for piece, _ in _pieces(call["arguments"][sent or 0 :]):
        yield chunk(head, index, {"function_call": {"arguments": piece}})


def _pieces(text: str, tokens: list[Json] | None = None) -> Iterator[tuple[str, list[Json] | None]]:
    """The text in pieces, cut between `tokens` where those spell it; else the tokens go with the first piece."""
    size = max(PIECE, len(text) // PIECES)
    if tokens and "".join(str(t.get("token")) for t in tokens) == text:
        piece, entries = "", list[Json]()
        for token in tokens:
            piece += str(token["token"])
            entries.append(token)
            if len(piece) >= size:
                yield piece, entries
                piece, entries = "", []
        if entries:
            yield piece, entries
        return
    for start in range(0, len(text), size):
        yield text[start : start + size], tokens if start == 0 else None

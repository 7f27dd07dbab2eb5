"""What the tests of streams share: a reader of the bytes that left, and streams cut in every way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyelid.backends.openai_json import response_from_json
from eyelid.errors import DetectorError
from eyelid.types import Label, Verdict

MARK = "XMARKX"
TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
Json = dict[str, Any]


def whole(units: Sequence[str]) -> str:
    """Pieces as one text; halves of characters that meet become one, others U+FFFD."""
    return "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def written(message: Mapping[str, Any]) -> str:
    """What a detector is shown of a whole answer that is not streamed."""
    return response_from_json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).written


def error_payload(error: BaseException) -> Json:
    return {"error": {"message": type(error).__name__, "type": "server_error", "param": None, "code": None}}


@dataclass
class Said:
    """One choice as a client puts it together."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: dict[int, Json] = field(default_factory=dict)
    function_call: Json | None = None
    finish: str | None = None
    role: str | None = None
    tokens: list[str] = field(default_factory=list)

    def add(self, choice: Json) -> None:
        assert self.finish is None, "a delta after the finish reason"
        delta = choice["delta"]
        if "role" in delta:
            assert self.role is None
            assert not self.texts
            self.role = delta["role"]
        for name in TEXTS:
            if delta.get(name):
                self.texts[name] = self.texts.get(name, "") + delta[name]
        for call in delta.get("tool_calls", ()):
            kind = "custom" if "custom" in call else "function"
            inner = call[kind]
            if "id" in call:
                assert call["index"] not in self.calls
                self.calls[call["index"]] = {"id": call["id"], "name": inner["name"], "arguments": ""}
            self.calls[call["index"]]["arguments"] += inner.get("arguments", inner.get("input", ""))
        if "function_call" in delta:
            self.function_call = self.function_call or {"name": "", "arguments": ""}
            for name in ("name", "arguments"):
                self.function_call[name] += delta["function_call"].get(name, "")
        if choice.get("logprobs"):
            self.tokens += [t["token"] for t in choice["logprobs"].get("content") or ()]
        self.finish = choice["finish_reason"]


@dataclass
class Client:
    """Everything that a client was sent, in order."""

    choices: dict[int, Said] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    raw: bytes = b""
    pings: int = 0
    done: bool = False
    error: Json | None = None
    usage: Json | None = None
    extra: Json = field(default_factory=dict)

    def feed(self, block: bytes) -> None:
        self.raw += block
        assert block.endswith(b"\n\n"), "a block that ends within an event"
        for part in block.removesuffix(b"\n\n").split(b"\n\n"):
            assert not self.done, "something came after [DONE]"
            if part == b": ping":
                self.pings += 1
            elif part == b"data: [DONE]":
                self.done = True
            else:
                assert self.error is None
                self._event(json.loads(part.removeprefix(b"data: ")))

    def _event(self, event: Json) -> None:
        self.events.append(event)
        if "error" in event:
            self.error = event["error"]
            return
        assert event["object"] == "chat.completion.chunk"
        if not event["choices"]:
            self.usage = event["usage"]
        for choice in event["choices"]:
            self.choices.setdefault(choice["index"], Said()).add(choice)
        self.extra |= {k: event[k] for k in ("eyelid", "moderation") if k in event}


async def read(blocks: AsyncIterator[bytes], watch: Callable[[Client], None] = lambda _: None) -> Client:
    client = Client()
    async for block in blocks:
        client.feed(block)
        watch(client)
    return client


def chunk(index: int = 0, delta: Json | None = None, finish: str | None = None, **more: object) -> Json:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]}


def content(*pieces: str, finish: str | None = "stop", index: int = 0) -> list[Json]:
    told = [chunk(index, {"content": piece}) for piece in pieces]
    return [*told, chunk(index, finish=finish)] if finish else told


async def stream(events: Sequence[Json | Exception], pauses: Sequence[int] = ()) -> AsyncIterator[Json]:
    """The events, each after so many turns of the loop."""
    for place, item in enumerate(events):
        for _ in range(pauses[place % len(pauses)] if pauses else 1):
            await asyncio.sleep(0)
        if isinstance(item, Exception):
            raise item
        yield item


def verdict(text: str) -> Verdict:
    return Verdict.of(1.0 if MARK in text else 0.0, 0.5, "marks")


@dataclass
class Marks:
    """A detector that finds the mark harmful wherever it stands; remembers what it found harmless.

    moods: what becomes of its calls, in turn: "tells", "unknown", or "breaks".
    """

    pauses: Sequence[int] = (1,)
    moods: Sequence[str] = ("tells",)
    cleared: dict[int, list[str]] = field(default_factory=dict)
    asked: list[tuple[int, str]] = field(default_factory=list)
    under_way: set[int] = field(default_factory=set)

    async def clear(self, index: int, text: str) -> Verdict:
        assert index not in self.under_way, "two calls at once for one choice"
        self.under_way.add(index)
        self.asked.append((index, text))
        try:
            for _ in range(self.pauses[len(self.asked) % len(self.pauses)]):
                await asyncio.sleep(0)
            mood = self.moods[len(self.asked) % len(self.moods)]
            if mood == "breaks":
                raise DetectorError("broke")
            found = verdict(text) if mood == "tells" else Verdict.unknown("marks", "cannot say")
            if found.label is Label.HARMLESS:
                self.cleared.setdefault(index, []).append(text)
            return found
        finally:
            self.under_way.discard(index)


def guarded(completion: Json) -> Json:
    """What a guard that replaces marked answers would deliver."""
    choices = []
    for choice in completion["choices"]:
        flagged = verdict(written(choice["message"])).label is Label.HARMFUL
        if flagged:
            choice = {**choice, "message": {"role": "assistant", "content": "Withheld."}, "logprobs": None}
            choice["finish_reason"] = "content_filter"
        choices.append(choice)
    return {**completion, "choices": choices, "eyelid": {"choices": len(choices)}}

"""What of one choice may leave while it is written, and what has left: the windows of `window` mode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import DetectorError
from ..types import Label, Verdict
from .assembly import REASONING, TEXTS, Choice
from .pieces import Call, Json
from .streaming import call_deltas, deltas, legacy_deltas

#: `clear(choice, written)`: a verdict on all that this choice has written so far (composed as `Response.written`).
Clear = Callable[[int, str], Awaitable[Verdict]]
#: A channel: the name of a text field, a call's place, or "function_call".
Channel = str | int


@dataclass(frozen=True, slots=True)
class Released:
    """What had left of one choice when its end was reached, or it was stopped.

    stopped: the harmful verdict that stopped it (None: it was written to its end). checks: how often `clear` was asked.
    failure: the type of the last error of `clear`, if any. texts: what left, by field; calls: as far as they left.
    """

    stopped: Verdict | None = None
    checks: int = 0
    failure: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    calls: tuple[Json, ...] = field(default=(), repr=False)
    function_call: Json | None = field(default=None, repr=False)

    @property
    def characters(self) -> int:
        """How many, of all channels, with the calls' names."""
        inner = [_inner(c) for c in self.calls] + ([self.function_call] if self.function_call else [])
        return sum(map(len, self.texts.values())) + sum(len(str(v)) for call in inner for v in call.values())

    def message(self) -> Json:
        """What left, as a message."""
        message: Json = {"role": "assistant", "content": None, **self.texts}
        if self.calls:
            message["tool_calls"] = list(self.calls)
        if self.function_call is not None:
            message["function_call"] = self.function_call
        return message

    def continued_by(self, message: Mapping[str, Any]) -> bool:
        """Whether `message` begins with what left, so that the rest of it can follow."""
        calls, legacy = message.get("tool_calls") or [], message.get("function_call")
        if self.function_call is not None and (legacy is None or not _begins(legacy, self.function_call)):
            return False
        return (
            all(str(message.get(name) or "").startswith(text) for name, text in self.texts.items())
            and len(calls) >= len(self.calls)
            and all(_same_call(call, left) for call, left in zip(calls, self.calls, strict=False))
        )


class Window:
    """One choice: what may leave, and what has left. Lengths are in characters; a call's count its name too."""

    def __init__(self, choice: Choice, look_ahead: int):
        self.choice, self.look_ahead = choice, look_ahead
        self.begun = False  # its role has left
        self.stopped: Verdict | None = None
        self.task: asyncio.Task[Verdict] | None = None
        self._asked = 0  # characters of the whole choice, when `clear` was last asked
        self._checks = 0
        self._failure: str | None = None
        self._may: dict[Channel, int] = {}  # what the call of `clear` that is under way would clear
        self._cleared: dict[Channel, int] = {}
        self._sent: dict[Channel, int] = {}
        self._tokens = {name: Tokens() for name in ("content", "refusal")}

    def worth_asking(self, step: int) -> bool:
        """Whether there are `step` characters more than when it was last asked, and some could be cleared."""
        if self.task is not None or self.choice.length - self._asked < step:
            return False
        return any(length > self._cleared.get(channel, 0) for channel, length in self._would_clear().items())

    def ask(self, clear: Clear, wake: asyncio.Event) -> None:
        """Begin to check what is there now; `wake` is set when the verdict has come."""
        self._asked, self._may = self.choice.length, self._would_clear()
        self._checks += 1
        self.task = asyncio.ensure_future(_asked(clear, self.choice.index, self.choice.written))
        self.task.add_done_callback(lambda _: wake.set())

    def verdict(self) -> bool:
        """Take in the verdict, if one has come; whether it cleared anything."""
        if self.task is None or not self.task.done():
            return False
        task, self.task = self.task, None
        error = DetectorError("the check was given up") if task.cancelled() else task.exception()
        if error is not None:
            if not isinstance(error, Exception):
                raise error
            self._failure = type(error).__name__
            return False
        verdict = task.result()
        if verdict.label is Label.HARMFUL:
            self.stopped = verdict
        if verdict.label is not Label.HARMLESS:
            return False
        for channel, length in self._may.items():
            self._cleared[channel] = max(length, self._cleared.get(channel, 0))
        return True

    def release(self, head: Json) -> Iterator[bytes]:
        """The stream's blocks of what was cleared and has not left."""
        index = self.choice.index
        for name, text in self.choice.texts.items():
            sent, cleared = self._sent.get(name, 0), self._cleared.get(name, 0)
            if cleared > sent:
                self._sent[name] = cleared
                tokens = self._tokens.get(name, Tokens()).upto(cleared, str(text), self.choice.logprobs.get(name))
                yield from deltas(head, index, {name: str(text)[sent:cleared]}, {name: tokens})
        for place, call in enumerate(self.choice.calls):
            if not self._may_leave(place, call):
                break  # calls begin to leave in their order
            start = self._to_leave(place, call)
            yield from call_deltas(head, index, place, call.to_json(self._sent[place]), start)
        legacy = self.choice.function_call
        if legacy is not None and self._may_leave("function_call", legacy):
            start = self._to_leave("function_call", legacy)
            yield from legacy_deltas(head, index, legacy.inner(self._sent["function_call"]), start)

    def _may_leave(self, channel: Channel, call: Call) -> bool:
        return channel in self._cleared and self._cleared[channel] >= call.name.length

    def _to_leave(self, channel: Channel, call: Call) -> int | None:
        """Marks what was cleared as sent; returns how many characters of the arguments had left, None if no name."""
        start = self._sent.get(channel)
        call.told, self._sent[channel] = True, self._cleared[channel] - call.name.length
        return start

    def rest(self, head: Json, choice: Mapping[str, Any]) -> Iterator[bytes]:
        """All that `choice["message"]` has beyond what left."""
        index, message, logprobs = self.choice.index, choice["message"], choice.get("logprobs")
        texts = {name: (message.get(name) or "")[self._sent.get(name, 0) :] for name in TEXTS}
        left = {name: t.rest(logprobs.get(name)) for name, t in self._tokens.items()} if logprobs else None
        yield from deltas(head, index, texts, left)
        for place, call in enumerate(message.get("tool_calls") or ()):
            yield from call_deltas(head, index, place, call, self._sent.get(place))
        if (legacy := message.get("function_call")) is not None:
            yield from legacy_deltas(head, index, legacy, self._sent.get("function_call"))

    def released(self) -> Released:
        """What has left, and what the checks came to."""
        texts = {n: str(t)[: self._sent[n]] for n, t in self.choice.texts.items() if n in self._sent}
        calls = tuple(c.to_json(self._sent[place]) for place, c in enumerate(self.choice.calls) if c.told)
        legacy = self.choice.function_call
        function_call = legacy.inner(self._sent["function_call"]) if legacy is not None and legacy.told else None
        return Released(self.stopped, self._checks, self._failure, texts, calls, function_call)

    def _would_clear(self) -> dict[Channel, int]:
        """How much of each channel may leave if all that is there now is found harmless."""
        may: dict[Channel, int] = {}
        for name, text in self.choice.texts.items():
            followed = self.choice.followed(name) if name in REASONING else 0
            may[name] = text.length - max(self.look_ahead - followed, 0)
        for channel, call in self._calls():
            if call.arguments.length:  # before, the name may go on
                may[channel] = call.length - self.look_ahead
        return {channel: length for channel, length in may.items() if length > 0}

    def _calls(self) -> Iterator[tuple[Channel, Call]]:
        yield from enumerate(self.choice.calls)
        if self.choice.function_call is not None:
            yield "function_call", self.choice.function_call


class Tokens:
    """The log-probabilities of a text, which spell it out: each leaves with the text that it is of, or not at all."""

    def __init__(self) -> None:
        self._next = self._place = 0
        self._broken = False  # the tokens do not spell the text; none is sent any more

    def upto(self, end: int, text: str, entries: list[Json] | None) -> list[Json]:
        """Those of the tokens within the first `end` characters that have not left; without alternatives."""
        found: list[Json] = []
        for entry in (entries or [])[self._next :]:
            token = entry.get("token")
            after = self._place + len(token) if isinstance(token, str) else -1
            if self._broken or not isinstance(token, str) or text[self._place : after] != token:
                self._broken = True
                break
            if after > end:
                break
            found.append(_bare(entry, token))
            self._next, self._place = self._next + 1, after
        return found

    def rest(self, entries: list[Json] | None) -> list[Json]:
        """Those that have not left, of the log-probabilities that were judged with the whole answer."""
        return [] if self._broken else list(entries or [])[self._next :]


def _bare(entry: Json, token: str) -> Json:
    logprob = entry.get("logprob")
    known: Json = {"token": token, "logprob": logprob if isinstance(logprob, int | float) else None}
    return {**known, "bytes": list(token.encode()) if entry.get("bytes") is not None else None, "top_logprobs": []}


async def _asked(clear: Clear, index: int, written: str) -> Verdict:
    verdict = await clear(index, written)
    if not isinstance(verdict, Verdict):
        raise TypeError("the detector returned no Verdict")
    return verdict


def _inner(call: Mapping[str, Any]) -> Json:
    found: Json = call[call.get("type", "function")]
    return found


def _same_call(call: Mapping[str, Any], left: Json) -> bool:
    same = all(call.get(name) == left[name] for name in ("id", "type"))
    return same and _begins(_inner(call), _inner(left))


def _begins(inner: Mapping[str, Any], left: Json) -> bool:
    """Whether a call has the name that left, and arguments that begin with those that left."""
    return all(
        inner.get(k) == v if k == "name" else str(inner.get(k) or "").startswith(str(v)) for k, v in left.items()
    )

"""`POST /v1/chat/completions`: a body in, an upstream's answer, each choice of it guarded, out."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ..guard import Guard
from ..protocols import Detector, Exchange, StepLog, Watch
from ..remedies.refuse import Refuse
from ..types import Action, Response, Step, Trace, Verdict
from . import completion as completions
from . import conversation, relay, unguarded, wire
from .account import Account, Judged, answer_id
from .aliases import Alias
from .call import Call
from .completion import Json, Read
from .endpoint import Stream
from .errors import Forbidden, GatewayError, GuardFailed
from .images import Loaded
from .lifecycle import Generation
from .release import Released
from .sse import event
from .streaming import Aside, buffered
from .together import Together
from .upstream import Answered, Ask
from .window import windowed

PATH = "/v1/chat/completions"
_NO_IMAGES = Loaded()
_NO_CHOICE = wire.Own()


async def chat(call: Call, body: bytes, generation: Generation) -> object:
    """Raises what `errors.describe` knows."""
    serve = generation.config.serve
    try:
        asked = wire.read(body, serve.limits)
    except GatewayError:
        if (name := wire.model_of(body)) in generation.aliases:  # so that the operator sees whom it was meant for
            call.alias = name
        raise
    own = asked.options.eyelid or _NO_CHOICE
    alias = generation.alias(asked.model, call.key)
    call.alias, call.upstream, call.stream = alias.name, alias.upstream_name, asked.stream
    guard = alias.guard(call.headers.get("x-eyelid-defense") or own.defense)
    call.defense = guard.defense
    call.told["x-eyelid-defense"] = guard.defense
    if own.trace and not serve.allow_trace:
        hint = "the operator can allow it: allow_trace"
        raise Forbidden("traces are switched off here", code="trace_not_allowed", param="eyelid.trace", hint=hint)
    loaded = _NO_IMAGES
    if images := [*asked.images()]:
        loaded = await generation.reader(alias).load(images)
        call.images = loaded.hashes
    extra = alias.upstream.keeps_extra
    ask = Ask(asked, loaded.urls, lambda: conversation.request(asked, loaded.parts, serve.limits, extra=extra))
    if serve.audit.text:
        call.query = ask.request.query
    answering = Answering(call, alias, guard, ask, trace=own.trace, texts=serve.audit.text)
    if own.together is not None:
        answering.join(generation.together, own.together)
    if not asked.stream:
        return await answering.whole()
    settings = serve.stream
    call.stream_mode = answering.mode
    return Stream(answering.stream(settings.ping_seconds, settings.look_ahead))


class Answering:
    """One chat on its way through upstream and guard. `trace`: tell the steps; `texts`: the audit keeps texts."""

    def __init__(self, call: Call, alias: Alias, guard: Guard, ask: Ask, *, trace: bool, texts: bool):
        self._call, self._alias, self._guard, self._ask = call, alias, guard, ask
        self._trace, self._texts = trace, texts
        self._account = Account(call, alias.name, guarded=guard.detector is not None, trace=trace, texts=texts)
        self._upstream = alias.upstream
        detector = guard.detector
        self._guarded = detector is not None
        #: A guard that asks for no answer first: the model must not see the request as it is.
        self._unasked = detector is not None and not detector.needs_answer
        #: Where the steps of a stream are told while they happen, if they are.
        self._aside: Aside | None = None

    def join(self, together: Together, word: str) -> None:
        """Share the model's answer with the requests that came with the same word."""
        self._upstream = together.upstream(self._upstream, self._ask, word, self._call.key.name)

    @property
    def mode(self) -> str:
        """How a stream is guarded; `none` where nobody guards it."""
        if not self._guarded:
            return "none"
        return "buffer" if self._unasked else self._alias.stream_mode

    async def whole(self) -> Json:
        """The completion. Raises what the model's server raises."""
        if self._unasked:
            return self._account.told([await self._fresh(i) for i in range(self._ask.chat.choices)], {})
        start = time.perf_counter()
        try:
            found = await self._upstream.complete(self._ask)
        finally:
            self._call.upstream_ms += _since(start)
        return await self._finish(completions.assembled(found) if self._guarded else found)

    def stream(self, ping_seconds: float, look_ahead: int) -> AsyncIterator[bytes]:
        """The stream's blocks in the alias's mode, with a ping every `ping_seconds` while nothing leaves."""
        call, chat = self._call, self._ask.chat
        if self.mode == "none":
            keep, name = self._trace or self._texts, self._alias.name
            return relay.relayed(self._timed(), self._relayed, chat.include_usage, name, call, keep=keep)
        if self.mode == "window":
            return windowed(
                self._timed(),
                self._clear,
                self._finish_window,
                ping_seconds=ping_seconds,
                include_usage=chat.include_usage,
                look_ahead=look_ahead,
                step=max(1, look_ahead // 2),
                model=self._alias.name,
                ident=answer_id(call),
                error_payload=call.failed,
                choices=chat.choices,
            )
        self._aside = Aside() if self._trace else None
        return buffered(
            self._nothing() if self._unasked else self._timed(),
            self._finish,
            ping_seconds=ping_seconds,
            include_usage=chat.include_usage,
            error_payload=call.failed,
            aside=self._aside,
        )

    async def _finish(self, completion: Json) -> Json:
        """Guards every choice and returns the completion to deliver, with what is to be said about it."""
        if self._unasked:
            return await self.whole()
        if not (self._guarded or self._trace or self._texts) and unguarded.ordinary(completion):
            name, asked = self._upstream.backend.name, self._guard.defense
            out = unguarded.told(completion, self._call, self._alias.name, defense=asked, backend=name)
            self._account.stamped(out)
            return out
        reads = completions.read(completion, guarded=self._guarded)
        start = time.perf_counter()
        judged = await _all([self._judge(r) for r in reads])
        self._call.guard_ms += _since(start)
        return self._account.told(judged, completion)

    async def _judge(self, read: Read) -> Judged:
        guarded, trace = await self._asked(self._around(read, self._guard))
        return Judged(read, trace, completions.deliver(read, guarded))

    async def _asked(self, guard: Guard) -> tuple[Response, Trace]:
        """The answer is there already, so whatever is raised here is the guard's own failure, never the upstream's."""
        try:
            found = await guard.generate(self._ask.request)
        except Exception as e:
            raise GuardFailed(f"the guard failed ({type(e).__name__})") from e
        assert found.trace is not None
        return found, found.trace

    def _around(self, read: Read, guard: Guard, *, refuse: bool = False) -> Guard:
        """The alias's guard, around the answer that is there already."""
        answered = Answered(self._ask.request, read.response, self._upstream.backend, self._call.upstream_ms)
        remedy = Refuse(guard.prompts) if refuse else guard.remedy
        return Guard(
            answered,
            guard.detector,
            remedy,
            verifier=None if refuse else guard.verifier,
            settings=guard.settings,
            prompts=guard.prompts,
            name=guard.defense,
            watch=None if self._aside is None else self._watch(read.index),
        )

    def _watch(self, index: int) -> Watch:
        """Tells the steps of a choice as they happen, without texts: nothing that was written leaves before its end."""

        def tell(at: int, step: Step) -> None:
            told = {"index": index, "at": at, **completions.step(step), "text": ""}
            head = {"id": answer_id(self._call), "object": "chat.completion.chunk", "created": int(self._call.at)}
            cast(Aside, self._aside).put(
                event({**head, "model": self._alias.name, "choices": [], "eyelid": {"step": told}})
            )

        return tell

    async def _fresh(self, index: int) -> Judged:
        """A choice of a guard that begins without the model's own answer."""
        start = time.perf_counter()
        guard = self._guard
        if self._aside is not None:
            guard = copy.copy(guard)
            guard.watch = self._watch(index)
        guarded = await guard.generate(self._ask.request)
        self._call.guard_ms += _since(start)
        assert guarded.trace is not None
        reason = guarded.finish_reason if guarded.finish_reason in ("length", "content_filter") else "stop"
        choice = completions.fixed(index, guarded.text, reason)
        return Judged(Read(index, choice, guarded), guarded.trace, choice)

    async def _clear(self, index: int, written: str) -> Verdict:
        """Window mode's question: may what this choice has written so far leave?"""
        detector = cast(Detector, self._guard.detector)
        start = time.perf_counter()
        try:
            return await detector.detect(Exchange(self._ask.request, Response(written), StepLog()))
        finally:
            self._call.guard_ms += _since(start)

    async def _finish_window(self, completion: Json, released: Mapping[int, Released]) -> Json:
        reads = completions.read(completion, guarded=True)
        start = time.perf_counter()
        judged = await _all([self._judge_window(r, released.get(r.index, Released())) for r in reads])
        self._call.guard_ms += _since(start)
        return self._account.told(judged, completion)

    async def _judge_window(self, read: Read, released: Released) -> Judged:
        """A choice of which something may have left. Then no other answer can take its place: it goes on, or ends."""
        name = self._guard.defense
        if released.stopped is not None:
            found = released.stopped
            trace = Trace(Action.REFUSED, name, verdict=found, original=read.response.written, refused_by="guard")
        else:
            guarded, trace = await self._asked(self._around(read, self._guard, refuse=released.characters > 0))
            delivered = completions.deliver(read, guarded)
            if released.continued_by(cast(Json, delivered["message"])):
                return Judged(read, trace, delivered)
            trace = replace(trace, withheld=False)  # what left is the model's own, and none of our sentences
        cut: Json = {**read.choice, "message": released.message(), "logprobs": None, "finish_reason": "content_filter"}
        return Judged(read, trace, cut, released.characters)

    async def _relayed(self, ends: Json) -> Json:
        """What is said at the end of a stream that nobody guards."""
        out = await self._finish(ends)
        return {"moderation": out["moderation"], "eyelid": out["eyelid"]}

    async def _timed(self) -> AsyncIterator[Json]:
        """The upstream's events; the time until they end is the upstream's."""
        start = time.perf_counter()
        events = self._upstream.events(self._ask)
        try:
            async for event in events:
                yield event
        finally:
            self._call.upstream_ms += _since(start)
            await events.aclose()  # type: ignore[attr-defined]

    async def _nothing(self) -> AsyncIterator[Json]:
        """An answer that nobody gave, for guards that ask for none."""
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
        yield {"object": "chat.completion.chunk", "choices": [choice]}


async def _all(work: Sequence[Coroutine[Any, Any, Judged]]) -> list[Judged]:
    """All results; where one fails, the others are cancelled and over before it is raised."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000

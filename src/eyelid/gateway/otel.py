"""OpenTelemetry: a span for each request, a child for each step of the guard, verdicts as evaluation events.

Names follow the semantic conventions for generative AI. Spans are made from the record when the request is over, in a
thread of their own, so that a request does no telemetry work and no collector holds one up.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import os
import queue
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from .. import extras
from ..errors import MissingDependency
from .record import ChoiceRecord, Record, StepRecord, named

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = logging.getLogger("eyelid.otel")

#: Records that wait for the thread; further ones get no span.
MAX_WAITING = 2048
#: How long, in seconds, the last spans may take.
PATIENCE = 3.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: Steps that ask a generating model; the others ask a classifier.
_CHATS = {"answer", "judge", "caption", "safe_answer", "detoxify"}


def from_environment(aliases: Collection[str]) -> Spans | None:
    """Spans sent by OTLP over HTTP to where OpenTelemetry's own variables say; None where they name no place.

    Raises MissingDependency where they do and the extra is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(os.environ.get(n) for n in _ENDPOINTS):
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        hint = f"{extras.install('otel')}; or set OTEL_SDK_DISABLED=true"
        raise MissingDependency("OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed", hint=hint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": "eyelid", "service.version": importlib.metadata.version("eyelid")}
    named_by_operator = "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if os.environ.get("OTEL_SERVICE_NAME") or named_by_operator:
        del about["service.name"]
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider, aliases)


class Spans:
    """A sink into a tracer provider, which it shuts down when it is closed."""

    def __init__(self, provider: TracerProvider, aliases: Collection[str]):
        self.aliases = aliases
        self.dropped = 0
        self._provider = provider
        self._tracer = provider.get_tracer("eyelid", importlib.metadata.version("eyelid"))
        self._waiting: queue.Queue[Record | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="eyelid spans", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    async def aclose(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
            # The exporter retries for long where the collector is away; nobody should wait for that.
            last = threading.Thread(target=self._provider.shutdown, name="eyelid spans' end", daemon=True)
            last.start()
            last.join(PATIENCE)
            if self.dropped:
                log.warning("%d requests got no span: more came than could be taken", self.dropped)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                self._request(record)
            except Exception as e:  # noqa: BLE001  # no span may end the thread
                log.error("a span could not be made (%s); this is a defect", type(e).__name__)

    def _request(self, r: Record) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        alias = named(r.alias, self.aliases)
        outside = TraceContextTextMapPropagator().extract({"traceparent": r.traceparent} if r.traceparent else {})
        begun = int(r.time * 1e9)
        chat = r.endpoint == "/v1/chat/completions"
        about: dict[str, Any] = {
            "gen_ai.operation.name": "chat" if chat else "moderation",
            "gen_ai.provider.name": _provider(r.upstream),
            "gen_ai.request.model": alias,
            "gen_ai.usage.input_tokens": r.prompt_tokens,
            "gen_ai.usage.output_tokens": r.completion_tokens,
            "http.request.method": "POST",
            "http.route": r.endpoint,
            "http.response.status_code": r.status,
            "error.type": r.error,
            "eyelid.audit_id": r.id,
            "eyelid.outcome": r.outcome,
            "eyelid.defense": r.defense,
            "eyelid.key": r.key,
            "eyelid.stream": r.stream,
            "eyelid.images": len(r.images),
            "eyelid.upstream_ms": r.upstream_ms,
            "eyelid.guard_ms": r.guard_ms,
            "eyelid.actions": [c.action for c in r.choices] or None,
        }
        name = f"{about['gen_ai.operation.name']} {alias}"
        span = self._tracer.start_span(name, outside, SpanKind.SERVER, _given(about), start_time=begun)
        if r.outcome in ("upstream_error", "guard_error", "shed"):
            span.set_status(Status(StatusCode.ERROR, r.error))
        ended = begun + int(r.milliseconds * 1e6)
        inside = set_span_in_context(span)
        for choice in r.choices:
            self._choice(choice, span, inside, begun, ended)
        span.end(ended)

    def _choice(self, c: ChoiceRecord, span: Span, inside: Any, begun: int, ended: int) -> None:
        """The steps, one behind the other where the record does not say when they began: guards take them in turn."""
        at = begun
        for step in c.steps:
            start = at if step.start_ms is None else begun + int(step.start_ms * 1e6)
            at = start + int(step.milliseconds * 1e6)
            self._step(step, c.index, inside, start, at)
        what: dict[str, Any] = {"eyelid.choice": c.index, "eyelid.action": c.action, "eyelid.checked": c.checked}
        what |= {"eyelid.unchecked_because": c.unchecked_because, "eyelid.refused_by": c.refused_by}
        for of, label, harm in (("answer", c.label, c.harm), ("delivered", c.final_label, c.final_harm)):
            failed = c.failure if of == "answer" and label is None else None
            if label is not None or failed is not None:
                _verdict(span, label, harm, ended, what | {"eyelid.of": of, "error.type": failed})

    def _step(self, s: StepRecord, choice: int, inside: Any, begun: int, ended: int) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        operation = "chat" if s.role in _CHATS else "classify"
        about = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": s.model or None,
            "gen_ai.usage.input_tokens": s.prompt_tokens,
            "gen_ai.usage.output_tokens": s.completion_tokens,
            "error.type": s.error,
            "eyelid.step": s.role,
            "eyelid.choice": choice,
            "eyelid.verifies": s.verifies,
        }
        name = f"{operation} {s.model}".strip()
        span = self._tracer.start_span(name, inside, SpanKind.CLIENT, _given(about), start_time=begun)
        if s.error:
            span.set_status(Status(StatusCode.ERROR, s.error))
        if s.label is not None:
            _verdict(span, s.label, s.harm, ended, {"eyelid.choice": choice})
        span.end(ended)


def _verdict(span: Span, label: str | None, harm: float | None, at: int, more: dict[str, Any]) -> None:
    about = {
        "gen_ai.evaluation.name": "harm",
        "gen_ai.evaluation.score.value": harm,  # 1 = harmful
        "gen_ai.evaluation.score.label": label,
    }
    span.add_event("gen_ai.evaluation.result", _given(about | more), at)


def _provider(upstream: str | None) -> str:
    """The kind of backend that the model spec names: "openai" of "openai:http://...", as one word."""
    kind = (upstream or "").partition(":")[0]
    return kind if kind.isidentifier() else "eyelid"


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

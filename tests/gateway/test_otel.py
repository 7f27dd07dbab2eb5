"""OpenTelemetry spans, made from records."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: the extra [otel]")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from eyelid.errors import MissingDependency
from eyelid.gateway import otel
from eyelid.gateway.otel import Spans
from eyelid.gateway.record import Record, Sink
from tests.gateway.records import FAILED, PASSED, REPAIRED, START, record, varied

ALIASES = {"qwen-hybrid", "qwen"}


async def spans(*records: Record) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sink = Spans(provider, ALIASES)
    assert isinstance(sink, Sink)
    for r in records:
        sink.put(r)
    await sink.aclose()
    await sink.aclose()
    return list(exporter.get_finished_spans())


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_and_its_steps() -> None:
    found = await spans(record("r-1", choices=(REPAIRED,), defense="ecso"))
    root = next(s for s in found if s.parent is None)
    assert (root.name, root.kind) == ("chat qwen-hybrid", SpanKind.SERVER)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "qwen-hybrid",
        "gen_ai.usage.input_tokens": 650,
        "gen_ai.usage.output_tokens": 41,
        "http.response.status_code": 200,
        "eyelid.audit_id": "r-1",
        "eyelid.defense": "ecso",
        "eyelid.actions": ("repaired",),
    }
    assert expected.items() <= about(root).items()
    assert "error.type" not in about(root)
    start = int(START * 1e9)
    assert (root.start_time, root.end_time) == (start, start + 161_500_000)
    steps = sorted((s for s in found if s.parent is not None), key=lambda s: s.start_time or 0)
    assert [about(s)["eyelid.step"] for s in steps] == ["answer", "judge", "caption", "safe_answer", "judge"]
    assert {s.parent.span_id for s in steps if s.parent} == {root.context.span_id}
    times = [(s.start_time or 0, s.end_time or 0) for s in steps]
    assert times[0] == (start, start + 120_000_000)
    assert all(times[i][1] == times[i + 1][0] for i in range(4))  # one behind the other
    assert (steps[0].name, steps[0].kind) == ("chat qwen", SpanKind.CLIENT)
    assert about(steps[0])["gen_ai.usage.input_tokens"] == 300


async def test_verdicts_are_evaluation_events() -> None:
    found = await spans(record(choices=(REPAIRED,)))
    root = next(s for s in found if s.parent is None)
    events = [dict(e.attributes or {}) for e in root.events]
    assert {e.name for e in root.events} == {"gen_ai.evaluation.result"}
    scores = [(e["eyelid.of"], e["gen_ai.evaluation.score.value"], e["gen_ai.evaluation.score.label"]) for e in events]
    assert scores == [("answer", 0.91, "harmful"), ("delivered", 0.05, "harmless")]
    assert {e["gen_ai.evaluation.name"] for e in events} == {"harm"}
    judges = [s for s in found if about(s).get("eyelid.step") == "judge"]
    assert [len(s.events) for s in judges] == [1, 1]


async def test_what_broke_is_an_error_and_a_refusal_is_none() -> None:
    found = {about(s)["eyelid.audit_id"]: s for s in await spans(*varied()) if s.parent is None}
    broken = {i for i, s in found.items() if s.status.status_code is StatusCode.ERROR}
    assert broken == {"r-failed", "r-down", "r-shed"}
    assert about(found["r-down"])["error.type"] == "upstream_unavailable"
    (event,) = found["r-failed"].events
    assert dict(event.attributes or {})["error.type"] == "judge: BackendTimeout"
    assert "gen_ai.evaluation.score.label" not in dict(event.attributes or {})


async def test_the_clients_trace_goes_on_here() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for header in (f"00-{trace}-{parent}-01", "nonsense", "00-0-0-01", "\ud83d"):
        (root,) = await spans(record(traceparent=header, choices=()))
        if header.startswith("00-0a"):
            assert f"{root.context.trace_id:032x}" == trace
            assert root.parent is not None
            assert f"{root.parent.span_id:016x}" == parent
        else:
            assert root.parent is None


async def test_nothing_of_what_was_said_is_in_a_span() -> None:
    word = "swordfish"
    choice = dataclasses.replace(PASSED, text=word, original=word)
    found = await spans(
        record(
            alias=word,
            upstream=f"openai:http://{word}:{word}@h/v1#{word}",
            images=(word,),
            query=word,
            choices=(choice, dataclasses.replace(FAILED, index=1)),
        )
    )
    assert len(found) == 5
    assert word not in "".join(s.to_json() for s in found)


async def test_a_step_that_says_when_it_began_is_put_there() -> None:
    step = dataclasses.replace(PASSED.steps[1], start_ms=130.0)
    found = await spans(record(choices=(dataclasses.replace(PASSED, steps=(PASSED.steps[0], step)),)))
    start = int(START * 1e9)
    assert sorted((s.start_time or 0) - start for s in found if s.parent) == [1_000_000, 130_000_000]


async def test_a_collector_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "MAX_WAITING", 5)
    go = threading.Event()

    class Hanging(InMemorySpanExporter):
        def export(self, spans: Any) -> Any:
            assert go.wait(30)
            return super().export(spans)

    exporter = Hanging()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sink = Spans(provider, ALIASES)
    for _ in range(50):
        sink.put(record(choices=()))
    assert 44 <= sink.dropped <= 45
    closing = asyncio.create_task(sink.aclose())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert len(exporter.get_finished_spans()) == 50 - sink.dropped


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP receiver on loopback."""
    got: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


async def test_sent_by_otlp_where_the_environment_says(
    collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, got = collector
    assert otel.from_environment(ALIASES) is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert otel.from_environment(ALIASES) is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    sink = otel.from_environment(ALIASES)
    assert sink is not None
    sink.put(record("r-1", choices=(REPAIRED,)))
    await sink.aclose()
    sent = [ExportTraceServiceRequest.FromString(data) for data in got]
    found = [span for message in sent for r in message.resource_spans for s in r.scope_spans for span in s.spans]
    assert len(found) == 6
    resource = {a.key: a.value.string_value for a in sent[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "eyelid"


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setattr(otel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        otel.from_environment(ALIASES)
    assert "otel" in caught.value.hint
    assert "OTEL_SDK_DISABLED=true" in caught.value.hint
    assert "opentelemetry" in sys.modules


async def test_a_collector_that_is_away_does_not_keep_the_gateway_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "PATIENCE", 0.05)
    go = threading.Event()

    class Retrying(SimpleSpanProcessor):
        def shutdown(self) -> None:
            assert go.wait(30)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Retrying(InMemorySpanExporter()))
    sink = Spans(provider, ALIASES)
    sink.put(record())
    await asyncio.wait_for(sink.aclose(), 20)
    go.set()

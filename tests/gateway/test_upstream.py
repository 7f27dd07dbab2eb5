"""Upstreams that fail, each in its own way, on real sockets: what the client is told, and what is asked again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from eyelid.errors import BackendUnavailable
from eyelid.gateway.audit.read import open_reader
from eyelid.gateway.audit.schema import Rows
from eyelid.gateway.audit.sqlite import SQLite
from eyelid.gateway.budget import Budget, BudgetedRetry
from eyelid.gateway.metrics import Metrics

from .gate import Held, Json, Model, Reply, both, completion, events, gate, message, settings

Fault = Callable[[Model], Callable[[Json], Reply | Awaitable[Reply]]]
FAST = "upstream: {timeout_s: 1.0, connect_timeout_s: 0.5, idle_timeout_s: 0.3, max_bytes: 20000}"


def answered(status: int, body: object = None, **headers: str) -> Fault:
    def fault(_: Model) -> Callable[[Json], Reply]:
        told = {"error": {"message": "out of order", "type": "t", "code": "c"}} if body is None else body
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return lambda _: web.json_response(told, status=status, headers=named)

    return fault


def raw(data: bytes, kind: str = "application/json") -> Fault:
    return lambda _: lambda _: web.Response(body=data, content_type=kind)


def pieces(*parts: bytes, pause: float = 0.0, cut: bool = False, kind: str = "application/json") -> Fault:
    """Sends the parts with pauses, then ends or drops the connection."""

    def fault(model: Model) -> Callable[[Json], Awaitable[Reply]]:
        async def answer(_: Json) -> Reply:
            assert model.request is not None
            response = web.StreamResponse(headers={"content-type": kind})
            await response.prepare(model.request)
            for part in parts:
                await response.write(part)
                await asyncio.sleep(pause)
            if cut:
                assert model.request.transport is not None
                model.request.transport.abort()
            return response

        return answer

    return fault


async def _silent(_: Json) -> Reply:
    await asyncio.sleep(5)
    return "too late"


def dropped(model: Model) -> Callable[[Json], Reply]:
    def answer(_: Json) -> Reply:
        assert model.request is not None
        assert model.request.transport is not None
        model.request.transport.abort()
        return "nobody reads this"

    return answer


WHOLE = json.dumps(completion("fine")).encode()
SSE = [f"data: {json.dumps(e)}\n\n".encode() for e in events(completion("one two"), usage=True)]
EVENTS = "text/event-stream"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (answered(500), 502, "upstream_error"),
        (answered(503, retry_after="7"), 503, "upstream_overloaded"),
        (answered(429, retry_after="7"), 429, "upstream_rate_limited"),
        (answered(401), 502, "upstream_401"),
        (answered(404), 404, "upstream_rejected_model"),
        (answered(400), 400, "upstream_rejected_request"),
        (answered(302, location="http://127.0.0.1:1/"), 502, "redirect"),
        (raw(b'{"choices": ['), 502, "not_json"),
        (raw(b"<html>", "text/html"), 502, "wrong_type"),
        (raw(b"[1]"), 502, "not_json"),
        (raw(b"{}"), 502, "not_a_completion"),
        (raw(b'{"choices": []}'), 502, "not_a_completion"),
        (raw(b'{"choices": [5]}'), 502, "upstream_error"),
        (raw(b'{"error": {"message": "no", "code": 503}}'), 503, "upstream_overloaded"),
        (raw(json.dumps(completion("x" * 30000)).encode()), 502, "too_long"),
        (pieces(WHOLE[:40], cut=True), 502, "cut"),
        (pieces(*(bytes([b]) for b in WHOLE), pause=0.1), 504, "timeout"),
        (pieces(WHOLE[:40], WHOLE[40:], pause=0.6), 504, "silent"),
        (lambda _: _silent, 504, "silent"),
        (dropped, 502, "broken_off"),
    ],
)
async def test_each_fault_has_its_own_code(fault: Fault, status: int, code: str) -> None:
    async with both(serve=FAST + "\n") as (gate, model):
        model.answer = fault(model)
        answer = await gate.ask()
        record = await gate.recorded()
    assert (answer.status, answer.error["code"]) == (status, code), answer.body
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.headers["x-eyelid-id"] == record.id
    assert (record.status, record.outcome, record.error) == (status, "upstream_error", code)
    assert record.choices == ()
    if code in ("upstream_overloaded", "upstream_rate_limited") and answer.headers.get("retry-after"):
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_type_that_is_none_is_not_repeated(stream: bool) -> None:
    async with both(serve=FAST) as (gate, model):
        model.answer = raw(b"<html>", "words/that-a-model-may-have-written_here")(model)
        odd = await gate.ask(stream=stream)
        model.answer = raw(b"<html>", "text/html")(model)
        known = await gate.ask(stream=stream)
    assert (odd.error["code"], known.error["code"]) == ("wrong_type", "wrong_type")
    assert "words" not in odd.error["message"]
    assert "text/html" in known.error["message"]


@pytest.mark.parametrize("alias", ["ecso", "window", "plain"])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (answered(500), 502, "upstream_error"),
        (raw(b"<html>", "text/html"), 502, "wrong_type"),
        (pieces(*SSE[:2], cut=True, kind=EVENTS), 502, "cut"),
        (pieces(*SSE[:2], kind=EVENTS), 502, "cut"),
        (pieces(*SSE[:2], b"data: {broken\n\n", kind=EVENTS), 502, "not_json"),
        (pieces(*SSE[:2], b'data: {"error": {"message": "no"}}\n\n', kind=EVENTS), 502, "upstream_error"),
        (pieces(SSE[0], SSE[1], pause=0.6, kind=EVENTS), 504, "silent"),
        (pieces(*[SSE[1]] * 300, kind=EVENTS), 502, "too_long"),
    ],
)
async def test_a_stream_that_fails_never_looks_whole(alias: str, fault: Fault, status: int, code: str) -> None:
    async with both(serve=FAST) as (gate, model):
        model.answer = fault(model)
        answer = await gate.ask(model=alias, stream=True)
        record = await gate.recorded()
    assert b"[DONE]" not in answer.body
    told = answer.error if answer.status != 200 else answer.events[-1]["error"]
    assert told["code"] in (code, "upstream_error"), answer.body
    assert record.outcome == "upstream_error"
    assert record.status == answer.status, "what the client and every proxy on the way saw"
    if alias == "ecso":
        assert answer.status == status, "what fails before the first byte is an HTTP status"


async def test_a_server_that_is_not_there() -> None:
    conf = settings("http://127.0.0.1:9/v1", "upstream: {max_retries: 1}")
    async with gate(conf) as found:
        answer, stream = await found.ask(), await found.ask(stream=True)
        ready = await found.get("/readyz")
    for got in (answer, stream):
        assert (got.status, got.error["code"]) == (502, "refused")
        assert "127.0.0.1" not in got.error["message"], "where the server is concerns the operator, not clients"
    assert (ready.status, ready.json["status"]) == (503, "upstreams unreachable")


@pytest.mark.parametrize(("status", "asked"), [(503, 2), (502, 2), (429, 2), (500, 1), (400, 1), (504, 1)])
async def test_only_what_is_safe_is_asked_again(status: int, asked: int) -> None:
    def answer(_: Json) -> Reply:
        return web.json_response({}, status=status) if len(model.asked) == 1 else "fine"

    async with both(answer) as (found, model):
        got = await found.ask()
        assert len(model.asked) == asked
    assert got.status == 200 if asked == 2 else got.status != 200


async def test_a_server_that_asks_not_to_be_asked_again_is_heard() -> None:
    async with both(lambda _: web.json_response({}, status=503, headers={"x-should-retry": "false"})) as (found, model):
        await found.ask()
    assert len(model.asked) == 1


def test_the_budget_bounds_retries_over_all_calls() -> None:
    retry = BudgetedRetry(2, budget=Budget(0.1))
    error = BackendUnavailable("no", status=503)
    deadline = float("inf")
    assert sum(retry.wait(1, error, None, deadline) is not None for _ in range(10)) == 10
    assert sum(retry.wait(1, error, None, deadline) is not None for _ in range(100)) in range(9, 12)
    assert BudgetedRetry(2, budget=Budget(0.0)).wait(1, error, None, deadline) is None
    assert retry.wait(1, BackendUnavailable("no", code="cut"), None, deadline) is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("alias", ["ecso", "plain", "window"])
async def test_a_client_that_leaves_stops_the_upstreams_work(alias: str, stream: bool) -> None:
    slow = Held()
    async with both(slow) as (found, model):
        task = asyncio.create_task(found.ask(model=alias, stream=stream))
        async with asyncio.timeout(5):
            await slow.begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await model.gone.wait()
            record = await found.recorded()
    assert (record.outcome, record.status) == ("disconnected", 499)
    assert found.gateway.room.taken == 0


async def test_a_client_that_leaves_stops_the_judge_too() -> None:
    slow = Held()
    async with both("fine") as (found, model):
        model.judge = slow
        task = asyncio.create_task(found.ask())
        async with asyncio.timeout(5):
            await slow.begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await model.gone.wait()


async def test_waiting_streams_say_that_they_live() -> None:
    async def slow(_: Json) -> Reply:
        await asyncio.sleep(0.3)
        return "fine"

    async with both(slow, "stream: {ping_seconds: 0.05}") as (found, _):
        answer = await found.ask(stream=True)
    assert answer.body.startswith(b": ping\n\n")
    assert answer.streamed.strip() == "fine"
    assert "x-eyelid-action" not in answer.headers, "not known when the head left"


async def test_a_server_that_does_not_stream_is_read_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = completion(message("fine", tool_calls=[call]))
    async with both(lambda _: web.json_response(whole)) as (found, _):
        answers = [await found.ask(model=m, stream=True) for m in ("ecso", "plain", "window")]
    for answer in answers:
        assert answer.streamed == "fine"
        names = [c["function"].get("name") for e in answer.events for ch in e["choices"]
                 for c in ch["delta"].get("tool_calls") or ()]  # fmt: skip
        assert names[0] == "f"


async def test_keys_and_texts_stay_out_of_errors() -> None:
    def answer(body: Json) -> Reply:
        echoed = f"bad key sk-upstream-secret for: {body['messages'][0]['content']}"
        return web.json_response({"error": {"message": echoed}}, status=400)

    serve = 'aliases: {a: {model: {spec: "openai:URL#m", api_key: sk-upstream-secret}, defense: none}}'
    async with both(answer, serve) as (found, model):
        got = await found.ask("a very private question indeed", model="a", headers={"authorization": "Bearer mine"})
    assert model.headers[0]["authorization"] == "Bearer sk-upstream-secret", "the client's key goes no further"
    assert got.status == 400
    assert "sk-upstream" not in got.body.decode()
    assert "private question" not in got.body.decode()


PARSING = {"error": {"code": 500, "message": "Failed to parse input at pos 9: <tool_call>what it wrote", "type": "x"}}
MISREAD = {"error": {"code": 500, "message": "logprobs: what it wrote"}}
CALLED_4XX = {"error": {"code": 400, "message": "what it wrote", "type": "invalid_request_error"}}


@pytest.mark.parametrize("alias", ["ecso", "window", "plain"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        lambda: web.json_response(PARSING, status=500),
        lambda: web.json_response(MISREAD, status=500),
        lambda: web.json_response(PARSING),
        lambda: web.json_response(CALLED_4XX),
        lambda: web.Response(body=SSE[0] + b"data: %s\n\n" % json.dumps(CALLED_4XX).encode(), content_type=EVENTS),
    ],
)
async def test_what_a_server_quotes_of_an_answer_that_broke_does_not_leave(
    alias: str, stream: bool, fault: Callable[[], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """llama.cpp's parse errors hold what the model wrote, which no detector has seen."""
    async with both(lambda _: fault(), FAST) as (found, _):
        got = await found.ask(model=alias, stream=stream)
        record = await found.recorded()
    assert record.outcome == "upstream_error"
    assert b"what it wrote" not in got.body
    assert "what it wrote" not in caplog.text


@pytest.mark.parametrize("alias", ["ecso", "window"])
async def test_an_unknown_finish_reason_is_quoted_only_where_it_is_a_word(alias: str) -> None:
    for reason, told in (("what it wrote", False), ("odd_reason", True)):
        async with both(lambda _, r=reason: completion("x", reason=r)) as (found, _):
            got = await found.ask(model=alias)
        assert got.status == 502
        assert (reason in got.error["message"]) == told


async def test_what_is_no_count_stays_out_of_the_usage() -> None:
    odd = {"a text as a name": 1, "n": 10**40, "prompt_tokens": 3, "details": {"cached": 2, "A": {}}, "cost": 0.5}
    whole = {**completion("fine"), "usage": odd}
    async with both(lambda _: whole) as (found, _):
        got = await found.ask()
    assert got.json["usage"] == {"prompt_tokens": 3, "details": {"cached": 2}, "cost": 0.5}


async def test_operator_settings_of_a_server_hold_for_what_is_passed_on() -> None:
    serve = (
        'aliases: {a: {model: {spec: "openai:URL?defuse=true#m", options: {omit: [temperature], '
        "max_tokens_field: max_completion_tokens, headers: {x-team: blue}}}, defense: none}}\nlimits: {max_tokens: 50}"
    )
    async with both(serve=serve) as (found, model):
        await found.ask("hi <|im_end|> there", model="a", temperature=0.3, max_tokens=70)
    body: Any = model.asked[0]
    assert body["messages"][0]["content"] == "hi <\u200b|im_end|> there"
    assert "temperature" not in body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 50
    assert model.headers[0]["x-team"] == "blue"


@pytest.mark.parametrize("stream", [False, True])
async def test_numbers_of_any_length_break_no_count_and_lose_no_record(stream: bool, tmp_path: Path) -> None:
    told = completion("fine", usage={"prompt_tokens": 10**400, "completion_tokens": -1, "total_tokens": 3})
    told["choices"][0]["index"] = 2**70  # type: ignore[index]
    async with both(lambda _: web.json_response(told)) as (g, _):
        got = await g.ask(model="plain", stream=stream)
        record = await g.recorded()
    assert (got.status, record.prompt_tokens, record.completion_tokens) == (200, None, None)
    metrics = Metrics({"plain"})
    metrics.put(record)
    assert b'alias="plain"' in metrics.render()
    store = SQLite(tmp_path / "audit.db")
    store.open()
    store.write([Rows.of(record)])
    store.close()
    async with open_reader(tmp_path / "audit.db") as reader:
        (found,) = [r async for r in reader.stream(None)]
    assert [c["index"] for c in found["choices"]] == [0]


@pytest.mark.parametrize("trace", [False, True])
async def test_choices_that_name_one_place_are_told_apart(trace: bool) -> None:
    told = completion("one", "two")
    for choice in told["choices"]:  # type: ignore[attr-defined]
        choice["index"] = 0
    async with both(lambda _: web.json_response(told), "allow_trace: true") as (g, _):
        got = await g.ask(model="plain", n=2, eyelid={"trace": trace})
        record = await g.recorded()
    assert [c["index"] for c in got.json["eyelid"]["choices"]] == [0, 1]
    assert [c.index for c in record.choices] == [0, 1]

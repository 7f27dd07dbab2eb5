"""Bodies and upstreams that hold anything: no answer is a 500, and every one has the form that OpenAPI says it has."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyelid.gateway import openapi
from eyelid.gateway.settings import LimitsConfig

from .gate import Answer, Gate, Json, Model, both, completion, events, message

KEY = "eyelid_a_key_for_tests"
KEYS = f"keys: [{{name: fuzz, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]"
SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
IMAGE: Json = {"type": "image_url", "image_url": {"url": PNG}}
CALL: Json = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODY: Json = {
    "model": "ecso",
    "messages": [
        {"role": "system", "content": "Be short."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi."}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "n": 2,
    "stream": False,
    "stream_options": {"include_usage": True},
    "stop": ["a"],
    "max_tokens": 10,
    "temperature": 0.5,
    "response_format": {"type": "text"},
    "tools": [],
    "logprobs": True,
    "eyelid": {"trace": False},
}
MODERATION: Json = {
    "model": "ecso",
    "input": [{"type": "text", "text": "x"}, IMAGE],
    "eyelid": {"question": "q"},
}
GUARDRAIL: Json = {
    "input_type": "response",
    "texts": ["a", "b"],
    "tool_calls": [CALL],
    "structured_messages": [{"role": "user", "content": "x"}],
    "additional_provider_specific_params": {"alias": "ecso", "on_harm": "replace"},
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([[], {}, [None], [[]], {"a": None}, "\ud800", "\u0000", PNG, "http://127.0.0.1/", {"url": 5}]),
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something left out, added or replaced, at any depth."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(value)))
        rest = {k: v for k, v in value.items() if k != name}
        how = draw(st.integers(0, 7))
        return rest if how == 0 else {**value, draw(st.text(max_size=5)): draw(ODD)} if how == 1 else {
            **rest, name: draw(changed(value[name]))
        }  # fmt: skip
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(changed(value[at])), *value[at + 1 :]]
    return draw(ODD)


@st.composite
def bodies(draw: st.DrawFn, base: Json) -> bytes:
    """Mostly JSON with one to three changes, sometimes bytes that are not JSON any more."""
    value: Any = base
    for _ in range(draw(st.integers(1, 3))):
        value = draw(changed(value))
    raw = json.dumps(value).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=4)) + raw[at + draw(st.integers(0, 3)) :]
    return raw


class Running:
    """A gateway with its model, in a loop of their own: Hypothesis and Schemathesis are not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._up, self._stop = threading.Event(), asyncio.Event()
        self.gate: Gate
        self.model: Model
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with both(serve=KEYS) as (self.gate, self.model):
            self._up.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(30)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()

    def post(self, body: Json | bytes, path: str = "/v1/chat/completions") -> Answer:
        work = self.gate.post(body, path, authorization=f"Bearer {KEY}")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    found = Running()
    found.start()
    try:
        yield found
    finally:
        found.end()


def schema(name: str) -> Json:
    document = openapi.description(LimitsConfig())
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


CHECK = {name: jsonschema.Draft202012Validator(schema(name)) for name in
         ("Error", "ChatCompletion", "Moderation", "GuardrailResponse")}  # fmt: skip


def well_formed(answer: Answer, name: str) -> None:
    assert answer.status < 500, answer.body
    CHECK["Error" if answer.status >= 400 else name].validate(answer.json)


def whole(answer: Answer) -> None:
    """A stream ends with `[DONE]`, or with an error and without it."""
    if answer.status != 200:
        CHECK["Error"].validate(answer.json)
        return
    last = answer.events[-1]
    assert answer.body.endswith(b"data: [DONE]\n\n") != ("error" in last)
    if "error" in last:
        CHECK["Error"].validate(last)


# --- bodies ---


@SETTINGS
@given(body=bodies(BODY))
def test_a_chat_of_any_form_is_answered_or_refused(running: Running, body: bytes) -> None:
    answer = running.post(body)
    if answer.headers["content-type"].startswith("text/event-stream"):
        whole(answer)
    else:
        well_formed(answer, "ChatCompletion")


@SETTINGS
@given(body=bodies(MODERATION))
def test_a_moderation_of_any_form_is_answered_or_refused(running: Running, body: bytes) -> None:
    well_formed(running.post(body, "/v1/moderations"), "Moderation")


@SETTINGS
@given(body=bodies(GUARDRAIL))
def test_a_guardrails_question_of_any_form_is_answered_or_refused(running: Running, body: bytes) -> None:
    well_formed(running.post(body, "/beta/litellm_basic_guardrail_api"), "GuardrailResponse")


@SETTINGS
@given(body=st.binary(max_size=200))
def test_bytes_are_refused(running: Running, body: bytes) -> None:
    answer = running.post(body)
    assert 400 <= answer.status < 500
    CHECK["Error"].validate(answer.json)


# --- upstreams ---

ANSWER = completion(
    message("fine", reasoning_content="r", tool_calls=[CALL]),
    "two",
)  # fmt: skip
ANSWER["choices"][1]["logprobs"] = {"content": [{"token": "two", "logprob": -0.1, "bytes": [1], "top_logprobs": []}]}
EVENTS = events(ANSWER, usage=True)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Events of which some are changed, missing or twice, some bytes that are none, and an end that may be missing."""
    lines = []
    for event in EVENTS:
        how = draw(st.integers(0, 11))
        if how == 0:
            continue
        value = draw(changed(event)) if how < 4 else event
        lines.append(b"data: " + json.dumps(value).encode() + draw(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\n\n"])))
        if how == 11:
            lines.append(draw(st.sampled_from([lines[-1], b": ping\n\n", b"event: x\nid: 1\n\n", b"\xff\xfe\n\n"])))
    return b"".join(lines) + draw(st.sampled_from([b"data: [DONE]\n\n", b"", b'data: {"cho', b"data: [DONE]"]))


@contextlib.contextmanager
def answering(running: Running, reply: Callable[[], web.Response]) -> Iterator[None]:
    """Makes the model answer a client's own question with `reply`; judges and remedies are answered as ever."""
    real = running.model._reply

    async def replied(part: str, body: Json) -> Any:
        return reply() if part == "answer" else await real(part, body)

    running.model._reply: Callable[[str, Json], Awaitable[Any]] = replied  # type: ignore[method-assign, misc]
    try:
        yield
    finally:
        running.model._reply = real  # type: ignore[method-assign]


@SETTINGS
@given(answer=changed(ANSWER), alias=st.sampled_from(["ecso", "plain", "refuse"]))
def test_an_upstreams_answer_of_any_form_is_passed_on_or_is_the_upstreams_error(
    running: Running, answer: Any, alias: str
) -> None:
    body = json.dumps(answer).encode()
    with answering(running, lambda: web.Response(body=body, content_type="application/json")):
        found = running.post({"model": alias, "messages": [{"role": "user", "content": "Hi."}]})
    assert found.status != 500, found.body
    if found.status == 200 and alias != "plain":
        CHECK["ChatCompletion"].validate(found.json)


@SETTINGS
@given(stream=streams(), alias=st.sampled_from(["ecso", "plain", "window", "refuse"]))
def test_an_upstreams_stream_of_any_form_ends_well_or_with_an_error(
    running: Running, stream: bytes, alias: str
) -> None:
    with answering(running, lambda: web.Response(body=stream, content_type="text/event-stream")):
        asked = {"model": alias, "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
        found = running.post(asked)
    assert found.status != 500, found.body
    whole(found)
    assert b"internal_error" not in found.body


# --- the description ---


def test_the_description_is_valid_and_names_what_is_served(running: Running) -> None:
    document = openapi.description(LimitsConfig(max_choices=3))
    assert document["openapi"] == "3.1.0"
    paths = document["paths"]
    assert isinstance(paths, dict)
    served = {r.path.replace(":path", "") for r in running.gate.server.config.app.routes}  # type: ignore[union-attr]
    assert paths.keys() <= served
    assert {p for p in served if p.startswith(("/v1/", "/beta/"))} <= paths.keys()
    n = schema("ChatRequest")["components"]["schemas"]["ChatRequest"]["properties"]["n"]
    assert n["maximum"] == LimitsConfig().max_choices


@pytest.mark.real
def test_schemathesis_finds_nothing(running: Running, tmp_path: Path) -> None:
    """The real tool, in a process of its own. What it holds for valid may still be refused for what it means."""
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
        "missing_required_header,ignored_auth,unsupported_method"
    )
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{running.gate.url}/openapi.json"]
    command += ["--checks", checks, "--phases", "coverage,fuzzing", "--max-examples", "20", "--seed", "1"]
    command += ["--header", f"Authorization: Bearer {KEY}", "--suppress-health-check", "all", "--no-color"]

    async def run() -> tuple[int, str]:
        pipe, joined = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        started = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=pipe, stderr=joined)
        async with asyncio.timeout(240):
            out, _ = await started.communicate()
        assert started.returncode is not None
        return started.returncode, out.decode(errors="replace")

    code, out = asyncio.run(run())
    assert code == 0, out[-6000:]
    assert "Tested: 8" in out or "Tested: 7" in out, out[-2000:]

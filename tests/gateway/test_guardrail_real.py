"""LiteLLM's own proxy with Eyelid as its guardrail, a fake model behind it. Needs LiteLLM in an environment of its own:

python -m venv /somewhere && /somewhere/bin/pip install 'litellm[proxy]!=1.82.7,!=1.82.8'
EYELID_LITELLM=/somewhere pytest -m real tests/gateway/test_guardrail_real.py
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from eyelid import config
from eyelid.errors import DetectorError
from eyelid.gateway import errors, guardrail, keys
from eyelid.gateway.app import create
from eyelid.gateway.moderations import Item
from eyelid.types import Verdict

from .servers import free_port, serving
from .streams import MARK, Json

LITELLM = os.environ.get("EYELID_LITELLM", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not LITELLM, reason="EYELID_LITELLM names no environment that holds LiteLLM"),
]


#: The proxy's own, made for one run: it does not start without.
PROXY_KEY = f"sk-{secrets.token_hex(32)}"


class Seen:
    """What reached the guardrail."""

    def __init__(self) -> None:
        self.bodies: list[Json] = []
        self.keys: set[str | None] = set()


async def classify(item: Item) -> Verdict:
    if "BROKEN" in item.answer:
        raise DetectorError("broke")
    return Verdict.of(0.9 if MARK in item.answer else 0.1, 0.5, "marks")


def guard(seen: Seen) -> Starlette:
    async def check(request: Request) -> Response:
        seen.keys.add(request.headers.get("x-api-key"))
        seen.bodies.append(body := await request.json())
        try:
            return JSONResponse(await guardrail.check(body, classify, refusal="I cannot help with that."))
        except Exception as e:  # noqa: BLE001 - as the gateway answers
            return JSONResponse(errors.payload(e), errors.describe(e).status)

    return Starlette(routes=[Route(guardrail.PATH, check, methods=["POST"])])


def model() -> Starlette:
    """Says what the last message asks it to say; "CALL" makes it a tool call."""

    async def chat(request: Request) -> Response:
        body = await request.json()
        text = body["messages"][-1]["content"]
        message: Json = {"role": "assistant", "content": text}
        if text.startswith("CALL"):
            function = {"name": "look", "arguments": json.dumps({"at": text})}
            message |= {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return JSONResponse({**whole, "choices": [choice], "usage": usage})

        async def chunks() -> AsyncIterator[str]:
            for word in text.split(" "):
                choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
                yield f"data: {json.dumps({**whole, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
            choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
            yield f"data: {json.dumps({**whole, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def classifier() -> Starlette:
    """A detector's server, as vLLM serves one."""

    async def classify(request: Request) -> Response:
        texts = (await request.json())["input"]
        if any("BROKEN" in text for text in texts):
            return Response(status_code=400)
        probs = [[0.1, 0.9] if MARK in text else [0.9, 0.1] for text in texts]
        rows = [{"index": i, "label": "x", "probs": p, "num_classes": 2} for i, p in enumerate(probs)]
        return JSONResponse({"data": rows})

    return Starlette(routes=[Route("/classify", classify, methods=["POST"])])


def gateway(detector: str, upstream: str, digest: str) -> Starlette:
    """Eyelid itself, with one key."""
    text = f"""
serve:
  playground: false
  keys: [{{name: litellm, sha256: {digest}}}]
  aliases:
    guarded:
      model: "openai:{upstream}/v1#m"
      defense: {{name: protector, detector: "{detector}/classify?harm_index=1"}}
"""
    return create(config.parse(text, folder=Path("/")), sinks=[])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Seen]]:
    seen = Seen()
    folder = tmp_path_factory.mktemp("litellm")
    key, digest = keys.new()
    with (
        serving(guard(seen)) as guarding,
        serving(model()) as upstream,
        serving(classifier()) as detector,
        serving(gateway(detector, upstream, digest)) as eyelid,
    ):
        ours = {"guardrail": "generic_guardrail_api", "api_base": guarding, "api_key": "guard-key"}
        replace = {"additional_provider_specific_params": {"on_harm": "replace"}}
        params = {"model": "openai/m", "api_base": f"{upstream}/v1", "api_key": "none"}
        config = {
            "model_list": [{"model_name": "m", "litellm_params": params}],
            "guardrails": [
                {"guardrail_name": "after", "litellm_params": {**ours, "mode": "post_call"}},
                {
                    "guardrail_name": "gateway",
                    "litellm_params": {**ours, "api_base": eyelid, "api_key": key, "mode": "post_call"},
                },
                {
                    "guardrail_name": "stranger",
                    "litellm_params": {**ours, "api_base": eyelid, "api_key": "none", "mode": "post_call"},
                },
                {"guardrail_name": "before", "litellm_params": {**ours, "mode": "pre_call"}},
                {"guardrail_name": "replacing", "litellm_params": {**ours, "mode": "post_call", **replace}},
                {
                    "guardrail_name": "open",
                    "litellm_params": {**ours, "mode": "post_call", "unreachable_fallback": "fail_open"},
                },
            ],
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        port = free_port()
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_MASTER_KEY": PROXY_KEY}
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LANG")}
        command = [str(Path(LITELLM) / "bin" / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port), "--telemetry", "False"],
                cwd=folder,
                env=kept | local,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, folder / "log")
            yield address, seen
        finally:
            process.terminate()
            process.wait(20)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{address}/health/liveliness", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"LiteLLM did not start: {log.read_text()[-3000:]}")


def ask(proxy: tuple[str, Seen], text: str, guardrail_name: str, **more: object):
    proxy[1].bodies.clear()
    client = openai.OpenAI(base_url=proxy[0], api_key=PROXY_KEY, max_retries=0)
    body = {"guardrails": [guardrail_name]}
    return client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], extra_body=body, **more
    )


def test_a_harmless_answer_passes_and_was_judged(proxy):
    found = ask(proxy, "all is fine", "after")
    assert found.choices[0].message.content == "all is fine"
    (body,) = proxy[1].bodies
    assert body["input_type"] == "response"
    assert body["texts"] == ["all is fine"]
    assert proxy[1].keys == {"guard-key"}


@pytest.mark.parametrize("text", [f"this is {MARK}", f"CALL {MARK}"])
def test_a_harmful_answer_is_blocked(proxy, text):
    with pytest.raises(openai.APIStatusError, match="found harmful") as e:
        ask(proxy, text, "after")
    assert e.value.status_code == 400
    assert MARK not in str(e.value)
    assert proxy[1].bodies


def test_a_harmful_answer_can_be_replaced(proxy):
    found = ask(proxy, f"this is {MARK}", "replacing")
    assert found.choices[0].message.content == "I cannot help with that."


def test_a_harmful_question_is_blocked_before_the_model(proxy):
    with pytest.raises(openai.APIStatusError, match="the request was found harmful"):
        ask(proxy, f"this is {MARK}", "before")
    assert [b["input_type"] for b in proxy[1].bodies] == ["request"]
    assert ask(proxy, "all is fine", "before").choices[0].message.content == "all is fine"


@pytest.mark.parametrize("name", ["after", "open"])
def test_a_broken_detector_lets_nothing_through(proxy, name):
    with pytest.raises(openai.APIStatusError) as e:
        ask(proxy, "BROKEN", name)
    assert e.value.status_code >= 500
    assert proxy[1].bodies


def test_streams_are_judged_and_a_harmful_one_ends_with_an_error(proxy):
    fine = "".join(c.choices[0].delta.content or "" for c in ask(proxy, "all is fine", "after", stream=True))
    assert fine.strip() == "all is fine"
    assert any(b["texts"] == ["all is fine "] for b in proxy[1].bodies)
    with pytest.raises(openai.APIError, match="found harmful"):
        for _ in ask(proxy, " ".join(["word"] * 20 + [MARK, *["more"] * 20]), "after", stream=True):
            pass


def test_the_gateway_itself_guards_litellm(proxy):
    assert ask(proxy, "all is fine", "gateway").choices[0].message.content == "all is fine"
    for text in (f"this is {MARK}", f"CALL {MARK}"):
        with pytest.raises(openai.APIStatusError, match="the answer was found harmful"):
            ask(proxy, text, "gateway")
    for name, text in (("gateway", "BROKEN"), ("stranger", "all is fine")):  # a broken detector, and a wrong key
        with pytest.raises(openai.APIStatusError) as e:
            ask(proxy, text, name)
        assert e.value.status_code >= 500

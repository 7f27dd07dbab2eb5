"""Clients that people have: LiteLLM and an agent framework, each in an environment of its own.

python -m venv /a && /a/bin/pip install 'litellm!=1.82.7,!=1.82.8'
python -m venv /b && /b/bin/pip install 'pydantic-ai-slim[openai]'
EYELID_LITELLM=/a EYELID_AGENT=/b pytest -m real tests/gateway/test_clients_real.py
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from .gate import HARM, SAFE, Json, Reply, both, completion, message, said
from .test_limits import PIXEL

pytestmark = pytest.mark.real
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def answer(body: Json) -> Reply:
    """The model: calls the tool it is given, until it has its result."""
    asked, last = said(body), body["messages"][-1]
    if "be bad" in asked:
        return HARM
    if "fail" in asked:
        return web.json_response({"error": {"message": "broken"}}, status=500)
    if last["role"] == "tool":
        return f"It says {last['content']}."
    tools = [t["function"]["name"] for t in body.get("tools") or ()]
    if "weather" in tools and "weather?" in said({"messages": [last]}):
        return completion(message(None, tool_calls=[CALL]))
    if tools and tools != ["weather"]:
        call = {"name": tools[0], "arguments": '{"name": "Oslo", "people": 700000}'}
        return completion(message(None, tool_calls=[{"id": "call_2", "type": "function", "function": call}]))
    images = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"] if "image_url" in p]
    return f"{len(images)} images, {len(body['messages'])} messages"


async def run(variable: str, what: str) -> Json:
    folder = os.environ.get(variable, "")
    if not folder:
        pytest.skip(f"{variable} names no environment to run {what} in")
    script = Path(__file__).parent / "clients.py"
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DO_NOT_TRACK": "1",
    }
    async with both(answer) as (gate, _):
        process = await asyncio.create_subprocess_exec(
            Path(folder, "bin", "python"), script, what, gate.url, PIXEL,
            env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(180):
            out, told = await process.communicate()
    assert process.returncode == 0, told.decode()[-3000:]
    found: Json = json.loads(out.splitlines()[-1])
    return found


async def test_litellm_as_a_client() -> None:
    got = await run("EYELID_LITELLM", "litellm")
    text = "0 images, 1 messages"
    assert got["passed"] == got["async"] == [text, "stop", []]
    assert got["eyelid"]["choices"][0]["action"] == "passed", "what is ours reaches users of LiteLLM too"
    for name in ("streamed", "window"):
        assert [got[name][0].strip(), *got[name][1:]] == [text, "stop", [], 7]
    assert got["tool"] == [None, "tool_calls", [["weather", '{"city": "Oslo"}']]]
    assert got["tool streamed"][1:3] == got["tool"][1:]
    assert got["image"][0] == "1 images, 1 messages"
    assert got["long"][0] == "0 images, 201 messages"
    assert got["repaired"][:2] == [SAFE, "stop"]
    assert got["blocked"][1] == "content_filter"
    assert HARM not in json.dumps(got)
    assert got["no such model"] == ["NotFoundError", 404]
    assert got["refused field"] == ["BadRequestError", 400]
    assert got["server down"][1] in (500, 502, 503)


async def test_an_agent_calls_its_tool_through_the_gateway() -> None:
    got = await run("EYELID_AGENT", "agent")
    assert got["answer"] == "It says rain."
    assert got["streamed"].strip() == "It says rain."
    assert got["asked"] == ["Oslo", "Oslo"]
    assert got["typed"] == {"name": "Oslo", "people": 700000}
    assert got["again"].endswith("messages")

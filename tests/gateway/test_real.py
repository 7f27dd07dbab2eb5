"""The gateway on real weights: the embedded model, in this process."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eyelid import config, models

from .gate import Gate, gate

pytestmark = pytest.mark.real


@pytest.fixture
async def tiny() -> AsyncIterator[Gate]:
    if not models.has("tiny"):
        pytest.skip("the embedded model is not installed")
    async with gate(config.parse("serve: {allow_trace: true}")) as found:
        yield found


def data_url(page: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(page.read_bytes()).decode()}"


async def test_the_embedded_model_is_served_guarded_and_not(tiny: Gate, page: Path) -> None:
    url = data_url(page)
    text = "The page has a title and an empty list. Write the items of the list."
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 40}
    bare = await tiny.post({"model": "tiny-undefended", **body})
    guarded = await tiny.post({"model": "tiny-ecso", "eyelid": {"trace": True}, **body})
    stream = await tiny.post({"model": "tiny-ecso", "stream": True, **body})
    assert bare.eyelid["action"] == "not_guarded"
    assert bare.text
    assert guarded.eyelid["action"] in ("passed", "repaired", "refused")
    assert guarded.eyelid["label"] in ("harmful", "harmless", "unknown")
    steps = guarded.eyelid["steps"]
    assert [s["role"] for s in steps[:2]] == ["answer", "judge"]
    assert steps[0]["images"] == 1
    if guarded.eyelid["action"] != "passed":
        assert steps[0]["text"] not in guarded.text
        assert next(s for s in steps if s["role"] == "safe_answer")["images"] == 0
    assert stream.body.endswith(b"data: [DONE]\n\n")


async def test_it_can_be_held_to_json_and_takes_no_tools(tiny: Gate) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    asked = [{"role": "user", "content": "How many legs has a cat?"}]
    made = await tiny.post({"model": "tiny-undefended", "messages": asked, "response_format": form, "max_tokens": 30})
    tools = await tiny.post({"model": "tiny", "messages": asked, "tools": [{"type": "function"}]})
    assert made.text.lstrip().startswith("{")
    assert (tools.status, tools.error["param"]) == (400, "tools")

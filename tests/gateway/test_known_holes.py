"""Holes that software of this kind has had, tried on a real gateway. In brackets where they were found."""

from __future__ import annotations

import base64
import io
import logging
import sqlite3
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from eyelid.gateway.audit.settings import AuditConfig
from eyelid.gateway.audit.writer import Writer

from .gate import Json, both, gate, model, settings

ALLOWED = "fetch: {allowed_hosts: [images.example]}"


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


def shown(url: str, **more: object) -> Json:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"model": "plain", "messages": [{"role": "user", "content": [part]}], **more}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1\\@images.example/x.png",  # vLLM CVE-2026-24779: two readers of one address
        "http://images.example\\@127.0.0.1/x.png",
        "http://images.example@127.0.0.1/x.png",
        "http://127.0.0.1#@images.example/x.png",
        "http://127.0.0.1%23@images.example/x.png",
        "http://127.0.0.1/x.png?images.example",
        "http://images.example.127.0.0.1.nip.io/x.png",
        "http://images.example:80@127.0.0.1:80/",
        "http://2130706433/",  # LMDeploy CVE-2026-33626, vLLM GHSA-3f6c-7fw2-ppm4: any address at all
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://images\u3002example/x.png",
        "http://images.example /x.png",
        "http://images.example\r\nhost: 127.0.0.1/x.png",
        "//images.example/x.png",
        "gopher://images.example/",
        "file://images.example/etc/passwd",
        "FILE:///etc/passwd",
    ],
)
async def test_addresses_lead_nowhere_but_to_allowed_hosts(url: str) -> None:
    async with both(serve="remote_images: true", top=ALLOWED) as (found, upstream):
        got = await found.post(shown(url))
        moderated = await found.post(
            {"model": "ecso", "input": [{"type": "text", "text": "x"}, shown(url)["messages"][0]["content"][0]]},
            "/v1/moderations",
        )
    assert (got.status, got.error["code"]) == (400, "invalid_image")
    assert (moderated.status, moderated.error["code"]) == (400, "invalid_image")
    assert upstream.parts == []


async def test_a_redirect_is_not_followed_and_tells_nothing() -> None:
    asked: list[str] = []

    async def away(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"location": "/secret.png"}, body=png(), content_type="image/png")

    app = web.Application()
    app.router.add_get("/{name:.*}", away)
    async with TestServer(app) as server:
        top = "fetch: {allow_private: true, allowed_hosts: [127.0.0.1]}"
        async with both(serve="remote_images: true", top=top) as (found, upstream):
            got = await found.post(shown(str(server.make_url("/p.png"))))
    assert (got.status, got.error["code"]) == (400, "invalid_image")
    assert asked == ["/p.png"]
    assert b"secret" not in got.body
    assert upstream.parts == []


async def test_no_request_says_where_and_with_which_key_its_answer_is_made() -> None:
    """LiteLLM CVE-2024-6587: `api_base` in a body had the operator's key sent to it."""
    serve = 'aliases: {a: {model: {spec: "openai:URL#m", api_key: sk-operator}, defense: none}}'
    asked = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    headers = {
        "authorization": "Bearer sk-client", "x-api-base": "http://127.0.0.1:1", "cookie": "a=b",
        "x-forwarded-host": "127.0.0.1:1", "openai-organization": "mine", "x-stainless-lang": "python",
    }  # fmt: skip
    async with both(serve=serve) as (found, upstream):
        fields = ("api_base", "base_url", "api_key", "extra_headers", "extra_body", "user_config", "model_list")
        refused = [await found.post({**asked, name: "http://127.0.0.1:1"}) for name in fields]
        got = await found.post(asked, **headers)
    assert {(r.status, r.error["code"]) for r in refused} == {(400, "unsupported_field")}
    assert got.status == 200
    assert upstream.headers[0]["authorization"] == "Bearer sk-operator"
    sent = {name.lower() for name in upstream.headers[0]}
    assert sent <= {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
    }


async def test_headers_and_names_are_no_sql(tmp_path: Path) -> None:
    """LiteLLM CVE-2026-42208: a header ended up in a statement."""
    bad = "x'; DROP TABLE audit_requests; --"
    async with model() as m, gate(settings(m.url)) as found:
        writer = Writer(AuditConfig(path=tmp_path / "audit.db"))
        await writer.start()
        found.gateway.sinks = (*found.gateway.sinks, writer)
        await found.ask(model=bad)
        await found.ask(headers={"authorization": f"Bearer {bad}", "traceparent": bad, "x-eyelid-defense": bad})
        await found.recorded()
        await writer.aclose()
    with sqlite3.connect(tmp_path / "audit.db") as db:
        ((count,),) = db.execute("select count(*) from audit_requests").fetchall()
    db.close()
    assert count == 2


@pytest.mark.parametrize(
    "field", ["custom_logit_processor", "logits_processors", "chat_template", "kv_transfer_params"]
)
async def test_no_request_brings_code(field: str) -> None:
    """LiteLLM CVE-2026-40217, and what vLLM and SGLang run where their operator allows it."""
    async with both() as (found, upstream):
        got = await found.ask(**{field: "{{ x }}"})
    assert (got.status, got.error["param"]) == (400, field)
    assert upstream.parts == []


@pytest.mark.parametrize("cut", [9, 20, 40, 50])
async def test_errors_of_decoders_tell_nothing_of_this_process(cut: int) -> None:
    """vLLM CVE-2026-22778: Pillow's words hold addresses of memory."""
    data = base64.b64encode(png()[:cut]).decode()
    async with both() as (found, _):
        got = await found.post(shown(f"data:image/gif;base64,{data}"))
    assert got.error["code"] == "invalid_image"
    for telling in (b"0x", b"BytesIO", b"object at", data.encode()):
        assert telling not in got.body


async def test_a_film_is_no_image() -> None:
    """vLLM CVE-2026-5497: thousands of frames as `video/jpeg`."""
    frame = base64.b64encode(png()).decode()
    async with both() as (found, upstream):
        for kind in ("video/jpeg", "video/mp4", "image/apng;x=video/jpeg", "multipart/x-mixed-replace"):
            got = await found.post(shown(f"data:{kind};base64,{','.join([frame] * 3)}"))
            assert (got.status, got.error["code"]) == (400, "invalid_image")
    assert upstream.parts == []


async def test_no_log_holds_images_keys_or_texts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    data = base64.b64encode(png()).decode()
    serve = 'aliases: {a: {model: {spec: "openai:URL#m", api_key: sk-operator-1}, defense: ecso}}'
    asked = shown(f"data:image/png;base64,{data}", model="a")
    asked["messages"][0]["content"].append({"type": "text", "text": "a private question"})
    async with both("an answer of its own", serve) as (found, upstream):
        fine = await found.post(asked, authorization="Bearer sk-client-1")
        upstream.answer = lambda _: web.json_response({"error": {"message": f"no: {data} sk-operator-1"}}, status=400)
        broken = await found.post(asked, authorization="Bearer sk-client-1")
        await found.post({**asked, "echo": True}, authorization="Bearer sk-client-1")
    assert (fine.status, broken.status) == (200, 400)
    for private in (data[:40], "sk-operator-1", "sk-client-1", "private question", "an answer of its own"):
        assert private not in caplog.text
        assert private not in broken.body.decode()

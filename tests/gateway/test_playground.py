"""The pages and what they ask for, without a browser: who is told what, headers, and what the files may not hold."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from eyelid.cli import demo
from eyelid.gateway import playground

from .gate import HARM, Answer
from .pages import KEYS, served

STATIC = playground.STATIC
ANN, BOB, OPS = ({"authorization": f"Bearer eyelid_{name}"} for name in ("ann", "bob", "ops"))


async def get(url: str | URL, headers: Mapping[str, str] | None = None) -> Answer:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, allow_redirects=False) as r:
        return Answer(r.status, {k.lower(): ", ".join(r.headers.getall(k)) for k in r.headers}, await r.read())


async def ask(base: str, text: str, model: str = "ecso", headers: Mapping[str, str] | None = None) -> str:
    """The audit id of an answered question."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    url = f"{base}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as r:
        assert r.status == 200, await r.text()
        return r.headers["x-eyelid-id"]


async def audited(base: str, ident: str, headers: Mapping[str, str] | None = None) -> Answer:
    """One request of the audit, once it is written down."""
    async with asyncio.timeout(5):
        while (found := await get(f"{base}/playground/audit/{ident}", headers)).status == 404:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_pages_and_files_are_served_with_strict_headers(tmp_path: Path) -> None:
    async with served(tmp_path) as (base, _):
        for path in ("/", "/audit"):
            page = await get(base + path)
            assert page.status == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["cache-control"] == "no-cache"
            again = await get(base + path, {"if-none-match": page.headers["etag"]})
            assert (again.status, again.body) == (304, b"")
            assert "require-trusted-types-for" in again.headers["content-security-policy"]
        for file in sorted(STATIC.iterdir()):
            found = await get(f"{base}/playground/static/{file.name}")
            if file.suffix == ".html":  # pages have their own addresses
                assert found.status == 404
                continue
            assert found.status == 200, file
            assert found.body == file.read_bytes()
            assert found.headers["cache-control"] == "no-cache"
            again = await get(f"{base}/playground/static/{file.name}", {"if-none-match": found.headers["etag"]})
            assert again.status == 304
        script = await get(f"{base}/playground/static/api.js")
        assert "javascript" in script.headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        "static/../playground.py",
        "static/%2e%2e/playground.py",
        "examples/..%2fpages%2ftea.png",
        "static/",
        "examples/x",
    ],
)
async def test_nothing_but_the_pages_files_can_be_fetched(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as (base, _):
        assert (await get(URL(f"{base}/playground/{path}", encoded=True))).status == 404


async def test_info_names_models_with_their_defences_and_the_limits(tmp_path: Path) -> None:
    async with served(tmp_path, serve="limits: {max_images: 3, max_tokens: 64}") as (base, _):
        found = await get(f"{base}/playground/info")
    assert found.headers["cache-control"] == "no-store"
    info = found.json
    (one,) = info["models"]
    assert one["name"] == "served"
    assert [(v["alias"], v["defense"]) for v in one["variants"]] == [
        ("ecso", "ecso"), ("plain", "none"), ("window", "ecso"), ("blind", "blind"), ("refuse", "refuse")]  # fmt: skip
    assert [v["stream_mode"] for v in one["variants"]][:3] == ["buffer", "none", "window"]
    assert info["limits"]["images"] == 3
    assert info["limits"]["max_tokens"] == 64
    assert info["trace"] is True
    assert info["audit"] == {"shown": True, "own": False, "texts": True}


async def test_a_defence_that_requests_may_choose_is_offered_under_its_alias(tmp_path: Path) -> None:
    aliases = 'aliases:\n  one: {model: "openai:URL#m", defense: ecso, allow_request_choice: [none, ecso]}\n'
    async with served(tmp_path, serve=aliases) as (base, _):
        (found,) = (await get(f"{base}/playground/info")).json["models"]
    assert [(v["alias"], v["defense"], v["chosen"]) for v in found["variants"]] == [
        ("one", "ecso", False), ("one", "none", True)]  # fmt: skip


async def test_a_models_own_name_is_told_only_where_traces_are(tmp_path: Path) -> None:
    async with served(tmp_path, serve="") as (base, _):
        assert (await get(f"{base}/playground/info")).json["models"][0]["name"] == "served"
    from .gate import both

    async with both() as (g, _):
        assert (await g.get("/playground/info")).json["models"][0]["name"] == "ecso"


async def test_examples_are_those_of_the_demo(tmp_path: Path) -> None:
    assert {e["prompt"] for e in playground.EXAMPLES if "image" in e} == {demo.PROMPT}
    assert {e["image"] for e in playground.EXAMPLES if "image" in e} == {s.file for s in demo.SCENES}
    async with served(tmp_path) as (base, _):
        for example in (await get(f"{base}/playground/info")).json["examples"]:
            if "image" in example:
                image = await get(f"{base}/{example['image']}")
                assert image.body.startswith(b"\x89PNG")


async def test_with_keys_nothing_is_told_without_one_and_to_each_its_own_aliases(tmp_path: Path) -> None:
    async with served(tmp_path, serve=KEYS) as (base, _):
        assert (await get(f"{base}/")).status == 200  # the page itself, which asks for the key
        for path in ("info", "audit", "audit/stats", "audit/eye-1"):
            refused = await get(f"{base}/playground/{path}")
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
            assert (await get(f"{base}/playground/{path}", {"authorization": "Bearer no"})).status == 401
        info = (await get(f"{base}/playground/info", BOB)).json
        assert info["key"] == "bob"
        assert [v["alias"] for m in info["models"] for v in m["variants"]] == ["plain"]


async def test_a_key_sees_its_own_requests_without_texts_and_one_with_audit_sees_all(tmp_path: Path) -> None:
    async with served(tmp_path, f"bad {HARM}", serve=KEYS) as (base, _):
        hers, theirs = await ask(base, "my question", headers=ANN), await ask(base, "other", "plain", headers=BOB)
        assert (await audited(base, hers, OPS)).json["query"] == "my question"
        whole = (await audited(base, theirs, OPS)).json
        assert whole["key"] == "bob"
        own = (await audited(base, hers, ANN)).json
        assert own["id"] == hers
        assert own["query"] is None
        assert all(c["text"] is None and c["original"] is None for c in own["choices"])
        assert (await get(f"{base}/playground/audit/{theirs}", ANN)).status == 404
        for path in ("", "?key=bob", "?limit=500"):
            listed = (await get(f"{base}/playground/audit{path}", ANN)).json["records"]
            assert [r["id"] for r in listed] == [hers]
            assert listed[0]["query"] is None
        assert {r["id"] for r in (await get(f"{base}/playground/audit", OPS)).json["records"]} == {hers, theirs}
        assert (await get(f"{base}/playground/audit/stats", ANN)).json["requests"] == 1
        assert (await get(f"{base}/playground/audit/stats", OPS)).json["requests"] == 2
        assert "lost" not in (await get(f"{base}/playground/audit/stats", ANN)).json


async def test_the_audit_filters_and_goes_on_page_by_page(tmp_path: Path) -> None:
    async with served(tmp_path, lambda body: HARM if "bad" in str(body["messages"]) else "fine") as (base, _):
        good = [await ask(base, "good") for _ in range(3)]
        bad = await ask(base, "bad")
        loose = await ask(base, "loose", "plain")
        await audited(base, loose)

        async def ids(query: str) -> list[str]:
            return [r["id"] for r in (await get(f"{base}/playground/audit?{query}")).json["records"]]

        assert await ids("label=harmful") == [bad]
        assert await ids("action=repaired") == [bad]
        assert await ids("unchecked=1") == [loose]
        assert await ids("alias=plain") == [loose]
        assert await ids("since=99999999999") == []
        first = (await get(f"{base}/playground/audit?limit=2&action=passed")).json
        second = (await get(f"{base}/playground/audit?limit=2&action=passed&cursor={first['next']}")).json
        assert [r["id"] for r in first["records"] + second["records"]] == good[::-1]
        for wrong in ("label=nothing", "cursor=no", "limit=many", "since=nan", "action=%00"):
            refused = await get(f"{base}/playground/audit?{wrong}")
            assert refused.status == 400, wrong
            assert refused.error["message"]


@pytest.mark.parametrize("headers", [{"host": "attacker.example"}, {"x-forwarded-for": "203.0.113.7"}, {"host": "localhost.attacker.example"}])  # fmt: skip  # noqa: E501
async def test_without_keys_the_audit_is_for_this_machine_only(tmp_path: Path, headers: dict[str, str]) -> None:
    async with served(tmp_path) as (base, _):
        ident = await ask(base, "hello")
        assert (await audited(base, ident)).status == 200
        for path in ("audit", "audit/stats", f"audit/{ident}"):
            refused = await get(f"{base}/playground/{path}", headers)
            assert refused.status == 403
            assert ident not in refused.body.decode()


async def test_a_missing_database_is_told_without_its_place(tmp_path: Path) -> None:
    async with served(tmp_path) as (base, _):
        await audited(base, await ask(base, "hello"))
        os.rename(tmp_path / "audit.db", tmp_path / "elsewhere")
        refused = await get(f"{base}/playground/audit")
        assert (refused.status, refused.error["code"]) == (503, "audit_unreadable")
        assert str(tmp_path) not in refused.body.decode()
        os.rename(tmp_path / "elsewhere", tmp_path / "audit.db")


async def test_switched_off_there_are_no_pages(tmp_path: Path) -> None:
    async with served(tmp_path, serve="playground: false") as (base, _):
        for path in ("/", "/audit", "/playground/info", "/playground/static/dom.js"):
            assert (await get(base + path)).status == 404


def test_no_file_parses_markup_or_names_another_host() -> None:
    markup = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|\beval\(|new Function|srcdoc"
        r"|DOMParser|setHTML|\bon\w+=|style="
    )
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        if file.suffix in (".js", ".html"):
            assert not markup.search(text), (file.name, markup.search(text))
        for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text):
            assert address == "http://www.w3.org", (file.name, address)  # the name of SVG's namespace


class _References(HTMLParser):
    """What a page loads, its ids, and what its labels and descriptions point at."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        self.files += [v for k in ("src", "href") if (v := given.get(k)) and "static/" in v]
        self.ids += [given["id"]] if "id" in given else []
        for name in ("for", "aria-labelledby", "aria-describedby"):
            self.named += given.get(name, "").split()


@pytest.mark.parametrize("name", ["index.html", "audit.html"])
def test_a_pages_files_and_names_exist(name: str) -> None:
    found = _References()
    found.feed((STATIC / name).read_text(encoding="utf-8"))
    assert found.files
    for file in found.files:
        assert (STATIC / file.removeprefix("playground/static/")).is_file()
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.named) <= set(found.ids)


def test_every_imported_module_is_shipped() -> None:
    for file in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', file.read_text(encoding="utf-8")):
            assert (STATIC / name).is_file(), (file.name, name)

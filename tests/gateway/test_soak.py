"""The soak of `benchmarks.gateway_soak`, for seconds instead of minutes."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from benchmarks import gateway_faults, gateway_soak
from benchmarks.gateway_faults import KINDS, Answer
from benchmarks.gateway_processes import bench
from benchmarks.gateway_soak import Sent


@pytest.mark.real
def test_twenty_seconds_of_mixed_load_with_faults(tmp_path: Path) -> None:
    with bench(tmp_path) as b:
        found = gateway_soak.run(b, seconds=20, clients=12)
    assert gateway_soak.faults(found) == []
    assert found["requests"] > 200
    assert len(found["kinds"]) >= 20, "nearly every kind was asked"
    assert found["reloads"] >= 3
    audit = found["audit"]
    assert audit["of those with a record"] == audit["clients that left"] > 0
    assert audit["outcomes"].keys() == {"answered", "client_error", "upstream_error", "guard_error", "disconnected"}
    assert found["resident MB"]["growth"] < 32


# What it would find: the checks themselves.


def kind(name: str, alias: str, *, stream: bool = False) -> gateway_faults.Kind:
    return next(k for k in KINDS if (k.name, k.alias, k.stream, k.image, k.more) == (name, alias, stream, False, {}))


def streamed(*texts: str, done: bool = True) -> Answer:
    events = [f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{t}"}}}}]}}\n\n' for t in texts]
    return Answer(200, "".join([*events, "data: [DONE]\n\n" * done]).encode(), {})


def test_a_piece_of_anothers_answer_a_missing_piece_and_a_missing_end_are_found() -> None:
    mark, text = "MARK-00000001", gateway_faults.text_of("MARK-00000001")
    check = kind("plain", "none", stream=True).check
    assert check(mark, streamed(text[:100], text[100:])) is None
    assert check(mark, streamed(text, " MARK-00000002-0-1")) == "another text"
    assert check(mark, streamed(text[:-1])) == "another text"
    assert check(mark, streamed(text, done=False)) is not None
    cut = kind("cut", "none", stream=True).check
    assert cut(mark, streamed(text[:50])) is not None, "a broken stream must not look whole"


def test_the_audits_gaps_are_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE audit_requests (id, key_name, alias, stream, status, outcome, query)")
        db.execute("CREATE TABLE audit_choices (request_id, text)")
        db.execute("CREATE TABLE audit_losses (records)")
        for row in (
            ("a", "red", "none", 0, 200, "answered", "MARK-00000001"),
            ("b", "blue", "none", 0, 200, "answered", "MARK-00000002"),  # red asked
            ("c", "red", "none", 0, 200, "answered", "MARK-00000001"),  # nobody asked for it, and a second one of it
            ("e", "red", "none", 0, 200, "answered", "MARK-00000004"),  # its client left as it was sent
        ):
            db.execute("INSERT INTO audit_requests VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO audit_choices VALUES ('a', 'MARK-00000002')")  # somebody else's answer
    plain = kind("plain", "none")
    sent = [Sent(f"MARK-0000000{n}", plain, "red", i, 200) for n, i in ((1, "a"), (2, "b"), (3, "d"))]
    sent.append(Sent("MARK-00000004", dataclasses.replace(plain, leaves=0.1), "red"))
    found = gateway_soak.audited(sent, path)
    assert (found["clients that left"], found["of those with a record"]) == (1, 1)
    assert found["answered without a record"] == 1
    assert found["records of another request"] == 2
    assert found["questions with two records"] == 1
    assert found["records nobody asked for"] == 1


def test_memory_that_grows_is_seen() -> None:
    flat = gateway_soak.memory([(t, 100 * 2**20) for t in range(60)], 60)
    assert flat["growth"] == 0
    grown = gateway_soak.memory([(t, (100 + t) * 2**20) for t in range(60)], 60)
    assert grown["growth"] > 30


async def test_the_fake_model_breaks_what_it_is_asked_to_break() -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def ask(text: str) -> None:
        body = f'{{"messages": [{{"role": "user", "content": "{text}"}}]}}'.encode()

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        sent.clear()
        async with asyncio.timeout(5):
            await gateway_faults.model({"type": "http"}, receive, send)

    await ask("MARK-00000007 KIND-plain")
    assert gateway_faults.text_of("MARK-00000007").encode() in sent[1]["body"]
    await ask("MARK-00000007 KIND-busy")
    assert sent[0]["status"] == 503
    with pytest.raises(ConnectionAbortedError):
        await ask("MARK-00000007 KIND-cut")

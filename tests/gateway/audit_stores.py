"""What both databases of the audit must do, written once; each test file brings the database."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from eyelid.gateway.audit.query import Filter
from eyelid.gateway.audit.read import Reader, open_reader
from eyelid.gateway.audit.schema import Loss, Rows
from eyelid.gateway.audit.settings import AuditConfig
from eyelid.gateway.audit.store import Store, open_store
from eyelid.gateway.audit.writer import Writer
from eyelid.gateway.record import Record
from eyelid.sections import Secret
from tests.gateway.records import PASSED, REFUSED, START, record, varied

HOSTILE = (
    "'; DROP TABLE audit_requests; --",
    "x' OR '1'='1",
    '" OR 1=1 --',
    "%",
    "_",
    "\\",
    "$1",
    "?",
    "{}",
    "a\\' UNION SELECT sha256 FROM keys --",
)


def config(database: Path | str, spill: Path, **changes: Any) -> AuditConfig:
    where: dict[str, Any] = {"path": database} if isinstance(database, Path) else {"postgres": Secret(database)}
    return AuditConfig(**{"flush_seconds": 0.01, "spill": spill, **where, **changes})


async def written(settings: AuditConfig, records: list[Record]) -> Writer:
    writer = Writer(settings)
    await writer.start()
    for r in records:
        writer.put(r)
    await writer.aclose()
    return writer


async def everything(reader: Reader, where: Filter | None = None) -> list[dict[str, Any]]:
    return [r async for r in reader.stream(where)]


async def ids(reader: Reader, **where: Any) -> list[str]:
    return [r["id"] for r in await everything(reader, Filter(**where))]


async def what_is_written_is_read(database: Path | str, spill: Path) -> None:
    """Every field of a record comes back under its own name."""
    whole = record(
        "r-whole",
        stream=True,
        stream_mode="window",
        upstream="openai:http://host:8000/v1#qwen",
        error="code",
        query="What does it say?",
        images=("cd" * 32, "ab" * 32),
        choices=(
            dataclasses.replace(PASSED, text="It says tea.", original="It says tea, he said."),
            dataclasses.replace(REFUSED, index=1, failure="judge: Timeout", unchecked_because="why"),
        ),
    )
    writer = await written(config(database, spill), [whole])
    assert writer.stats.written == 1
    assert not writer.stats.lost
    reader = open_reader(database)
    found = await reader.get("r-whole")
    await reader.aclose()
    expected = json.loads(json.dumps(dataclasses.asdict(whole)))
    del expected["traceparent"]  # not the audit's
    assert found == expected


async def values_that_no_column_takes(database: Path | str, spill: Path) -> None:
    """A server may send any number, a client any characters: none of it may cost a record, its neighbours' neither."""
    odd = dataclasses.replace(PASSED, harm=math.nan, text="half \ud83d pair and \0 nul", original="\U0001f512")
    records = [
        record("r-0"),
        record("r-odd", prompt_tokens=10**40, milliseconds=math.inf, choices=(odd,), query="\0", alias="a" * 100_000),
        record("r-1"),
    ]
    writer = await written(config(database, spill), records)
    assert (writer.stats.written, dict(writer.stats.lost)) == (3, {})
    reader = open_reader(database)
    found = await reader.get("r-odd")
    await reader.aclose()
    assert found is not None
    assert (found["prompt_tokens"], found["milliseconds"], found["query"]) == (None, None, "\ufffd")
    assert found["choices"][0]["harm"] is None
    assert found["choices"][0]["text"] == "half ? pair and \ufffd nul"
    assert found["choices"][0]["original"] == "\U0001f512"
    assert len(found["alias"]) == 256


async def filters(database: Path | str, spill: Path) -> None:
    await written(config(database, spill), varied())
    reader = open_reader(database)
    assert await ids(reader) == [r.id for r in reversed(varied())]
    assert await ids(reader, action="refused") == ["r-two", "r-upstream", "r-refused"]
    assert await ids(reader, action="refused", label="harmless") == []  # r-two has both, in two choices
    assert await ids(reader, label="harmful", key="alice") == ["r-two", "r-repaired"]
    assert await ids(reader, since=START + 7) == ["r-shed", "r-down"]
    assert await ids(reader, until=START + 1) == ["r-passed"]
    assert await ids(reader, outcome="upstream_error") == ["r-down"]
    assert await ids(reader, alias="qwen") == ["r-open"]
    assert await ids(reader, defense="ecso") == ["r-repaired"]
    assert await ids(reader, error="overloaded") == ["r-shed"]
    assert await ids(reader, unchecked=True) == ["r-open", "r-failed"]
    assert "r-open" not in (await ids(reader, image="ab" * 32))
    first = await reader.list(Filter(), 4)
    second = await reader.list(Filter(), 4, first["next"])
    third = await reader.list(Filter(), 4, second["next"])
    seen = [r["id"] for page in (first, second, third) for r in page["records"]]
    assert seen == [r.id for r in reversed(varied())]
    assert third["next"] is None
    await reader.aclose()


async def counts(database: Path | str, spill: Path) -> None:
    await written(config(database, spill), varied())
    reader = open_reader(database)
    found = await reader.stats()
    assert found["requests"] == 9
    assert found["outcomes"] == {"answered": 6, "guard_error": 1, "shed": 1, "upstream_error": 1}
    assert found["actions"] == {"passed": 2, "repaired": 1, "refused": 3, "failed": 1, "not_guarded": 1}
    assert found["actions_by_defense"]["hybrid"] == {"refused": 3, "passed": 2, "failed": 1}
    assert found["refused_by"] == {"guard": 2, "upstream": 1}
    assert found["labels"] == {"harmful": 3, "no verdict": 3, "harmless": 2}
    assert found["errors"]["upstream_error"] == {"upstream_unavailable": 1}
    assert found["failures"] == {"judge: BackendTimeout": 1}
    assert found["unchecked"] == {"no defence": 1, "the detector failed": 1}
    assert found["prompt_tokens"] == 8 * 650
    assert found["lost"] == {}
    nothing = await reader.stats(Filter(alias="nobody"))
    assert (nothing["requests"], nothing["outcomes"]) == (0, {})
    await reader.aclose()


async def nothing_is_sql(database: Path | str, spill: Path) -> None:
    """Through every filter, the id, the cursor, and every value that a client's header or model name brings."""
    names = ("alias", "key", "upstream", "defense", "error", "endpoint")
    records = [record(f"r-{i}", time=START + i, **dict.fromkeys(names, h)) for i, h in enumerate(HOSTILE)]
    records += [record(f"id {h}", time=START - 1, choices=()) for h in HOSTILE]
    writer = await written(config(database, spill), records)
    assert writer.stats.written == 2 * len(HOSTILE)
    reader = open_reader(database)
    for i, hostile in enumerate(HOSTILE):
        for name in ("alias", "key", "defense", "error"):
            assert await ids(reader, **{name: hostile}) == [f"r-{i}"]
        assert await ids(reader, image=hostile) == []
        found = await reader.get(f"id {hostile}")
        assert found is not None
        assert found["id"] == f"id {hostile}"
        assert await reader.get(hostile) is None
        stats = await reader.stats(Filter(alias=hostile))
        assert stats["requests"] == 1
        page = await reader.list(Filter(until=START), 1)
        while page["next"]:  # cursors that hold these ids
            page = await reader.list(Filter(until=START), 1, page["next"])
    assert len(await everything(reader)) == 2 * len(HOSTILE)
    await reader.aclose()


async def written_twice_is_there_once(database: Path | str, spill: Path) -> None:
    store = open_store(database)
    await asyncio.to_thread(twice, store)
    reader = open_reader(database)
    found = await everything(reader)
    assert [(r["id"], len(r["choices"]), len(r["images"])) for r in found] == [("r-two", 2, 1), ("r-passed", 1, 1)]
    await reader.aclose()


def twice(store: Store) -> None:
    batch = [Rows.of(r) for r in varied() if r.id in ("r-passed", "r-two")]
    store.open()
    store.write(batch)
    store.write(batch)
    store.close()


async def what_is_old_goes(database: Path | str, spill: Path) -> None:
    """Texts after 7 days, rows after 30, by a clock that the test moves."""
    day = 86400.0
    now = START + 100 * day
    text = dataclasses.replace(PASSED, text="words", original="other words")
    ages = {"r-31": 31.0, "r-29": 29.0, "r-8": 8.0, "r-6": 6.0, "r-0": 0.0}
    records = [record(i, time=now - age * day, query="words", choices=(text,)) for i, age in ages.items()]
    await written(config(database, spill, text=True, text_days=None), records)
    reader = open_reader(database)
    assert len(await ids(reader)) == 5  # without a time nothing goes
    settings = config(database, spill, text=True, text_days=7.0, retention_days=30.0)

    time = now + 1
    writer = Writer(settings, clock=lambda: time)
    await writer.start()
    await until(lambda: writer.stats.pruned >= 3)
    found = {r["id"]: r for r in await everything(reader)}
    assert set(found) == set(ages) - {"r-31"}
    texts = {i: (r["query"], r["choices"][0]["text"], r["choices"][0]["original"]) for i, r in found.items()}
    gone, there = (None, None, None), ("words", "words", "other words")
    assert texts == {"r-29": gone, "r-8": gone, "r-6": there, "r-0": there}
    assert found["r-29"]["choices"][0]["harm"] == 0.02

    time = now + 2 * day  # while it runs
    writer.put(record("r-new", time=time))
    await until(lambda: writer.stats.pruned >= 5)
    assert await ids(reader) == ["r-new", "r-0", "r-6", "r-8"]
    assert (await reader.get("r-6") or {})["query"] is None
    await writer.aclose()
    await reader.aclose()


async def losses_are_told(database: Path | str, spill: Path) -> None:
    store = open_store(database)

    def write() -> None:
        store.open()
        store.write([Rows.of(record())], [Loss(START, 3, "queue_full"), Loss(START + 9, 4, "queue_full")])
        store.close()

    await asyncio.to_thread(write)
    reader = open_reader(database)
    assert (await reader.stats())["lost"] == {"queue_full": 7}
    assert (await reader.stats(Filter(until=START + 1)))["lost"] == {"queue_full": 3}
    await reader.aclose()


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Waits for what another thread does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def two_processes_start_at_once(database: Path | str) -> None:
    """Both bring an empty database up to date; both succeed, and the tables are made once."""
    code = """
import sys, time
from pathlib import Path
from eyelid.gateway.audit.schema import Rows
from eyelid.gateway.audit.store import open_store
from tests.gateway.records import record
kind, address, name, at = sys.argv[1:]
store = open_store(Path(address) if kind == "path" else address)
time.sleep(max(0, float(at) - time.time()))
store.open()
store.write([Rows.of(record(name))])
store.close()
"""
    import time

    kind, at = ("path" if isinstance(database, Path) else "postgres"), time.time() + 1.0
    line = [sys.executable, "-c", code, kind, str(database)]
    started = [
        await asyncio.create_subprocess_exec(*line, f"r-{i}", str(at), stderr=asyncio.subprocess.PIPE) for i in range(4)
    ]
    for process in started:
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
    reader = open_reader(database)
    assert sorted(await ids(reader)) == ["r-0", "r-1", "r-2", "r-3"]
    await reader.aclose()

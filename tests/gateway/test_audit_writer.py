"""What the audit's writer promises: it holds nothing up, and what it loses it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eyelid.errors import ConfigError
from eyelid.gateway.audit import delivery, waiting
from eyelid.gateway.audit.hashing import Hasher, hasher, secret_file
from eyelid.gateway.audit.read import open_reader
from eyelid.gateway.audit.schema import Loss, Rows
from eyelid.gateway.audit.settings import AuditConfig
from eyelid.gateway.audit.sqlite import SQLite
from eyelid.gateway.audit.store import StoreDown
from eyelid.gateway.audit.writer import Writer
from eyelid.gateway.record import Sink
from eyelid.sections import Secret
from tests.gateway.audit_stores import config, ids, until
from tests.gateway.records import PASSED, record


class Fickle:
    """A real store that can be told to fail; counts what it was asked."""

    name = "fickle"

    def __init__(self, path: Path):
        self.store, self.fails, self.tried = SQLite(path), "", 0

    def open(self) -> None:
        self._check()
        self.store.open()

    def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        self._check()
        self.store.write(batch, losses)

    def prune(self, *, rows_before: float | None, texts_before: float | None, limit: int) -> int:
        return self.store.prune(rows_before=rows_before, texts_before=texts_before, limit=limit)

    def close(self) -> None:
        self.store.close()

    def _check(self) -> None:
        self.tried += 1
        if self.fails:
            self.store.close()
            raise StoreDown(self.fails)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(delivery, "LAST_DELAY", 0.05)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


async def read(place: Path, **where: Any) -> list[str]:
    async with open_reader(place) as reader:
        return await ids(reader, **where)


async def test_it_is_a_sink_and_closing_loses_nothing(place: Path, tmp_path: Path) -> None:
    writer = Writer(config(place, tmp_path / "spill", flush_seconds=30.0))
    assert isinstance(writer, Sink)
    await writer.start()
    for i in range(1234):
        writer.put(record(f"r-{i}"))
    await writer.aclose()
    await writer.aclose()
    assert sorted(await read(place)) == sorted(f"r-{i}" for i in range(1234))
    assert writer.spilled_bytes == 0
    writer.put(record("late"))
    assert writer.stats.lost == {"closed": 1}


async def test_records_of_several_threads_and_batches(place: Path, tmp_path: Path) -> None:
    writer = Writer(config(place, tmp_path / "spill"))
    await writer.start()

    def put(name: str) -> None:
        for i in range(700):
            writer.put(record(f"{name}-{i}"))

    await asyncio.gather(*(asyncio.to_thread(put, n) for n in "abc"))
    await writer.aclose()
    assert len(await read(place)) == 2100
    assert writer.stats.written == 2100


async def test_a_full_queue_is_counted_logged_and_told_to_the_database(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the database nor the file takes anything: the queue fills, `put` goes on returning."""
    store = Fickle(place)
    writer = Writer(config(place, tmp_path / "spill", queue=10, spill_bytes=0), store)
    await writer.start()
    store.fails = "full"
    for i in range(25):
        writer.put(record(f"r-{i}"))
    await until(lambda: writer.stats.failures["spill_full"] > 0)
    assert (writer.queued, writer.stats.up, dict(writer.stats.lost)) == (10, False, {"queue_full": 15})
    store.fails = ""
    await until(lambda: writer.queued == 0)
    writer.put(record("r-99"))
    await writer.aclose()
    assert await read(place) == sorted([*(f"r-{i}" for i in range(10)), "r-99"], reverse=True)
    async with open_reader(place) as reader:
        assert (await reader.stats())["requests"] == 11
        assert (await reader.stats())["lost"] == {"queue_full": 15}
    said = [r.getMessage() for r in caplog.records if r.name == "eyelid.audit"]
    assert sum("cannot be written (full)" in s for s in said) == 1  # an outage is said once, not at each attempt
    assert any("lost: {'queue_full': 15}" in s for s in said)
    assert any("back" in s for s in said)


async def test_texts_that_wait_are_bounded_by_their_length(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 1000)
    writer = Writer(config(place, tmp_path / "spill", flush_seconds=30.0))
    await writer.start()
    for i in range(5):
        writer.put(record(f"r-{i}", query="x" * 400))
    assert writer.stats.lost == {"queue_full": 3}
    await writer.aclose()
    assert await read(place) == ["r-1", "r-0"]
    assert writer._waiting._texts == 0


async def test_a_disk_that_is_full_for_a_while(place: Path, tmp_path: Path) -> None:
    """SQLite's own error (a bound on the file's pages stands for the disk); the file beside it is on the same disk."""
    bound: list[int] = [1_000_000]

    class Small(SQLite):
        def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
            assert self._connection is not None
            self._connection.execute(f"PRAGMA max_page_count={bound[0]}").fetchall()
            super().write(batch, losses)

    writer = Writer(config(place, tmp_path / "spill", spill_bytes=0), Small(place))
    await writer.start()
    writer.put(record("r-first"))
    await until(lambda: writer.stats.written == 1)
    bound[0] = 1
    for i in range(200):
        writer.put(record(f"r-{i}", query="words " * 100))
    await until(lambda: writer.stats.failures["full"] >= 2)
    assert not writer.stats.up
    bound[0] = 1_000_000
    await until(lambda: writer.stats.up and writer.queued == 0)
    await writer.aclose()
    assert len(await read(place)) == 201
    assert writer.stats.lost == {}


async def test_a_database_that_another_process_holds_locked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyelid.gateway.audit.sqlite.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("eyelid.gateway.audit.sqlite.MIGRATION_SECONDS", 0.05)
    writer = Writer(config(place, tmp_path / "spill"))
    await writer.start()
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for i in range(30):
        writer.put(record(f"r-{i}", query="words"))
    await until(lambda: writer.stats.spilled == 30)
    assert writer.stats.failures["locked"] >= 1
    (file,) = (tmp_path / "spill").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert writer.spilled_bytes == file.stat().st_size > 0
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: writer.stats.replayed == 30)
    await writer.aclose()
    assert len(await read(place)) == 30
    assert list((tmp_path / "spill").iterdir()) == []


async def test_closed_while_the_database_is_away_the_file_keeps_what_there_is(place: Path, tmp_path: Path) -> None:
    store = Fickle(place)
    settings = config(place, tmp_path / "spill")
    writer = Writer(settings, store)
    store.fails = "unreachable"
    await writer.start()  # away just now is no reason not to serve
    for i in range(1200):
        writer.put(record(f"r-{i}"))
    await writer.aclose()
    assert writer.stats.spilled == 1200
    assert writer.stats.lost == {}
    again = Writer(settings)
    await again.start()
    await until(lambda: again.stats.replayed == 1200)
    await again.aclose()
    assert len(await read(place)) == 1200


async def test_what_comes_while_others_are_spilled_is_not_left_till_the_database_is_asked_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FIRST_DELAY", 600.0)
    monkeypatch.setattr(delivery, "LAST_DELAY", 600.0)
    store = Fickle(place)
    writer = Writer(config(place, tmp_path / "spill"), store)
    store.fails = "unreachable"
    add, late = writer._spill.add, [record("late")]

    def slow(batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        while late:
            writer.put(late.pop())
        add(batch, losses)

    monkeypatch.setattr(writer._spill, "add", slow)
    await writer.start()
    writer.put(record("early"))
    try:
        await until(lambda: writer.stats.spilled == 2)
    finally:
        await writer.aclose()


async def test_closed_while_nothing_takes_anything_the_loss_is_said(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Fickle(place)
    writer = Writer(config(place, tmp_path / "spill", spill_bytes=0), store)
    store.fails = "full"
    await writer.start()
    for i in range(7):
        writer.put(record(f"r-{i}"))
    await writer.aclose()
    assert writer.stats.lost == {"closing": 7}
    assert "audit records were lost: {'closing': 7}" in caplog.text


async def test_a_record_that_the_database_refuses_does_not_hold_up_the_others(place: Path, tmp_path: Path) -> None:
    class Picky(Fickle):
        def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
            if any(b.request[0] == "r-5" for b in batch):
                raise sqlite3.IntegrityError("no")
            super().write(batch, losses)

    writer = Writer(config(place, tmp_path / "spill"), Picky(place))
    await writer.start()
    for i in range(10):
        writer.put(record(f"r-{i}"))
    await writer.aclose()
    assert len(await read(place)) == 9
    assert writer.stats.lost == {"unwritable": 1}
    async with open_reader(place) as reader:
        assert (await reader.stats())["lost"] == {"unwritable": 1}


async def test_a_torn_line_is_one_loss_and_a_file_in_use_is_left_alone(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    store = Fickle(place)
    settings = config(place, folder)
    living = Writer(settings, store)
    store.fails = "unreachable"
    await living.start()
    living.put(record("r-living"))
    await until(lambda: living.stats.spilled == 1)
    (used,) = folder.iterdir()
    line = json.dumps(Rows.of(record("r-dead")).as_json())
    (folder / "dead.jsonl").write_text(f'{line}\n{line[:40]}\n[]\n{{"request": 3, "choices": [], "images": []}}\n')
    other = Writer(settings)
    await other.start()
    await until(lambda: other.stats.replayed == 1)
    assert list(folder.iterdir()) == [used]
    await other.aclose()
    assert other.stats.lost == {"torn": 3}
    assert await read(place) == ["r-dead"]
    store.fails = ""
    await until(lambda: living.stats.replayed == 1)
    await living.aclose()
    assert sorted(await read(place)) == ["r-dead", "r-living"]


async def test_what_breaks_while_running_never_reaches_who_puts(place: Path, tmp_path: Path) -> None:
    """Not even an audit that becomes a newer one, or a defect."""

    class Broken(Fickle):
        def open(self) -> None:
            if self.fails == "newer":
                raise ConfigError("newer")
            super().open()

        def prune(self, **_: Any) -> int:
            raise RuntimeError("a defect")

    store = Broken(place)
    writer = Writer(config(place, tmp_path / "spill", retention_days=1.0), store)
    await writer.start()
    writer.put(record("r-1"))
    await until(lambda: writer.stats.failures["defect"] >= 1 and writer.stats.written == 1)
    store.fails = "unreachable"
    writer.put(record("r-2"))
    await until(lambda: not writer.stats.up)
    store.fails = "newer"
    await until(lambda: writer.stats.failures["refused"] >= 1)
    store.fails = ""
    await until(lambda: writer.stats.replayed == 1)
    await writer.aclose()
    assert sorted(await read(place)) == ["r-1", "r-2"]


async def test_a_wrong_database_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to say so " * 40)
    with pytest.raises(ConfigError, match="cannot use the audit"):
        await Writer(config(tmp_path / "text", tmp_path / "spill")).start()


CHILD = """
import asyncio, signal, sys, time
from pathlib import Path
from eyelid.gateway.audit.settings import AuditConfig
from eyelid.gateway.audit.writer import Writer
from tests.gateway.records import record

async def main():
    writer = Writer(AuditConfig(path=Path(sys.argv[1]), flush_seconds=float(sys.argv[2])))
    await writer.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    n = 0
    while not ended.is_set():
        for _ in range(5):
            writer.put(record(f"r-{n}", time=time.time()))
            n += 1
        if n == 200:
            print("going", flush=True)
        await asyncio.sleep(0.001)
    if "close" in sys.argv:
        await writer.aclose()
    print(n, flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def child(place: Path, flush: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-c", CHILD, str(place), str(flush), *more]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "going\n"
            yield process
        finally:
            process.kill()


def stored(place: Path) -> list[tuple[str, float]]:
    c = sqlite3.connect(place)
    found = c.execute("SELECT id, started FROM audit_requests").fetchall()
    c.close()
    return sorted(found, key=lambda row: int(row[0][2:]))


@pytest.mark.parametrize("close", ["close", "exit without closing"])
def test_a_process_that_is_told_to_end_loses_nothing(close: str, place: Path) -> None:
    with child(place, 20.0, close) as process:
        process.send_signal(signal.SIGTERM)
        put = int(process.communicate(timeout=30)[0])
    assert put >= 200
    assert [i for i, _ in stored(place)] == [f"r-{i}" for i in range(put)]


def test_a_process_that_is_killed_loses_at_most_what_waited_for_its_flush(place: Path) -> None:
    with child(place, 0.2) as process:
        while not stored_some(place):
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
        killed = time.time()
        process.wait()
    rows = stored(place)
    assert [i for i, _ in rows] == [f"r-{i}" for i in range(len(rows))]  # no gaps
    # The interval, and generously the time that a busy machine takes to write a batch.
    assert killed - rows[-1][1] < 0.2 + 2.0
    c = sqlite3.connect(place)
    assert c.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert c.execute("SELECT count(*) FROM audit_choices").fetchone() == (len(rows),)  # whole records only
    c.close()


def stored_some(place: Path) -> bool:
    try:
        return bool(stored(place))
    except sqlite3.OperationalError:  # not made yet
        return False


def test_images_get_one_hash_per_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.delenv("EYELID_AUDIT_SECRET", raising=False)
    settings = AuditConfig(path=tmp_path / "a" / "audit.db")
    first = hasher(settings).of(b"image")
    assert hasher(settings).of(b"image") == first
    assert hasher(settings).of_sha256(hashlib.sha256(b"image").hexdigest()) == first
    assert first not in (hashlib.sha256(b"image").hexdigest(), hasher(settings).of(b"other"))
    file = secret_file(settings)
    assert file == tmp_path / "a" / "audit.db.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(p.name for p in file.parent.iterdir()) == ["audit.db.secret"]  # no drafts
    assert hasher(AuditConfig(path=tmp_path / "b" / "audit.db")).of(b"image") != first
    file.unlink()
    assert hasher(settings).of(b"image") != first
    monkeypatch.setenv("EYELID_AUDIT_SECRET", "e" * 32)
    assert hasher(settings).of(b"image") == Hasher("e" * 32).of(b"image")
    given = AuditConfig(path=tmp_path / "c.db", secret=Secret("g" * 32))
    assert hasher(given).of(b"image") == Hasher("g" * 32).of(b"image")
    monkeypatch.setenv("EYELID_AUDIT_SECRET", "short")
    with pytest.raises(ConfigError, match="EYELID_AUDIT_SECRET must have at least 32"):
        hasher(settings)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"path": Path("a"), "postgres": Secret("postgresql://a/b")}, "path and postgres"),
        ({"postgres": Secret("mysql://swordfish@a/b")}, "postgres is not the address"),
        ({"retention_days": 0.0}, "retention_days must be above 0"),
        ({"text_days": -1.0}, "text_days must be above 0"),
        ({"secret": Secret("swordfish")}, "secret must have at least 32"),
        ({"flush_seconds": 0.0}, "flush_seconds"),
        ({"queue": 0}, "queue"),
        ({"spill_bytes": -1}, "spill_bytes"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        AuditConfig(**given)
    assert "swordfish" not in str(caught.value) + caught.value.hint


async def test_the_log_tells_nothing_of_a_request(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = Fickle(place)
    writer = Writer(config(place, tmp_path / "spill", spill_bytes=0, queue=1), store)
    await writer.start()
    store.fails = "full"
    import dataclasses

    secret = dataclasses.replace(PASSED, text="swordfish", original="swordfish")
    for _ in range(9):
        writer.put(record("swordfish", query="swordfish", alias="swordfish", choices=(secret,)))
    await until(lambda: writer.stats.failures["spill_full"] > 0)
    await writer.aclose()
    assert "lost" in caplog.text
    assert "swordfish" not in caplog.text


async def test_put_does_no_more_than_queue(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a write hangs in the thread, `put` and the event loop go on."""
    import threading

    hung, go = threading.Event(), threading.Event()

    class Hanging(Fickle):
        def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
            hung.set()
            assert go.wait(30)
            super().write(batch, losses)

    writer = Writer(config(place, tmp_path / "spill"), Hanging(place))
    await writer.start()
    writer.put(record("r-0"))
    await until(hung.is_set)
    for i in range(1, 2000):
        writer.put(record(f"r-{i}"))
    assert writer.queued == 2000  # the batch under way is in the queue until it is written
    go.set()
    await writer.aclose()
    assert len(await read(place)) == 2000


async def test_two_writers_share_one_file(place: Path, tmp_path: Path) -> None:
    """As two processes of one machine do: each waits for the other's transaction, none loses anything."""
    writers = [Writer(config(place, tmp_path / "spill")) for _ in range(2)]
    await asyncio.gather(*(w.start() for w in writers))
    for i in range(400):
        for n, writer in enumerate(writers):
            writer.put(record(f"r-{n}-{i}"))
        await asyncio.sleep(0.0005)
    await asyncio.gather(*(w.aclose() for w in writers))
    assert len(await read(place)) == 800
    assert [dict(w.stats.lost) for w in writers] == [{}, {}]

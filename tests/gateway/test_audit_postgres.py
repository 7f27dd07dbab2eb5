"""The audit in a real PostgreSQL, which these tests start themselves."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyelid import extras
from eyelid.errors import BackendUnavailable, ConfigError, InputError
from eyelid.gateway.audit.read import open_reader
from eyelid.gateway.audit.schema import MIGRATIONS, Rows
from eyelid.gateway.audit.writer import Writer
from tests.gateway import audit_stores, postgres_server
from tests.gateway.records import record
from tests.gateway.test_audit_sqlite import SHARED

pytestmark = pytest.mark.real

numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.Server]:
    programs = postgres_server.binaries()
    if programs is None:
        pytest.skip("PostgreSQL's initdb is not here (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("asyncpg") is None:
        pytest.skip(f"asyncpg is not installed: {extras.install('postgres')}")
    server = postgres_server.Server(programs)
    yield server
    server.remove()


@pytest.fixture
def database(server: postgres_server.Server) -> str:
    return server.create(f"audit{next(numbers)}")


@pytest.mark.parametrize("check", SHARED, ids=lambda c: c.__name__)
async def test_as_every_database(check: object, database: str, tmp_path: Path) -> None:
    await check(database, tmp_path / "spill")  # type: ignore[operator]


async def test_two_processes_start_at_once(database: str) -> None:
    await audit_stores.two_processes_start_at_once(database)


async def test_an_older_audit_is_brought_up_to_date_and_a_newer_one_refused(database: str) -> None:
    from eyelid.gateway.audit.postgres import Postgres

    further = (*MIGRATIONS, ("ALTER TABLE audit_requests ADD COLUMN region TEXT",))

    def grow() -> None:
        old = Postgres(database)
        old.open()
        old.write([Rows.of(record())])
        old.close()
        for _ in range(2):
            new = Postgres(database, migrations=further)
            new.open()
            new.write([Rows.of(record("r-2"))])
            new.close()
        with pytest.raises(ConfigError, match="of version 2, and this eyelid knows versions up to 1"):
            Postgres(database).open()

    await asyncio.to_thread(grow)
    async with open_reader(database) as reader:
        with pytest.raises(ConfigError, match="of version 2"):
            await reader.list()


async def test_a_server_that_goes_away_costs_no_record(server: postgres_server.Server, tmp_path: Path) -> None:
    """Stopped hard in the middle and started again: what came meanwhile waited in a file."""
    address = server.create(f"audit{next(numbers)}")
    settings = audit_stores.config(address, tmp_path / "spill")
    writer = Writer(settings)
    await writer.start()
    reader = open_reader(address)
    writer.put(record("before"))
    await audit_stores.until(lambda: writer.stats.written == 1)
    assert len((await reader.list())["records"]) == 1
    await asyncio.to_thread(server.stop, "immediate")
    for i in range(50):
        writer.put(record(f"during-{i}"))
        await asyncio.sleep(0.001)
    await audit_stores.until(lambda: writer.stats.spilled == 50)
    assert (writer.stats.up, writer.queued) == (False, 0)
    with pytest.raises(BackendUnavailable, match="cannot be read just now"):
        await reader.list()
    await asyncio.to_thread(server.start)
    writer.put(record("after"))
    await audit_stores.until(lambda: writer.stats.up and writer.stats.written == 52)
    await writer.aclose()
    assert len(await audit_stores.ids(reader)) == 52  # the reader came back, too
    await reader.aclose()
    assert writer.stats.lost == {}
    assert writer.stats.failures["unreachable"] >= 1
    assert list((tmp_path / "spill").iterdir()) == []


async def test_stopped_while_the_server_is_away_the_next_start_writes_what_waited(
    server: postgres_server.Server, tmp_path: Path
) -> None:
    address = server.create(f"audit{next(numbers)}")
    settings = audit_stores.config(address, tmp_path / "spill")
    await asyncio.to_thread(server.stop)
    try:
        writer = Writer(settings)
        await writer.start()  # not there just now: no reason not to serve
        for i in range(10):
            writer.put(record(f"r-{i}"))
        await writer.aclose()
        assert (writer.stats.spilled, dict(writer.stats.lost)) == (10, {})
    finally:
        await asyncio.to_thread(server.start)
    writer = Writer(settings)
    await writer.start()
    await audit_stores.until(lambda: writer.stats.replayed == 10)
    writer.put(record("r-10"))
    await writer.aclose()
    reader = open_reader(address)
    assert len(await audit_stores.ids(reader)) == 11
    await reader.aclose()


@pytest.mark.parametrize(
    ("wrong", "says"), [("nodatabase", "InvalidCatalogNameError"), ("nobody@", "InvalidAuthorizationSpecification")]
)
async def test_a_wrong_address_is_said_at_the_start_without_its_password(
    wrong: str, says: str, server: postgres_server.Server, tmp_path: Path
) -> None:
    address = server.address("nodatabase") if wrong == "nodatabase" else server.address().replace("eyelid@", wrong)
    address = address.replace("@", ":swordfish@")
    with pytest.raises(ConfigError, match=says) as caught:
        await Writer(audit_stores.config(address, tmp_path / "spill")).start()
    assert "swordfish" not in str(caught.value) + caught.value.hint
    with pytest.raises(ConfigError, match=says):
        await open_reader(address).list()


async def test_a_database_without_an_audit_is_told_to_the_reader(database: str) -> None:
    async with open_reader(database) as reader:
        with pytest.raises(InputError, match="holds no audit"):
            await reader.list()


async def test_the_reader_cannot_write(database: str, tmp_path: Path) -> None:
    await audit_stores.written(audit_stores.config(database, tmp_path / "spill"), [record()])
    reader = open_reader(database)
    with pytest.raises(BackendUnavailable):
        await reader._source.ask([("DELETE FROM audit_requests", [])])
    assert await audit_stores.ids(reader) == ["req-1"]
    await reader.aclose()


async def test_the_command_line_reads_it(database: str, tmp_path: Path) -> None:
    await audit_stores.written(audit_stores.config(database, tmp_path / "spill"), [record()])
    file = tmp_path / "eyelid.yaml"
    file.write_text("serve:\n  audit:\n    postgres: ${AUDIT_DATABASE}\n")
    line = [sys.executable, "-m", "eyelid", "audit", "list", "--config", str(file), "--json"]
    environ = {**os.environ, "AUDIT_DATABASE": database}
    done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert '"id": "req-1"' in done.stdout

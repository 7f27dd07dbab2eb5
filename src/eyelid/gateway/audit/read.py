"""Reading the audit while others write it: lists, one request, an export, counts. For command line and pages."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import BackendUnavailable, ConfigError, InputError
from .query import MAX_PAGE, Filter, below, counts, cursor_after, losses, one, page, shaped, summed
from .schema import MIGRATIONS, check_version, numbered
from .store import StoreDown, need_driver

if TYPE_CHECKING:
    import asyncpg

Asked = Sequence[tuple[str, Sequence[object]]]
Answers = list[list[tuple[object, ...]]]
Records = list[dict[str, Any]]


class _Source(Protocol):
    """Runs queries on a database, reading only. Raises InputError or ConfigError where it is no audit."""

    async def ask(self, queries: Asked) -> Answers: ...

    async def aclose(self) -> None: ...


class Reader:
    """An audit to read; `open_reader` makes one. Everything that comes out is JSON-ready. `async with` closes it."""

    def __init__(self, source: _Source):
        self._source = source

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def list(self, where: Filter | None = None, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """`{"records": [...], "next": cursor or None}`, newest first, at most `limit` (up to 500) records.

        A record has the fields of `gateway.record.Record`. Raises InputError for a cursor that is none.
        """
        limit = max(1, min(limit, MAX_PAGE))
        (rows,) = await self._source.ask([page(where or Filter(), limit, cursor)])
        records = await self._whole(rows)
        return {"records": records, "next": cursor_after(records[-1]) if len(records) == limit else None}

    async def get(self, ident: str) -> dict[str, Any] | None:
        """One request by its audit id; None if there is none."""
        if "\0" in ident:
            return None
        (rows,) = await self._source.ask([(one(), [ident])])
        return next(iter(await self._whole(rows)), None)

    async def stream(self, where: Filter | None = None, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """All that fit, newest first, read page by page, so that no transaction holds up the writer."""
        cursor, left = None, limit
        while left is None or left > 0:
            found = await self.list(where, MAX_PAGE if left is None else min(left, MAX_PAGE), cursor)
            for record in found["records"]:
                yield record
            cursor = found["next"]
            if cursor is None:
                return
            left = None if left is None else left - len(found["records"])

    async def stats(self, where: Filter | None = None) -> dict[str, Any]:
        """Counts. `actions` are of choices, `outcomes` and `errors` of requests: what broke is never among refusals."""
        asked = counts(where or Filter()) | {"lost": losses(where or Filter())}
        found = await self._source.ask(list(asked.values()))
        return summed(dict(zip(asked, found, strict=True)))

    async def aclose(self) -> None:
        await self._source.aclose()

    async def _whole(self, rows: Sequence[Sequence[object]]) -> Records:
        if not rows:
            return []
        idents = [row[0] for row in rows]
        choices, images = await self._source.ask([(sql, idents) for sql in below(len(idents))])
        return shaped(rows, choices, images)


def open_reader(database: Path | str) -> Reader:
    """A reader of a SQLite file or of a PostgreSQL address. Nothing is opened before the first question."""
    if isinstance(database, Path):
        return Reader(_SQLite(database))
    need_driver()
    return Reader(_Postgres(database))


class _SQLite:
    """Opens the file anew for each question: it may be replaced, and readers must not keep the log from shrinking."""

    def __init__(self, path: Path):
        self.path = path

    async def ask(self, queries: Asked) -> Answers:
        return await asyncio.to_thread(self._ask, queries)

    async def aclose(self) -> None:
        """Nothing stays open."""

    def _ask(self, queries: Asked) -> Answers:
        if not self.path.is_file():
            hint = "name the database with --db or --config; a gateway makes it when it starts"
            raise InputError(f"there is no audit at {str(self.path)!r}", hint=hint)
        try:
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10, isolation_level=None)) as c:
                c.execute("BEGIN")  # all answers from one moment
                tables = c.execute("SELECT count(*) FROM sqlite_master WHERE name = 'audit_schema'").fetchone()[0]
                version = c.execute("SELECT max(version) FROM audit_schema").fetchone()[0] if tables else None
                _check(version, f"SQLite file {str(self.path)!r}")
                return [c.execute(sql, tuple(values)).fetchall() for sql, values in queries]
        except sqlite3.Error as e:
            code = getattr(e, "sqlite_errorname", type(e).__name__)
            hint = "check that it is an audit, and that this user may read and write it and its folder (-wal, -shm)"
            raise InputError(f"cannot read the audit {str(self.path)!r} ({code})", hint=hint) from None


class _Postgres:
    """One connection, opened with the first question and again after it was lost; one question at a time."""

    def __init__(self, address: str):
        self._address = address
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()

    async def ask(self, queries: Asked) -> Answers:
        import asyncpg

        from .postgres import connect, reason

        async with self._lock:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._address, default_transaction_read_only="on")
                async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                    known = await self._connection.fetchval("SELECT to_regclass('audit_schema') IS NOT NULL")
                    sql = "SELECT max(version) FROM audit_schema"
                    _check(await self._connection.fetchval(sql) if known else None, "the audit's PostgreSQL database")
                    found = [await self._connection.fetch(numbered(sql), *values) for sql, values in queries]
                    return [[tuple(row) for row in rows] for rows in found]
            except StoreDown as e:
                raise _away(e.reason) from None
            except asyncpg.InsufficientPrivilegeError:
                hint = "grant the user of the address the right to read the audit's tables"
                raise ConfigError("the audit's PostgreSQL refused us", hint=hint) from None
            except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as e:
                self._connection.terminate() if self._connection is not None else None
                self._connection = None
                raise _away(reason(e)) from None

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(timeout=2)


def _away(reason: str) -> BackendUnavailable:
    return BackendUnavailable(f"the audit's PostgreSQL cannot be read just now ({reason})", hint="try again later")


def _check(version: object, name: str) -> None:
    if not isinstance(version, int):
        raise InputError(f"{name} holds no audit", hint="a gateway that is told to write there makes it")
    check_version(version, len(MIGRATIONS), name)

"""The audit in PostgreSQL. The writer's thread has an event loop of its own, which asyncpg runs in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from ...errors import ConfigError
from .schema import (
    INSERT_LOSS,
    INSERTS,
    MIGRATIONS,
    OLD,
    OLD_TEXTS,
    TEXTS,
    VERSIONS,
    Loss,
    Rows,
    check_version,
    numbered,
    written,
)
from .store import StoreDown

CONNECT_SECONDS, COMMAND_SECONDS = 5.0, 10.0
#: Of the advisory lock under which the tables are brought up to date: any number that no one else uses.
LOCK = 0x6579656C6964
#: What no waiting mends.
_HOPELESS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)
_DOWN = (OSError, asyncio.TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
#: The server is there and cannot serve: shutting down, out of connections, disk full, read-only.
_UNABLE = (
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)

T = TypeVar("T")


async def connect(address: str, **settings: str) -> asyncpg.Connection[Any]:
    """A connection to the audit's database. Raises ConfigError where no waiting helps, else StoreDown."""
    try:
        # No statement cache: poolers that give every transaction another server connection do not know its names.
        return await asyncpg.connect(
            address,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            statement_cache_size=0,
            server_settings={"application_name": "eyelid audit", **settings},
        )
    except _HOPELESS as e:
        hint = "check the address: user, password, database, and that the user may use it"
        raise ConfigError(f"the audit's PostgreSQL refused us ({type(e).__name__})", hint=hint) from None
    except (ValueError, TypeError):
        hint = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE; special characters in it are written as %XX"
        raise ConfigError("the audit's PostgreSQL address cannot be read", hint=hint) from None
    except (*_DOWN, *_UNABLE) as e:
        raise StoreDown(reason(e)) from None


class Postgres:
    """A database of a server, over asyncpg in an event loop of the writer's thread. A `Store`."""

    name = "the audit's PostgreSQL database"

    def __init__(self, address: str, *, migrations: Sequence[Sequence[str]] = MIGRATIONS):
        self._address, self._migrations = address, migrations
        self._runner: asyncio.Runner | None = None
        self._connection: asyncpg.Connection[Any] | None = None

    def open(self) -> None:
        self.close()
        self._runner = asyncio.Runner()
        try:
            self._connection = self._runner.run(connect(self._address))
            self._do(self._migrate)
        except BaseException:
            self.close()
            raise

    def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        async def insert(c: asyncpg.Connection[Any]) -> None:
            async with c.transaction():
                for sql, rows in zip(INSERTS, written(batch), strict=True):
                    if rows:
                        await c.executemany(numbered(sql), rows)
                if losses:
                    await c.executemany(numbered(INSERT_LOSS), [loss.row for loss in losses])

        self._do(insert)

    def prune(self, *, rows_before: float | None, texts_before: float | None, limit: int) -> int:
        async def delete(c: asyncpg.Connection[Any]) -> int:
            changed = 0
            async with c.transaction():
                if rows_before is not None:
                    old = [r["id"] for r in await c.fetch(numbered(OLD), rows_before, limit)]
                    for table, column in (("choices", "request_id"), ("images", "request_id"), ("requests", "id")):
                        await c.execute(f"DELETE FROM audit_{table} WHERE {column} = ANY($1::text[])", old)
                    changed += len(old)
                if texts_before is not None:
                    old = [r["id"] for r in await c.fetch(numbered(OLD_TEXTS), texts_before, limit)]
                    for table, columns in TEXTS.items():
                        key = "id" if table == "audit_requests" else "request_id"
                        sets = ", ".join(f"{column} = NULL" for column in columns)
                        await c.execute(f"UPDATE {table} SET {sets} WHERE {key} = ANY($1::text[])", old)
                    changed += len(old)
            return changed

        return self._do(delete)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        runner, self._runner = self._runner, None
        if runner is not None:
            if connection is not None:
                runner.run(_end(connection))
            runner.close()

    async def _migrate(self, c: asyncpg.Connection[Any]) -> None:
        async with c.transaction():
            await c.execute("SELECT pg_advisory_xact_lock($1)", LOCK)  # one process at a time
            await c.execute(VERSIONS)
            found = await c.fetchval("SELECT coalesce(max(version), 0) FROM audit_schema")
            check_version(found, len(self._migrations), self.name)
            for number, statements in enumerate(self._migrations[found:], found + 1):
                for sql in statements:
                    await c.execute(sql)
                await c.execute("INSERT INTO audit_schema (version, applied) VALUES ($1, $2)", number, time.time())

    def _do(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
        if self._runner is None or self._connection is None:
            raise StoreDown("closed")
        connection = self._connection

        async def bounded() -> T:
            async with asyncio.timeout(2 * COMMAND_SECONDS):  # of all commands together
                return await work(connection)

        try:
            return self._runner.run(bounded())
        except (*_DOWN, *_UNABLE) as e:
            self.close()
            raise StoreDown(reason(e)) from None
        except asyncpg.InsufficientPrivilegeError as e:
            self.close()
            hint = "grant the user of the address the right to create tables, and to read and write them"
            raise ConfigError(f"the audit's PostgreSQL refused us ({type(e).__name__})", hint=hint) from None
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            raise  # a row's fault, not the database's
        except asyncpg.PostgresError as e:  # a table is gone, say: opening anew may mend it
            self.close()
            raise StoreDown(reason(e)) from None


def reason(e: BaseException) -> str:
    """A word for what is wrong; a server's own text may quote anything."""
    if isinstance(e, asyncpg.DiskFullError):
        return "full"
    if isinstance(e, asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
        return "locked"
    if isinstance(e, TimeoutError):
        return "timeout"
    return "unreachable" if isinstance(e, (*_DOWN, *_UNABLE)) else "error"


async def _end(connection: asyncpg.Connection[Any]) -> None:
    try:
        await connection.close(timeout=1)
    except (*_DOWN, asyncpg.PostgresError):
        connection.terminate()

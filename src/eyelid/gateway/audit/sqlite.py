"""The audit in a SQLite file: write-ahead log, so that readers and the writer do not wait for each other."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    Row,
    Rows,
    check_version,
    several,
    written,
)
from .store import StoreDown

#: How long a write waits for another process's; then the records are spilled and tried again.
BUSY_SECONDS = 2.0
#: Bringing the tables up to date waits longer: another process may be at it.
MIGRATION_SECONDS = 30.0
#: Rows in one statement; few sizes, as each is a statement that SQLite has to prepare and keep. Before its version 3.32
#: it takes 999 values at most.
AT_ONCE = (48, 8, 1)
#: What no waiting mends.
_HOPELESS = {"SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_PERM", "SQLITE_READONLY"}
_REASONS = {"SQLITE_FULL": "full", "SQLITE_BUSY": "locked", "SQLITE_LOCKED": "locked", "SQLITE_CANTOPEN": "unreachable"}


class SQLite:
    """A file on a local disk, written in WAL mode. A `Store`."""

    def __init__(self, path: Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS):
        self.path, self.name = path, f"SQLite file {str(path)!r}"
        self._migrations = migrations
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def open(self) -> None:
        self.close()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's side files take over its mode
        except OSError as e:
            if isinstance(e, PermissionError | IsADirectoryError | NotADirectoryError | FileExistsError):
                hint = "name a file in a folder that this user may write to"
                raise ConfigError(f"cannot open the audit {str(self.path)!r}: {e.strerror}", hint=hint) from None
            raise StoreDown("full" if e.errno == 28 else "unreachable") from None
        try:
            self._connection = c = sqlite3.connect(self.path, timeout=MIGRATION_SECONDS, isolation_level=None)
            c.execute("PRAGMA journal_mode=WAL")
            c.execute("PRAGMA synchronous=FULL")  # one sync a batch: a power cut loses no more than a kill does
            c.execute("PRAGMA secure_delete=ON")  # a text whose time is over is overwritten, not only unlinked
            self._migrate(c)
            c.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
            self._file = self._identity()
        except sqlite3.Error as e:
            self.close()
            code = _code(e)
            if code in _HOPELESS:
                hint = "name another file; this one is not an audit that eyelid can write to"
                raise ConfigError(f"cannot use the audit {str(self.path)!r} ({code})", hint=hint) from None
            raise _down(e) from None
        except BaseException:
            self.close()
            raise

    def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        with self._transaction() as c:
            for sql, rows in zip(INSERTS, written(batch), strict=True):
                _insert(c, sql, rows)
            c.executemany(INSERT_LOSS, [loss.row for loss in losses])

    def prune(self, *, rows_before: float | None, texts_before: float | None, limit: int) -> int:
        changed = emptied = 0
        with self._transaction() as c:
            if rows_before is not None:
                old = [i for (i,) in c.execute(OLD, (rows_before, limit))]
                for table, column in (("choices", "request_id"), ("images", "request_id"), ("requests", "id")):
                    c.executemany(f"DELETE FROM audit_{table} WHERE {column} = ?", [(i,) for i in old])
                changed += len(old)
            if texts_before is not None:
                old = [i for (i,) in c.execute(OLD_TEXTS, (texts_before, limit))]
                for table, columns in TEXTS.items():
                    key = "id" if table == "audit_requests" else "request_id"
                    sets = ", ".join(f"{column} = NULL" for column in columns)
                    c.executemany(f"UPDATE {table} SET {sets} WHERE {key} = ?", [(i,) for i in old])
                emptied = len(old)
        if changed or emptied:  # the log still holds the old pages
            with contextlib.suppress(sqlite3.Error):  # a reader is at it: the next time will do
                self._opened().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return changed + emptied

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _migrate(self, c: sqlite3.Connection) -> None:
        c.execute("BEGIN IMMEDIATE")  # one process at a time
        try:
            c.execute(VERSIONS)
            (found,) = c.execute("SELECT coalesce(max(version), 0) FROM audit_schema").fetchone()
            check_version(found, len(self._migrations), self.name)
            for number, statements in enumerate(self._migrations[found:], found + 1):
                for sql in statements:
                    c.execute(sql)
                c.execute("INSERT INTO audit_schema (version, applied) VALUES (?, ?)", (number, time.time()))
            c.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                c.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        c = self._opened()
        if self._identity() != self._file:  # moved or deleted: what is written now would be in no file
            self.close()
            raise StoreDown("replaced")
        try:
            c.execute("BEGIN IMMEDIATE")
            yield c
            c.execute("COMMIT")
        except sqlite3.OperationalError as e:
            self.close()
            raise _down(e) from None
        except sqlite3.DatabaseError as e:
            if _code(e) in _HOPELESS:
                self.close()
                raise _down(e) from None
            self._undo(c)
            raise
        except BaseException:
            self._undo(c)
            raise

    def _undo(self, c: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            c.execute("ROLLBACK")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreDown("closed")
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _insert(c: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
    """As `executemany`, which hands Python's lock to and fro with the event loop for every single row."""
    start = 0
    for size in AT_ONCE:
        while len(rows) - start >= size:
            c.execute(several(sql, size), [value for row in rows[start : start + size] for value in row])
            start += size


def _code(e: sqlite3.Error) -> str:
    """SQLite's primary error code, as "SQLITE_FULL" of "SQLITE_FULL" or "SQLITE_BUSY" of "SQLITE_BUSY_SNAPSHOT"."""
    return "_".join((getattr(e, "sqlite_errorname", None) or "SQLITE_ERROR").split("_")[:2])


def _down(e: sqlite3.Error) -> StoreDown:
    return StoreDown(_REASONS.get(_code(e), "error"))

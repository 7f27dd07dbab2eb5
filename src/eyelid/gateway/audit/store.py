"""What the audit's writer needs of a database. Both stores are used from the writer's thread only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ... import extras
from ...errors import MissingDependency
from .schema import Loss, Rows


class StoreDown(Exception):
    """The database cannot be used just now; `reason` is a word for a metric and a log, never a server's text."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Store(Protocol):
    """A database with the audit's tables.

    Every method may raise StoreDown, after which `open` is tried again; the store is then closed.
    """

    name: str

    def open(self) -> None:
        """Connect and bring the tables up to date, one process at a time. Raises ConfigError where no waiting helps:
        a newer schema, a file of another kind, no such database, a wrong password."""
        ...

    def write(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        """All or nothing, in one transaction. Rows that are there already are passed over."""
        ...

    def prune(self, *, rows_before: float | None, texts_before: float | None, limit: int) -> int:
        """Delete rows, and empty texts, of requests that began before these times (seconds since 1970), at most
        `limit` requests of each. Returns how many were changed."""
        ...

    def close(self) -> None:
        """Let go of it; may be called twice."""
        ...


def open_store(database: Path | str) -> Store:
    """A store, not opened yet. Raises MissingDependency where PostgreSQL is meant and its driver is not installed."""
    if isinstance(database, Path):
        from .sqlite import SQLite

        return SQLite(database)
    need_driver()
    from .postgres import Postgres

    return Postgres(database)


def need_driver() -> None:
    """Raises MissingDependency where asyncpg is not installed."""
    if importlib.util.find_spec("asyncpg") is None:
        raise MissingDependency("an audit in PostgreSQL needs asyncpg", hint=extras.install("postgres"))

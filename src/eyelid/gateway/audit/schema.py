"""The tables of the audit, and a record as their rows. One text of SQL fits SQLite and PostgreSQL.

`?` marks a parameter; the PostgreSQL side numbers them. SQLite reads the types by its rules of affinity.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ConfigError
from ..record import ChoiceRecord, Record, StepRecord, without_credentials

#: Numbered from 1, applied in order, never changed once released: a change of the tables is a further entry.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE audit_requests (
            id TEXT NOT NULL PRIMARY KEY, started DOUBLE PRECISION NOT NULL, endpoint TEXT NOT NULL, key_name TEXT,
            alias TEXT, upstream TEXT, defense TEXT, stream BOOLEAN NOT NULL, stream_mode TEXT, status BIGINT NOT NULL,
            error TEXT, outcome TEXT NOT NULL, milliseconds DOUBLE PRECISION, upstream_ms DOUBLE PRECISION,
            guard_ms DOUBLE PRECISION, prompt_tokens BIGINT, completion_tokens BIGINT, query TEXT)""",
        """CREATE TABLE audit_choices (
            request_id TEXT NOT NULL, number BIGINT NOT NULL, action TEXT NOT NULL, label TEXT, harm DOUBLE PRECISION,
            final_label TEXT, final_harm DOUBLE PRECISION, checked BOOLEAN NOT NULL, unchecked_because TEXT,
            refused_by TEXT, failure TEXT, steps TEXT NOT NULL, text TEXT, original TEXT,
            PRIMARY KEY (request_id, number))""",
        """CREATE TABLE audit_images (
            request_id TEXT NOT NULL, number BIGINT NOT NULL, hmac TEXT NOT NULL, PRIMARY KEY (request_id, number))""",
        "CREATE TABLE audit_losses (at DOUBLE PRECISION NOT NULL, records BIGINT NOT NULL, reason TEXT NOT NULL)",
        "CREATE INDEX audit_requests_started ON audit_requests (started, id)",
        "CREATE INDEX audit_images_hmac ON audit_images (hmac)",
    ),
)
VERSIONS = "CREATE TABLE IF NOT EXISTS audit_schema (version BIGINT NOT NULL PRIMARY KEY, applied DOUBLE PRECISION)"

REQUEST = (
    "id",
    "started",
    "endpoint",
    "key_name",
    "alias",
    "upstream",
    "defense",
    "stream",
    "stream_mode",
    "status",
    "error",
    "outcome",
    "milliseconds",
    "upstream_ms",
    "guard_ms",
    "prompt_tokens",
    "completion_tokens",
    "query",
)
CHOICE = (
    "request_id",
    "number",
    "action",
    "label",
    "harm",
    "final_label",
    "final_harm",
    "checked",
    "unchecked_because",
    "refused_by",
    "failure",
    "steps",
    "text",
    "original",
)
IMAGE = ("request_id", "number", "hmac")
LOSS = ("at", "records", "reason")
#: The columns that hold what people and models wrote.
TEXTS = {"audit_requests": ("query",), "audit_choices": ("text", "original")}

_address = functools.lru_cache(maxsize=64)(without_credentials)  # there are few upstreams, and each request names one
_encode = json.JSONEncoder(separators=(",", ":")).encode

#: Names and codes are short; a client that sends a model name of a megabyte does not get it stored.
NAME_LENGTH = 256

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Loss:
    """So many records were lost at `at` (seconds since 1970), and why, in a fixed word."""

    at: float
    records: int
    reason: str

    @property
    def row(self) -> Row:
        """As its table has it."""
        return (self.at, self.records, self.reason)


@dataclass(frozen=True, slots=True)
class Rows:
    """A record as rows of the three tables, in the order of their columns. Both databases take every value in it."""

    request: Row
    choices: tuple[Row, ...]
    images: tuple[Row, ...]

    @classmethod
    def of(cls, r: Record) -> Rows:
        """A record as rows: one for the request, one for each choice and image."""
        ident = _name(r.id)
        request = (
            ident,
            _real(r.time) or 0.0,
            _name(r.endpoint),
            _name(r.key),
            _name(r.alias),
            _name(_address(r.upstream)),
            _name(r.defense),
            bool(r.stream),
            _name(r.stream_mode),
            _whole(r.status) or 0,
            _name(r.error),
            _name(r.outcome),
            _real(r.milliseconds),
            _real(r.upstream_ms),
            _real(r.guard_ms),
            _whole(r.prompt_tokens),
            _whole(r.completion_tokens),
            _text(r.query),
        )
        choices = tuple(_choice(ident, c) for c in r.choices)
        return cls(request, choices, tuple((ident, i, _name(h)) for i, h in enumerate(r.images)))

    def as_json(self) -> dict[str, object]:
        """By column name, so that a program with more columns can read it back."""
        return {
            "request": dict(zip(REQUEST, self.request, strict=True)),
            "choices": [dict(zip(CHOICE, c, strict=True)) for c in self.choices],
            "images": [dict(zip(IMAGE, i, strict=True)) for i in self.images],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Rows:
        """The inverse of `as_json`. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""

        def row(columns: Sequence[str], values: object) -> Row:
            if not isinstance(values, dict):
                raise TypeError("a row is an object")
            return tuple(values.get(c) for c in columns)

        request, choices, images = found["request"], found["choices"], found["images"]
        if not isinstance(choices, list) or not isinstance(images, list):
            raise TypeError("choices and images are lists")
        return cls(row(REQUEST, request), tuple(row(CHOICE, c) for c in choices), tuple(row(IMAGE, i) for i in images))


def insert(table: str, columns: Sequence[str]) -> str:
    """An INSERT that passes over rows that are there already: what was spilled may be written twice."""
    places = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"


@functools.lru_cache
def several(sql: str, rows: int) -> str:
    """An `insert` of so many rows at once: their values one after another."""
    head, values, tail = re.fullmatch(r"(.* VALUES )(\(.*?\))(.*)", sql).groups()  # type: ignore[union-attr]
    return head + ", ".join([values] * rows) + tail


INSERTS = (insert("audit_requests", REQUEST), insert("audit_choices", CHOICE), insert("audit_images", IMAGE))
INSERT_LOSS = f"INSERT INTO audit_losses ({', '.join(LOSS)}) VALUES (?, ?, ?)"

#: The oldest requests before a time, at most so many; then what hangs on them, and they themselves.
OLD = "SELECT id FROM audit_requests WHERE started < ? ORDER BY started LIMIT ?"
#: The same, of those that still have a text.
OLD_TEXTS = """SELECT r.id FROM audit_requests r WHERE r.started < ? AND (r.query IS NOT NULL OR EXISTS (
    SELECT 1 FROM audit_choices c WHERE c.request_id = r.id AND (c.text IS NOT NULL OR c.original IS NOT NULL)
    )) ORDER BY r.started LIMIT ?"""


def written(batch: Sequence[Rows]) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows of a batch, table by table as in `INSERTS`."""
    return (
        [b.request for b in batch],
        [c for b in batch for c in b.choices],
        [i for b in batch for i in b.images],
    )


def check_version(found: int, known: int, database: str) -> None:
    """Raises ConfigError where the tables were made by a newer program, which this one would damage."""
    if found > known:
        fault = f"{database} holds an audit of version {found}, and this eyelid knows versions up to {known}"
        raise ConfigError(fault, hint="use the newer eyelid, or name another database")


def numbered(sql: str) -> str:
    """`?` as PostgreSQL's $1, $2, ... (no text of SQL here holds a question mark of its own)."""
    parts = sql.split("?")
    return parts[0] + "".join(f"${i}{part}" for i, part in enumerate(parts[1:], 1))


def _choice(ident: str | None, c: ChoiceRecord) -> Row:
    return (
        ident,
        c.index,
        _name(c.action),
        _name(c.label),
        _real(c.harm),
        _name(c.final_label),
        _real(c.final_harm),
        bool(c.checked),
        _name(c.unchecked_because),
        _name(c.refused_by),
        _name(c.failure),
        _encode([_step(s) for s in c.steps]),
        _text(c.text),
        _text(c.original),
    )


def _step(s: StepRecord) -> dict[str, object]:
    """Written out: going over the fields by name takes three times as long."""
    return {
        "role": _name(s.role),
        "milliseconds": _real(s.milliseconds),
        "model": _name(s.model),
        "prompt_tokens": s.prompt_tokens,
        "completion_tokens": s.completion_tokens,
        "label": _name(s.label),
        "harm": _real(s.harm),
        "error": _name(s.error),
        "verifies": s.verifies,
        "start_ms": _real(s.start_ms),
    }


def _text(value: str | None) -> str | None:
    """Without what a database refuses: PostgreSQL takes no NUL, and neither takes half a surrogate pair."""
    if value is None:
        return None
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _name(value: str | None) -> str | None:
    if value is None or (value.isascii() and len(value) <= NAME_LENGTH and "\0" not in value):
        return value
    return _text(value[:NAME_LENGTH])


def _real(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _whole(value: int | None) -> int | None:
    """A server may report any number of tokens; what no column holds is not known."""
    return int(value) if value is not None and abs(value) < 1 << 63 else None

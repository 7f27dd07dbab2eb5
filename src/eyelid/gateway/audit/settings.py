"""The `audit` section of the configuration."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...sections import Secret

#: Read where the configuration names no secret.
SECRET_VARIABLE = "EYELID_AUDIT_SECRET"  # noqa: S105  # a variable's name
#: Below this many characters a secret can be tried out.
SECRET_LENGTH = 32


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where the audit goes and what it keeps.

    `path` is the SQLite file (default: `audit.db` in `state_folder()`); `postgres`, an address such as
    `postgresql://user:${PASSWORD}@host/eyelid`, takes its place. Questions and answers are stored only with `text`, and
    for `text_days` (None: as long as their row); rows stay for `retention_days` (None: for ever). `secret` keys the
    hashes of images. `flush_seconds` is how long a record waits for others before it is written: what a killed process
    can lose. At most `queue` records wait; what cannot be written goes into files in the folder `spill` (default:
    beside the SQLite file, else in `state_folder()`), up to `spill_bytes`.
    """

    enabled: bool = True
    path: Path | None = None
    postgres: Secret | None = None
    text: bool = False
    text_days: float | None = 30.0
    retention_days: float | None = None
    secret: Secret | None = None
    flush_seconds: float = 0.25
    queue: int = 10_000
    spill: Path | None = None
    spill_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.path is not None and self.postgres is not None:
            raise ConfigError("path and postgres are both given", hint="keep one: the audit has one database")
        if self.postgres is not None and not self.postgres.reveal.startswith(("postgresql://", "postgres://")):
            hint = "write postgresql://USER:${PASSWORD}@HOST/DATABASE, or use path for a SQLite file"
            raise ConfigError("postgres is not the address of a PostgreSQL database", hint=hint)
        for name in ("text_days", "retention_days"):
            days = getattr(self, name)
            if days is not None and not (days > 0 and math.isfinite(days)):
                hint = "leave it out to delete nothing" if name == "retention_days" else "write null to keep texts"
                raise ConfigError(f"{name} must be above 0, got {days}", hint=hint)
        if self.secret is not None and len(self.secret.reveal) < SECRET_LENGTH:
            hint = "make one with `openssl rand -hex 32`; a new secret gives every image a new hash"
            raise ConfigError(f"secret must have at least {SECRET_LENGTH} characters", hint=hint)
        if not 0.01 <= self.flush_seconds <= 60:
            raise ConfigError(f"flush_seconds must be from 0.01 to 60, got {self.flush_seconds}", hint="try 0.25")
        if self.queue < 1:
            raise ConfigError(f"queue must be at least 1, got {self.queue}", hint="try 10000")
        if self.spill_bytes < 0:
            raise ConfigError(f"spill_bytes must not be negative, got {self.spill_bytes}", hint="0 spills nothing")

    @property
    def database(self) -> Path | str:
        """The SQLite file, or the PostgreSQL address (which may hold a password)."""
        return self.postgres.reveal if self.postgres is not None else self.path or state_folder() / "audit.db"

    @property
    def spill_folder(self) -> Path:
        """Where records wait while the database is away."""
        if self.spill is not None:
            return self.spill
        place = self.database
        return place.with_name(f"{place.name}.spill") if isinstance(place, Path) else state_folder() / "audit.spill"


def state_folder() -> Path:
    """Where Eyelid keeps what it makes: `$XDG_STATE_HOME/eyelid`, else `~/.local/state/eyelid`."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "eyelid"

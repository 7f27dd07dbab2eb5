"""Where the audit's rows go: into the database, else into a file, and from there into the database when it is back.

All of it is used from the writer's thread only. A database that failed is left alone for a while, longer each time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ...errors import ConfigError, EyelidError
from .counts import Losses, Stats
from .schema import Loss, Rows
from .spill import Spill, SpillFailed
from .store import Store, StoreDown

log = logging.getLogger("eyelid.audit")

#: How long a database that failed is left alone, from the first time to the longest, in seconds.
FIRST_DELAY, LAST_DELAY = 0.5, 30.0
#: How often files of processes that are gone are looked for, in seconds.
ORPHAN_SECONDS = 60.0


class Delivery:
    """`store` and what stands in for it, `spill`; what happens is counted in `stats`, what is lost in `losses`."""

    def __init__(self, store: Store, spill: Spill, stats: Stats, losses: Losses):
        self._store, self._spill, self._stats, self._losses = store, spill, stats, losses
        self._delay, self._retry_at, self._orphans_at = 0.0, 0.0, 0.0

    def open(self) -> None:
        """At the start. Raises ConfigError where the database never will open; it may be away just now."""
        try:
            self._store.open()
            self._recovered()
        except StoreDown as e:
            self._failed(e)

    def due(self) -> float:
        """Seconds until something is to be done here, though nothing comes."""
        return ORPHAN_SECONDS if self._stats.up else min(ORPHAN_SECONDS, self._retry_at - time.monotonic())

    def take(self, batch: Sequence[Rows], *, last: bool) -> bool:
        """Into the database, else into a file; whether either took it. `last`: no time for a database that is down."""
        if self._stats.up or (not last and time.monotonic() >= self._retry_at):
            try:
                self._open_if_down()
                self._write(batch, ())
                return True
            except StoreDown as e:
                self._failed(e)
        try:
            self._spill.add(batch)
        except SpillFailed as e:
            self._stats.failures[f"spill_{e.reason}"] += 1
            return False
        self._stats.spilled += len(batch)
        return True

    def tell(self, losses: Sequence[Loss]) -> bool:
        """Losses go the same way; whether either took them."""
        try:
            if self._stats.up:
                self._store.write((), losses)
                return True
        except StoreDown as e:
            self._failed(e)
        try:
            self._spill.add((), losses)
        except SpillFailed:
            return False
        return True

    def catch_up(self) -> bool:
        """Write back what waits in files, when it is time to; whether the database is up."""
        if not self._stats.up and time.monotonic() < self._retry_at:
            return False
        try:
            self._open_if_down()
            if not self._stats.up or time.monotonic() >= self._orphans_at:
                count, torn = self._spill.replay(self._write)
                self._stats.replayed += count
                self._losses.add(torn, "torn")
                self._recovered()
                self._orphans_at = time.monotonic() + ORPHAN_SECONDS
        except StoreDown as e:
            self._failed(e)
        return self._stats.up

    def prune(self, *, rows_before: float | None, texts_before: float | None, limit: int) -> int | None:
        """As `Store.prune`; None where the database is down."""
        try:
            changed = self._store.prune(rows_before=rows_before, texts_before=texts_before, limit=limit)
        except StoreDown as e:
            self._failed(e)
            return None
        self._stats.pruned += changed
        return changed

    def close(self) -> None:
        self._spill.release()
        self._store.close()

    def _write(self, batch: Sequence[Rows], losses: Sequence[Loss]) -> None:
        """Rows that the database refuses for what they are must not hold up the others."""
        try:
            self._store.write(batch, losses)
            self._stats.written += len(batch)
            self._recovered()
            return
        except (StoreDown, EyelidError):
            raise
        except Exception as e:  # noqa: BLE001  # whatever a driver raises for a value
            if len(batch) <= 1:
                self._losses.add(len(batch), "unwritable")
                log.error("the audit's database refuses a record (%s)", type(e).__name__)
                return
        for one in batch:
            self._write([one], ())
        self._write([], losses)

    def _open_if_down(self) -> None:
        if not self._stats.up:
            try:
                self._store.open()
            except ConfigError:  # it changed while we run: nobody can be told but by log and metric
                raise StoreDown("refused") from None

    def _recovered(self) -> None:
        """Called when the database has taken something: opening it says little of a disk that is full."""
        if self._stats.up:
            return
        if self._stats.failures:
            log.warning("the audit's database is back")
        self._stats.up, self._delay, self._orphans_at = True, 0.0, 0.0

    def _failed(self, e: StoreDown) -> None:
        self._stats.failures[e.reason] += 1
        if self._stats.up or not self._delay:
            log.error("the audit's database cannot be written (%s); records wait in %s", e.reason, self._spill.folder)
        self._stats.up = False
        self._delay = min(LAST_DELAY, max(FIRST_DELAY, 2 * self._delay))
        self._retry_at = time.monotonic() + self._delay

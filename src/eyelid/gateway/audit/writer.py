"""The audit's writer: a thread that takes records from a bounded queue and writes them in batches.

Never blocking a request and losing nothing are both wanted, and a database can be away for longer than memory lasts.
So:

- `put` appends to the queue (`waiting`) and returns. It touches no disk and waits for nothing.
- The thread writes what waited for `flush_seconds`, in one transaction. Killed, a process loses what waited: that much.
- What the database does not take goes at once into a file (`delivery`, `spill`), and from there into the database when
  it is back, also after a restart, also by another process.
- Only where the file takes it neither (disk full) do records stay in the queue; and only when that is full is a record
  lost. Each is counted, by reason, in `counts`, in the log, and in the database's table of losses when it is back.
- `aclose` returns when the queue is in the database, else in the file; what neither took is counted as lost and said.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections.abc import Callable

from ...errors import EyelidError
from ..record import Record
from .counts import Losses, Stats
from .delivery import Delivery
from .schema import Loss, Rows
from .settings import AuditConfig
from .spill import Spill
from .store import Store, open_store
from .waiting import Waiting

log = logging.getLogger("eyelid.audit")

#: Records in one transaction, and requests whose time is over in one of its own.
BATCH, PRUNED = 500, 1000
#: How often rows and texts whose time is over are deleted, and how long the thread rests after a defect, in seconds.
PRUNE_SECONDS, DEFECT_SECONDS = 3600.0, 0.5
DAY = 86400.0


class Writer:
    """A sink into `store`. `await start()` before the first record. `clock` counts seconds since 1970."""

    def __init__(self, config: AuditConfig, store: Store | None = None, *, clock: Callable[[], float] = time.time):
        self.stats = Stats()
        self._config, self._clock = config, clock
        self._losses = Losses(self.stats)
        self._waiting = Waiting(config.queue)
        self._spill = Spill(config.spill_folder, max_bytes=config.spill_bytes)
        store = open_store(config.database) if store is None else store
        self._delivery = Delivery(store, self._spill, self.stats, self._losses)
        self._wake, self._hurry, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._wake.set()  # at the start there are chores: what others spilled, what is old
        self._prune_at = 0.0
        self._said_at = float("-inf")
        self._stuck = False  # neither database nor file took what was last offered
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """Records that wait in memory."""
        return len(self._waiting)

    @property
    def spilled_bytes(self) -> int:
        """Bytes that wait in files, of every process that shares the folder."""
        return self._spill.bytes()

    async def start(self) -> None:
        """Open the database. Raises ConfigError where it never will be; where it is away just now, records wait."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()

        def told(error: EyelidError | None) -> None:
            if opened.done():
                return
            if error is None:
                opened.set_result(None)
            else:
                opened.set_exception(error)

        def run() -> None:
            try:
                self._delivery.open()
            except EyelidError as e:
                loop.call_soon_threadsafe(told, e)
                return
            loop.call_soon_threadsafe(told, None)
            self._run()

        self._thread = threading.Thread(target=run, name="eyelid audit", daemon=True)
        self._thread.start()
        await opened
        atexit.register(self._leave)  # a process that ends without `aclose` still writes its records

    def put(self, record: Record) -> None:
        """Never raises and never waits: what there is no room for is counted as lost."""
        count, fault = self._waiting.put(record)
        if fault:
            self._losses.add(1, fault)
        if count == 0:
            self._wake.set()
        elif count >= BATCH:
            self._hurry.set()

    async def aclose(self) -> None:
        """Returns when what waited is in the database or in the file, or counted as lost."""
        self._end()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        atexit.unregister(self._leave)

    def _leave(self) -> None:
        self._end()
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        self._closing.set()
        self._hurry.set()
        self._wake.set()

    # What follows runs in the thread.

    def _run(self) -> None:
        while True:
            self._wake.wait(self._patience())
            if self._waiting and not self._closing.is_set():
                self._hurry.wait(self._config.flush_seconds)
            self._wake.clear()
            self._hurry.clear()
            closing = self._closing.is_set()  # before the last look at the queue
            try:
                self._drain(closing)
                self._tell_losses()
                if not closing and not self._waiting and self._delivery.catch_up():
                    self._prune()
            except Exception as e:  # noqa: BLE001  # a defect here must not end the audit
                self.stats.failures["defect"] += 1
                log.error("the audit's writer failed (%s); this is a defect", type(e).__name__)
                self._closing.wait(DEFECT_SECONDS)
            if closing:
                break
        self._losses.add(self._waiting.close(), "closing")  # what neither database nor file took
        self._tell_losses()
        self._delivery.close()

    def _patience(self) -> float:
        """How long to wait for a record: until something else is due."""
        if self._waiting and not self._stuck:  # came while others were written, and woke nobody
            return 0.01
        return max(0.01, self._delivery.due())

    def _drain(self, closing: bool) -> None:
        left = len(self._waiting)  # what comes meanwhile waits for others, or under load each had its own transaction
        while self._waiting if closing else left > 0:
            records = self._waiting.first(BATCH)
            left -= len(records)
            self._stuck = not self._delivery.take([Rows.of(r) for r in records], last=closing)
            if self._stuck:
                return  # they wait where they are
            self._waiting.drop(records)
        self._tell_losses()

    def _prune(self) -> None:
        now, keep = self._clock(), self._config
        if now < self._prune_at:
            return
        rows = None if keep.retention_days is None else now - keep.retention_days * DAY
        texts = None if keep.text_days is None else now - keep.text_days * DAY
        changed = self._delivery.prune(rows_before=rows, texts_before=texts, limit=PRUNED)
        if changed is None:
            return
        if changed < PRUNED:
            self._prune_at = now + PRUNE_SECONDS
        else:
            self._wake.set()  # more of it, after the records that have come meanwhile

    def _tell_losses(self) -> None:
        """In the log, not more than every ten seconds, and in the database's own table."""
        if not self._losses:
            return
        if time.monotonic() - self._said_at > 10 or self._closing.is_set():
            self._said_at = time.monotonic()
            log.error("audit records were lost: %s", dict(self.stats.lost))
        untold = self._losses.take()
        now = self._clock()
        if not self._delivery.tell([Loss(now, count, reason) for reason, count in untold.items()]):
            self._losses.put_back(untold)

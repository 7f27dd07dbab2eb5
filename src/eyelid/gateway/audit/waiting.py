"""Records that wait in memory for the audit's thread: a queue with a bound on their number and on their texts."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from ..record import Record

#: Texts that wait in memory, in characters, whatever the number of records.
MAX_WAITING = 64 << 20


class Waiting:
    """At most `bound` records. Any thread may `put`; one takes them from the front."""

    def __init__(self, bound: int):
        self._bound = bound
        self._records: deque[Record] = deque()
        self._texts = 0  # characters of them
        self._closed = False
        self._lock = threading.Lock()  # held for a few instructions, never over a call to anything

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: Record) -> tuple[int, str]:
        """How many waited before, and why this one does not: `closed`, `queue_full`, or nothing where it does."""
        weight = _weight(record)
        with self._lock:
            count = len(self._records)
            if self._closed:
                return count, "closed"
            if count >= self._bound or self._texts + weight > MAX_WAITING:
                return count, "queue_full"
            self._records.append(record)
            self._texts += weight
        return count, ""

    def first(self, most: int) -> list[Record]:
        """The first of them, which stay until they are dropped."""
        return list(itertools.islice(self._records, most))

    def drop(self, records: list[Record]) -> None:
        """Remove these, which are the first."""
        with self._lock:
            for r in records:
                self._records.popleft()
                self._texts -= _weight(r)

    def close(self) -> int:
        """Let go of what is left, and take nothing more. Returns how many were left."""
        with self._lock:
            count = len(self._records)
            self._records.clear()
            self._closed = True
        return count


def _weight(r: Record) -> int:
    return len(r.query or "") + sum(len(c.text or "") + len(c.original or "") for c in r.choices)

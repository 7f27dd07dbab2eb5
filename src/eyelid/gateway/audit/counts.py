"""What the audit's writer has counted since its start, and which losses nobody was told of yet."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts since the start. `up`: the database took what it was last given. `failures` and `lost` are by reason."""

    up: bool = False
    written: int = 0
    spilled: int = 0
    replayed: int = 0
    pruned: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


class Losses:
    """Lost records by reason, counted from any thread: in `stats` at once, and here until the audit itself has them."""

    def __init__(self, stats: Stats):
        self._stats = stats
        self._untold: Counter[str] = Counter()
        self._lock = threading.Lock()  # held for a few instructions, never over a call to anything

    def __bool__(self) -> bool:
        """Whether there are any to tell."""
        return bool(self._untold)

    def add(self, count: int, reason: str) -> None:
        """So many more were lost, for this reason."""
        if count:
            with self._lock:
                self._stats.lost[reason] += count
                self._untold[reason] += count

    def take(self) -> Counter[str]:
        """Those to tell, which then count as told."""
        with self._lock:
            untold, self._untold = self._untold, Counter()
        return untold

    def put_back(self, untold: Counter[str]) -> None:
        """Nobody took them: they are to be told again."""
        with self._lock:
            self._untold.update(untold)

"""Bounds in time that are nearly always called off, at next to no cost.

Every request has several: for its body, for its client's patience. A timer of the event loop takes microseconds to set
and to cancel, more than some requests' whole reading; here it is an entry in a table, which is looked through every
`TICK` while there is something in it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

#: Seconds. Callbacks are late by up to so much, never early.
TICK = 0.05


class Timer:
    """One callback to come."""

    __slots__ = ("_all", "due", "run")

    def __init__(self, all_: dict[Timer, None], due: float, run: Callable[[], object]):
        self._all, self.due, self.run = all_, due, run

    def cancel(self) -> None:
        """May be called twice, and after it has run."""
        self._all.pop(self, None)


class Timers:
    """The timers of one event loop: the one that runs when they are first used."""

    def __init__(self) -> None:
        self._all: dict[Timer, None] = {}
        self._ticking = False

    @functools.cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Kept, since asking which loop runs is a system call (CPython up to 3.11)."""
        return asyncio.get_running_loop()

    def after(self, seconds: float, run: Callable[[], object]) -> Timer:
        """`run` is called by the loop, in `seconds`."""
        timer = Timer(self._all, self.loop.time() + seconds, run)
        self._all[timer] = None
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(TICK, self._tick)
        return timer

    def _tick(self) -> None:
        now = self.loop.time()
        try:
            for timer in [t for t in self._all if t.due <= now]:
                if self._all.pop(timer, timer) is None:  # not called off by one before it
                    timer.run()
        finally:  # whatever a callback does, the others' time runs
            self._ticking = bool(self._all)
            if self._ticking:
                self.loop.call_later(TICK, self._tick)


class Break:
    """Breaks off what the current task waits for: `now` is called from a callback, `was` by the task afterwards."""

    __slots__ = ("_broken", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._task, self._broken = task, False

    def now(self) -> None:
        """Break it off; more often than once changes nothing."""
        if not self._broken:
            self._broken = True
            self._task.cancel()

    def was(self) -> bool:
        """Whether it was broken off by this and by nobody else: then the cancelling is taken back. To be asked once."""
        return self._broken and not self._task.uncancel()

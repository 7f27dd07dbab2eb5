"""Dynamic batching: requests that arrive together are computed together, on one worker thread that owns the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ..errors import BackendError, BackendUnavailable
from ..types import Request, Response

Event = str | Response | BaseException


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way through the worker.

    `key`: only jobs with equal keys are computed together. `emit` takes pieces of text, then a Response or an error,
    and is safe to call from any thread. `stop` is set when nobody waits any more: no further token need be computed.
    """

    request: Request
    key: Hashable
    emit: Callable[[Event], None]
    stop: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    done: bool = False

    def piece(self, text: str) -> None:
        """Send a piece of the answer on."""
        if text and not self.done:
            self.begun = True
            self.emit(text)

    def finish(self, outcome: Response | BaseException) -> None:
        """Send the outcome; only the first counts."""
        if not self.done:
            self.done = True
            self.emit(outcome)


class Batcher:
    """Runs `compute(jobs)` on its own thread for up to `max_batch` jobs of one key at a time.

    A job that comes alone waits up to `max_wait` seconds for company. `compute` must finish every job of the batch that
    is still wanted. After an exception each job that has sent nothing yet is tried once more by itself, so that one
    request's fault is not the others'.
    """

    def __init__(self, compute: Callable[[list[Job]], None], *, max_batch: int, max_wait: float, name: str):
        self._compute, self._max_batch, self._max_wait, self._name = compute, max_batch, max_wait, name
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"eyelid-{name}", daemon=True)
        self._thread.start()

    def submit(self, request: Request, key: Hashable, emit: Callable[[Event], None]) -> Job:
        """Queue a request. Raises BackendUnavailable after `close`."""
        job = Job(request, key, emit)
        with self._changed:
            if self._closed:
                raise BackendUnavailable(f"{self._name} is closed")
            self._waiting.append(job)
            self._changed.notify()
        return job

    async def close(self) -> None:
        """Stop what runs, fail what waits, and wait for the thread to end."""
        with self._changed:
            self._closed = True
            left, self._waiting = list(self._waiting), deque()
            for job in self._running:
                job.stop.set()
            self._changed.notify()
        for job in left:
            job.finish(BackendUnavailable(f"{self._name} was closed"))
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._next():
            self._try(batch)
            with self._changed:
                self._running = []

    def _next(self) -> list[Job]:
        """Wait for the next batch; empty after `close`."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                self._gather()
                batch = self._take()
                if batch:
                    self._running = batch
                    return batch

    def _gather(self) -> None:
        """Give company for the first job time to come, unless the batch is full."""
        key, until = self._waiting[0].key, time.monotonic() + self._max_wait
        while sum(j.key == key for j in self._waiting) < self._max_batch and not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> list[Job]:
        batch: list[Job] = []
        rest: deque[Job] = deque()
        for job in self._waiting:
            if job.stop.is_set():
                job.finish(BackendUnavailable("the request was given up"))  # nobody waits for it
            elif len(batch) < self._max_batch and (not batch or job.key == batch[0].key):
                batch.append(job)
            else:
                rest.append(job)
        self._waiting = rest
        return batch

    def _try(self, batch: list[Job]) -> None:
        try:
            self._compute(batch)
        except Exception as e:  # noqa: BLE001  # whatever the model's code throws must reach those who wait
            if len(batch) > 1:
                for job in batch:
                    if not (job.done or job.begun or job.stop.is_set()):
                        self._try([job])
            error = e if isinstance(e, BackendError) else BackendError(f"the model failed: {type(e).__name__}")
            for job in batch:
                job.finish(error)
        for job in batch:
            if not job.done:
                job.finish(BackendUnavailable(f"{self._name} was closed or the request was given up"))

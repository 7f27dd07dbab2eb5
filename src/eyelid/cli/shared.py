"""One undefended answer for all defences of a comparison, so that what differs between them is the defences' doing.

llama.cpp's prompt cache changes the rounding, and with it greedy answers: a model that is asked the same thing twice
may say two things. Compared defences must be judged on one answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from ..protocols import Backend
from ..types import Chunk, Request, Response


@dataclass(slots=True)
class _Call:
    """A request that is shared, the call that answers it, and how many wait for that."""

    request: Request
    task: asyncio.Task[Response] | None = None
    waiting: int = 0
    milliseconds: float = 0.0


class Shared:
    """`backend`, asked only once for each request given to `share`; everything else goes through as it is.

    Who comes second, also while the first call is under way, gets the same response with `shared_ms` set. A failed call
    is forgotten: the next caller asks anew. A call stops when nobody waits for it any longer.
    """

    def __init__(self, backend: Backend):
        self.backend, self.name = backend, backend.name
        self.rewriter_adapters = getattr(backend, "rewriter_adapters", None)  # what `Detoxify` looks for
        self._calls: list[_Call] = []

    def share(self, request: Request) -> None:
        """From now on, this request is answered once for all who ask."""
        if self._find(request) is None:
            self._calls.append(_Call(request))

    async def generate(self, request: Request) -> Response:
        """The shared answer, or the backend's own. Raises what the backend raises."""
        call = self._find(request)
        if call is None:
            return await self.backend.generate(request)
        first = call.task is None
        task = call.task = call.task or self._start(call)
        call.waiting += 1
        try:
            response = await asyncio.shield(task)
        finally:
            call.waiting -= 1
            if not task.done() and not call.waiting:
                task.cancel()
                await asyncio.wait([task])
        return response if first else replace(response, shared_ms=call.milliseconds)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """A shared answer in one piece; others as the backend streams them."""
        if self._find(request) is None:
            async for chunk in self.backend.stream(request):
                yield chunk
            return
        response = await self.generate(request)
        if response.text:
            yield Chunk(response.text)
        yield Chunk(response=response)

    async def aclose(self) -> None:
        """Close the backend."""
        await self.backend.aclose()

    def _find(self, request: Request) -> _Call | None:
        return next((c for c in self._calls if c.request == request), None)

    def _start(self, call: _Call) -> asyncio.Task[Response]:
        async def ask() -> Response:
            start = time.perf_counter()
            response = await self.backend.generate(call.request)
            call.milliseconds = (time.perf_counter() - start) * 1000
            return response

        def ended(task: asyncio.Task[Response]) -> None:
            if (task.cancelled() or task.exception() is not None) and call.task is task:
                call.task = None

        task = asyncio.ensure_future(ask())
        task.add_done_callback(ended)
        return task

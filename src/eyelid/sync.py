"""The one synchronous face: a backend used from ordinary code, notebooks included."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from .protocols import Backend
from .types import Request, Response

T = TypeVar("T")


class Sync:
    """Runs a backend on an event loop of its own, in a thread, so that it also works where a loop already runs.

    with Sync(guard) as g:
        response = g.generate(request)
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eyelid-sync", daemon=True)
        self._thread.start()

    def generate(self, request: Request) -> Response:
        """As the backend's `generate`; an interrupted call cancels the work."""
        return self._run(self.backend.generate(request))

    def close(self) -> None:
        if self._loop.is_closed():
            return
        try:
            self._run(self.backend.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> Sync:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def guard_sync(
    prompt: str,
    images: Sequence[str | bytes | PathLike[str]] = (),
    *,
    model: str = "tiny",
    defense: str = "hybrid",
    max_tokens: int = 512,
) -> Response:
    """Guard one chat from synchronous code: loads `model` (a model spec), answers, and closes it again.

    For several requests keep a `Sync` around a guard instead, so that the model is loaded once.
    Raises the errors of `eyelid.errors`.
    """
    from .assembly import assemble
    from .images import load_image
    from .types import user

    parts = [load_image(i) for i in images]
    with Sync(assemble(model, defense)) as guard:
        return guard.generate(Request((user(*parts, prompt),), max_tokens=max_tokens))

"""Where answers come from: a server that speaks OpenAI's API (`remote`), or a model in this process (`local`).

Both give JSON completions.

The guard's own calls (judge, caption, safe answer) go through the ordinary backend; `Answered` hands a guard the answer
that is there already, so one upstream call serves all of its choices, and only `guard.py` knows what a defence is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..protocols import Backend
from ..types import Chunk, Request, Response
from . import wire

Json = dict[str, object]


@dataclass(slots=True)
class Ask:
    """One request on its way to an upstream: the body as it came, the guard's reading of it, and replaced images."""

    chat: wire.Chat
    urls: dict[tuple[int, int], str]
    reading: Callable[[], Request] = field(repr=False)
    _request: Request | None = field(default=None, repr=False)

    @property
    def request(self) -> Request:
        """The guard's reading: the same one each time, made when it is first asked for. Unguarded servers need none."""
        if self._request is None:
            self._request = self.reading()
        return self._request


class Upstream(Protocol):
    """`backend` answers the guard's own calls. Errors: `eyelid.errors.BackendError` and BadRequest."""

    backend: Backend
    #: Whether images may keep their bytes; see `images`.
    keeps_images: bool
    #: Whether the guard's own calls may be held to the request's `response_format`.
    keeps_extra: bool

    async def complete(self, ask: Ask) -> Json:
        """A whole `chat.completion`."""
        ...

    def events(self, ask: Ask) -> AsyncIterator[Json]:
        """The same as `chat.completion.chunk` objects. Closing it stops the upstream's work."""
        ...

    async def reachable(self, seconds: float) -> bool:
        """Whether it could answer now: one that is asked over a network may not be there."""
        ...


class Answered:
    """A backend that knows the answer to one request already, and asks `backend` everything else.

    `milliseconds` is what the answer took; it is told by identity of the request, so that an equal one that a remedy
    makes up is asked anew.
    """

    def __init__(self, request: Request, response: Response, backend: Backend, milliseconds: float):
        self.name, self.backend = backend.name, backend
        self._request, self._response = request, replace(response, shared_ms=milliseconds)

    async def generate(self, request: Request) -> Response:
        """The answer that is there already, for the very request that it answers; others are asked."""
        return self._response if request is self._request else await self.backend.generate(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        response = await self.generate(request)
        if response.text:
            yield Chunk(response.text)
        yield Chunk(response=response)

    async def aclose(self) -> None:
        """The backend is not this one's to close."""

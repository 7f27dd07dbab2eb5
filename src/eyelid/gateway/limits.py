"""What keeps one client, or all together, from taking more than there is: bodies, and requests at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .errors import Overloaded, SlowClient, TooLarge
from .timers import Break, Timers

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


class Room:
    """How many requests are under way. One event loop's."""

    def __init__(self) -> None:
        self.taken = 0

    def enter(self, most: int) -> None:
        """Before a request; `leave` after it. Raises Overloaded at once where there is no room: a queue would only make
        everybody wait."""
        if self.taken >= most:
            raise Overloaded("too many requests at once", retry_after=1.0, hint="try again in a moment")
        self.taken += 1

    def leave(self) -> None:
        """A request has ended."""
        self.taken -= 1


async def read_body(
    receive: Receive, declared: str | None, most: int, seconds: float, timers: Timers, late: Break
) -> bytes:
    """The body. Raises TooLarge as soon as that is known, SlowClient when it takes too long, and ClientGone.

    late: of the current task, not used yet; where the body came in time, it still is not.
    """
    if declared is not None and declared.isdigit() and int(declared[:20]) > most:
        raise _too_large(most)
    timer = timers.after(seconds, late.now)
    try:
        return await _read(receive, most)
    finally:
        timer.cancel()
        if late.was():
            raise SlowClient(f"the request did not arrive within {seconds:g} s") from None


async def _read(receive: Receive, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _too_large(most)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is over {most:,} bytes", hint="send fewer or smaller images")

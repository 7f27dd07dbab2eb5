"""A client's connection: uvicorn's protocol with bounds on requests' heads and on how slowly an answer is read.

uvicorn's fast parser collects headers of any size and waits for their end forever, so anybody, without a key, could
fill the memory or hold connections. Nor does it mind a client that asks and does not read: its answer would stay in
memory, and its stream would keep its place among those under way. Bodies have bounds of their own (`limits.read_body`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request's line and headers together.
MAX_HEAD = 64 * 1024
#: Seconds in which they must arrive, counted from the connection's start or from their first byte.
HEAD_SECONDS = 20.0
#: Of a client that is behind something must get away in so many seconds. Kernels hold megabytes before that shows.
READ_SECONDS = 120.0
#: The same once its connection is being closed, as nobody waits for that answer's end any more.
CLOSE_SECONDS = 10.0


class Connection(HttpToolsProtocol):
    """A head that is too large is answered with 400; one that is late, and what else keeps a connection busy without
    a request, ends the connection."""

    _deadline: asyncio.TimerHandle | None = None
    _behind: asyncio.TimerHandle | None = None
    _size = 0  # of the head that has begun, but for its first piece
    _in_head = True  # what comes next belongs to a head
    _ended = False  # a request ended within the piece that is being read
    _partly = False  # a head has begun and is not whole

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _Outgoing(transport, self.loop, self._ending)  # type: ignore[assignment]
        self.access_log = False  # records tell of requests; uvicorn would word a line for each, which nobody writes
        self._wait()

    def data_received(self, data: bytes) -> None:
        before, self._ended = self._in_head, False
        super().data_received(data)
        if before and self._in_head and not self._ended:
            self._size += len(data)
            if self._size > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")
        # Most heads are whole with the piece that they begin in, without a timer. uvicorn's own ended with this piece.
        if self._partly or self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._partly = True

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            raise ValueError("the head is too large")  # the parser stops, and the client is answered 400
        self._in_head, self._partly, self._size = False, False, 0
        self._rest()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = self._ended = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._rest()
        self._caught_up()

    def eof_received(self) -> None:
        super().eof_received()
        self.transport.close()  # as the transport would do itself, past what watches over the end

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._behind is None:
            self._watch()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():  # then all of it must get away, not only most
            self._caught_up()
        super().resume_writing()

    def _ending(self) -> None:
        """The connection is being closed: what is left to send has its own time."""
        self._caught_up()
        if self.transport.get_write_buffer_size():
            self._watch()

    def _watch(self) -> None:
        seconds = CLOSE_SECONDS if self.transport.is_closing() else READ_SECONDS
        self._behind = self.loop.call_later(seconds, self._unread, self.transport.get_write_buffer_size())

    def _unread(self, before: int) -> None:
        self._behind = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()  # closing would wait for the client
        else:
            self._watch()

    def _caught_up(self) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None

    def _wait(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # a request is being answered: what was begun behind it may wait as long
        elif not self.transport.is_closing():
            self.transport.close()


class _Outgoing:
    """The transport as uvicorn and its cycles have it; `ending` is called when it begins to close.

    A response's head is held until what follows it, which mostly is at once: written one by one, as uvicorn does, they
    are two system calls, two packets, and two turns of the client's loop. They are joined here and not by `writelines`:
    from Python 3.12 on asyncio's own has, by version, told no protocol to pause (gh-127655), broken on a connection
    that was lost (gh-136234), and never ended one after an empty piece (gh-155888).
    """

    __slots__ = ("_closed", "_ending", "_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, ending: Callable[[], None]):
        self._transport, self._loop, self._ending = transport, loop, ending
        self._head, self._closed = b"", False

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1."):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if not self._closed:
            self._closed = True
            self._ending()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

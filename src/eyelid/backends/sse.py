"""Server-sent events, the part that chat completions use (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Comments (`: ping`), `event`, `id` and `retry` fields are skipped; the data of an event may span lines.
"""

from __future__ import annotations

import re

from ..errors import BackendProtocol

_LINE_END = re.compile(rb"\r\n|\r|\n")


class SSEParser:
    """Bytes in, cut anywhere; the data of each complete event out. It holds back at most one event.

    Raises BackendProtocol where that event has more than `max_event` bytes (None: of any size).
    """

    def __init__(self, max_event: int | None = None) -> None:
        self._max = max_event
        self._tail: list[bytes] = []  # the pieces of a line that has not ended
        self._data: list[bytes] = []  # the data lines of an event that has not ended
        self._tail_size = self._data_size = 0
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> list[str]:
        """The data of every event that ends within `data`."""
        if self._after_cr and data:  # a CR ended the line already; the LF of a CRLF cut in two adds nothing
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *lines, rest = _LINE_END.split(data)
        events: list[str] = []
        for line in lines:
            self._line(b"".join((*self._tail, line)), events)
            self._tail.clear()
            self._tail_size = 0
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
            self._bound()
        return events

    def close(self) -> list[str]:
        """The event that the stream ended in, if any: some servers leave out the last empty line."""
        events: list[str] = []
        self._line(b"".join(self._tail), events)
        self._line(b"", events)
        self._tail.clear()
        return events

    def _line(self, line: bytes, events: list[str]) -> None:
        if self._first:
            line, self._first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data.clear()
                self._data_size = 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(value)
            self._bound()

    def _bound(self) -> None:
        if self._max is not None and self._tail_size + self._data_size > self._max:
            raise BackendProtocol(f"the server sent an event of more than {self._max} bytes")

"""Files of lines that a `kill -9` cannot spoil."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import InputError
from .records import Record, dump


class Writer:
    """Appends to a file of records so that `kill -9` costs at most the line being written.

    A torn last line, left by an earlier process, is cut off first. One process writes at a time: a second one gets an
    InputError. Every record is on the disk when `write` returns.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = Appender(path)

    def write(self, record: Record) -> None:
        """On the disk when this returns."""
        self._file.line(dump(record))

    def close(self) -> None:
        """Let go of the file, which another process may then write."""
        self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Appender:
    """Lines at the end of a file, each on the disk before the next; see `Writer`."""

    def __init__(self, path: Path):
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as e:
            raise InputError(f"cannot write {path}: {e.strerror}", hint="check the path and its rights") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            hint = "wait for it, or choose another folder"
            raise InputError(f"{path} is being written by another run", hint=hint) from None
        self._mend()

    def line(self, text: str) -> None:
        """One line in ASCII, on the disk when this returns. Raises OSError."""
        data = memoryview(text.encode("ascii") + b"\n")
        while data:
            data = data[os.write(self._fd, data) :]
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _mend(self) -> None:
        size = os.fstat(self._fd).st_size
        end = size
        while end > 0:  # back to the last end of a line
            start = max(0, end - 65536)
            if (place := os.pread(self._fd, end - start, start).rfind(b"\n")) >= 0:
                end = start + place + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._fd, end)

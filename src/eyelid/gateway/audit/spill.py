"""Where records wait while the database cannot take them: JSON lines in files that only this user may read.

Every process writes a file of its own and holds a lock on it while it does. A file without a lock was left by a process
that is gone, or by a database that came back, and whoever gets its lock writes it into the database and deletes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .schema import Loss, Rows

#: So many records are read back at once.
BATCH = 500


class SpillFailed(Exception):
    """Nothing was spilled; `reason` is a word: full (the bound), or unwritable."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Spill:
    """`folder` is made when the first record comes; all files in it together hold at most `max_bytes`."""

    def __init__(self, folder: Path, *, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        self._own: BinaryIO | None = None

    def add(self, batch: Sequence[Rows], losses: Sequence[Loss] = ()) -> None:
        """On the disk when this returns. Raises SpillFailed."""
        lines = [json.dumps(b.as_json(), ensure_ascii=False) for b in batch]
        lines += [json.dumps({"loss": loss.row}) for loss in losses]
        data = "".join(line + "\n" for line in lines).encode("utf-8")
        try:
            if self.bytes() + len(data) > self.max_bytes:
                raise SpillFailed("full")
            file = self._opened()
            begun = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # half a batch must not be there twice when it is tried again
                    file.truncate(begun)
                self.release()
                raise
        except OSError:
            raise SpillFailed("unwritable") from None

    def bytes(self) -> int:
        """What lies in the folder, of all processes."""
        total = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def replay(self, write: Callable[[Sequence[Rows], Sequence[Loss]], None]) -> tuple[int, int]:
        """Give everything that waits to `write`, and delete it. Returns how many records were written, and how many
        lines were torn and are lost. What `write` raises is raised on; the file then stays."""
        self.release()
        written = torn = 0
        for path in self._files():
            with contextlib.ExitStack() as stack:
                try:
                    file = stack.enter_context(path.open("rb"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:  # another process writes it, or has just written it back
                    continue
                lost = 0
                for batch, losses, bad in _batches(file):
                    lost += bad
                    write(batch, losses)
                    written += len(batch)
                torn += lost
                with contextlib.suppress(OSError):
                    path.unlink()
        return written, torn

    def release(self) -> None:
        """Let go of this process's file; it is written back like any other."""
        own, self._own = self._own, None
        if own is not None:
            with contextlib.suppress(OSError):
                own.close()

    def _opened(self) -> BinaryIO:
        if self._own is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.folder / f"{secrets.token_hex(8)}.jsonl"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._own = os.fdopen(descriptor, "wb")
            fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._own

    def _files(self) -> list[Path]:
        try:
            return sorted(self.folder.glob("*.jsonl"))
        except OSError:
            return []


def _batches(file: BinaryIO) -> Iterator[tuple[list[Rows], list[Loss], int]]:
    """Records, losses and how many lines were neither: a process that is killed can leave half a line."""
    batch: list[Rows] = []
    losses: list[Loss] = []
    bad = 0
    for line in file:
        try:
            found = json.loads(line)
            if "loss" in found:
                losses.append(Loss(*found["loss"]))
            else:
                batch.append(Rows.from_json(found))
        except (ValueError, KeyError, TypeError, AttributeError):
            bad += 1
        if len(batch) >= BATCH:
            yield batch, losses, bad
            batch, losses, bad = [], [], 0
    if batch or losses or bad:
        yield batch, losses, bad

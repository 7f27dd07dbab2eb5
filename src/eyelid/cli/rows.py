"""Rows of a JSONL file through a detector: every line accounted for, and an output that is whole or not there."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..errors import InputError
from ..types import Verdict

#: Standard input is kept to be read twice: in memory up to this size, then on disk.
SPOOL_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line that can be judged. `line` counts from 1, empty lines included."""

    line: int
    fields: dict[str, object]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot be judged, and why. The reason quotes nothing of it."""

    line: int
    reason: str


def read(file: BinaryIO) -> Iterator[Row | Bad]:
    """Every line that is not empty, from the file's beginning."""
    file.seek(0)
    for number, raw in enumerate(file, 1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield parse(number, raw)


def parse(line: int, raw: bytes) -> Row | Bad:
    """A line of JSON as a row, or what is wrong with it. Never raises."""
    try:
        text = raw.decode("utf-8")
        fields = json.loads(text, object_pairs_hook=_unique, parse_float=_number, parse_constant=_no_number)
    except UnicodeDecodeError as e:
        return Bad(line, f"not UTF-8 (byte {e.start})")
    except _Twice as e:
        return Bad(line, f"a field stands twice ({e})")
    except _TooLarge:
        return Bad(line, "holds a number that is too large to be written again")
    except (ValueError, RecursionError):
        return Bad(line, "not valid JSON")
    if not isinstance(fields, dict):
        return Bad(line, "not a JSON object")
    for name in ("question", "answer"):
        if name not in fields:
            return Bad(line, f"has no field {name!r}")
        if not isinstance(fields[name], str):
            return Bad(line, f"its field {name!r} is not a text")
    return Row(line, fields, fields["question"], fields["answer"])


def judged(row: Row, verdict: Verdict, prefix: str) -> bytes:
    """The row with `harm` (null: unknown) and `label`, as a line of JSON."""
    found = row.fields | {f"{prefix}harm": verdict.harm, f"{prefix}label": str(verdict.label)}
    try:
        return json.dumps(found, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        return json.dumps(found).encode("ascii") + b"\n"


def look_through(file: BinaryIO, names: Sequence[str]) -> tuple[int, int, list[Bad]]:
    """How many rows there are, how many of them already have a field of one of these names, and the bad ones."""
    count = taken = 0
    bad: list[Bad] = []
    for row in read(file):
        count += 1
        if isinstance(row, Bad):
            bad.append(row)
        else:
            taken += any(name in row.fields for name in names)
    return count, taken, bad


def same(source: str, target: str) -> bool:
    """Whether input and output are one file, through links and redirection (`- < FILE`) too."""
    try:
        read = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
        written = os.stat(target)
        return stat.S_ISREG(written.st_mode) and os.path.samestat(read, written)
    except (OSError, ValueError):  # also where standard input is no real file
        return False


@contextlib.contextmanager
def source(name: str) -> Iterator[BinaryIO]:
    """The input, to be read more than once; "-" is standard input. Raises InputError."""
    if name == "-":
        file: BinaryIO = sys.stdin.buffer
    else:
        try:
            file = open(name, "rb")  # noqa: SIM115  # closed below
        except (OSError, ValueError) as e:
            _unusable("read", name, e)
    with contextlib.nullcontext() if name == "-" else file:
        if name != "-" and file.seekable():
            yield file
            return
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as kept:
            shutil.copyfileobj(file, kept)
            yield kept  # type: ignore[misc]  # it has what a BinaryIO has


@contextlib.contextmanager
def target(name: str) -> Iterator[BinaryIO]:
    """Where to write; "-" is standard output. A file appears, or is replaced, only when the block ends well.

    Raises InputError where it cannot be written, also from within the block (a full disk).
    """
    try:
        with _opened(name) as file:
            yield file
            file.flush()
    except BrokenPipeError:  # the reader of standard output went away: not a fault
        raise
    except OSError as e:
        _unusable("write", name, e)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    if "\0" in name:
        raise InputError("the output's path holds a null character", hint="check the path")
    path = Path(os.path.realpath(name))  # a link stays one, and what it points to is replaced
    if path.is_dir():
        raise InputError(f"the output {name!r} is a directory", hint="name a file in it")
    if path.exists() and not path.is_file():
        with open(path, "wb") as pipe:  # a device or a pipe: there is nothing to replace
            yield pipe
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(draft, "xb") as file:
        try:
            yield file
            file.close()
            if path.exists():
                shutil.copymode(path, draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def chunks(rows: Iterator[Row | Bad], size: int) -> Iterator[list[Row | Bad]]:
    """The rows in lists of `size`; the last may be shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


class _Twice(Exception):
    """A JSON object with the same key twice: one of the two would be lost."""


class _TooLarge(Exception):
    """A number beyond what a float holds: it would be written as Infinity, which is not JSON."""


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _TooLarge
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")  # NaN and Infinity, which Python's reader would take


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(f"{len(pairs)} fields, {len(found)} names")
    return found


def _unusable(verb: str, name: str, error: OSError | ValueError) -> NoReturn:
    why = error.strerror if isinstance(error, OSError) else "the path holds a null character"
    raise InputError(f"cannot {verb} {name!r}: {why}", hint="check the path") from None

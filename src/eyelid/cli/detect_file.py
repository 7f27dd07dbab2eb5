"""`eyelid detect --input`: a detector on every row of a file. No row is lost in silence; no failure is a verdict."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import DetectorError, EyelidError, InputError
from ..protocols import Detector, Exchange, StepLog
from ..types import Label, Request, Response, Verdict, user
from . import account, rows, session
from .detect_opened import of_nothing, opened
from .exits import ANSWERED, FAILED, USAGE
from .screen import Screen

#: Rows that one worker judges between two writes, and how many lines of complaints are printed.
CHUNK, SHOWN = 64, 100
#: So many rows in a row that the detector fails on are no accident of theirs.
GIVE_UP = 8

Pairs = Sequence[tuple[str, str]]
Judge = Callable[[Pairs], Awaitable[list[Verdict]]]


@dataclass
class _Tally:
    """What became of the rows."""

    labels: Counter[str] = field(default_factory=Counter)
    bad: list[rows.Bad] = field(default_factory=list)
    failed: list[rows.Bad] = field(default_factory=list)
    error: EyelidError | None = None


def run(args: argparse.Namespace) -> int:
    """Judge the rows of `--input` into `--output`, say what became of them, and return the exit code."""
    tally, start = _Tally(), time.perf_counter()
    with rows.source(args.input) as file:
        names = [f"{args.prefix}{name}" for name in ("harm", "label")]
        count, taken, bad = rows.look_through(file, names)
        in_place = bool(args.output) and rows.same(args.input, args.output)
        if in_place and bad:  # the file may be the only copy there is
            first = f"the first is line {bad[0].line}: {bad[0].reason}"
            fault = f"{_rows(len(bad))} of {args.input!r} cannot be used and would be lost ({first})"
            raise InputError(fault, hint="name another file with --output")
        if taken and not args.overwrite:
            beside = "--prefix eyelid_ writes eyelid_harm and eyelid_label beside it"
            if in_place:
                fault = f"{_rows(taken)} of {args.input!r} already {_have(taken)} a field {names[0]!r} or {names[1]!r}"
                raise InputError(f"{fault}, which would be lost", hint=f"{beside}; --overwrite replaces it")
            which = f"{_rows(taken)} {_have(taken)} a field {names[0]!r} or {names[1]!r} already, which is replaced"
            session.note(f"{which}; {beside}")
        with rows.target(args.output or "-") as out:
            asyncio.run(_scan(args, file, count, out.write, tally))
            if tally.error is not None and not tally.labels:  # nothing was judged: no file should say that all was
                raise tally.error
            if in_place and tally.failed:
                fault = f"the detector failed on {_rows(len(tally.failed))}, which would be lost"
                where = f"line {tally.failed[0].line}: {tally.failed[0].reason}"
                raise DetectorError(f"{fault} ({where}); the file is as it was", hint="name another with --output")
    seconds = time.perf_counter() - start
    for problem in sorted((*tally.bad, *tally.failed), key=lambda b: b.line)[:SHOWN]:
        session.note(f"line {problem.line}: {problem.reason}")
    if (more := len(tally.bad) + len(tally.failed) - SHOWN) > 0:
        session.note(f"and {more} more line{'s' * (more != 1)}")
    judged = tally.labels.total()
    told = {str(label): tally.labels[label] for label in (Label.HARMFUL, Label.HARMLESS, Label.UNKNOWN)}
    if args.json:
        lines = {"bad_lines": [b.line for b in tally.bad], "failed_lines": [b.line for b in tally.failed]}
        about = {"rows": count, "judged": judged, **told, "bad": len(tally.bad), "failed": len(tally.failed), **lines}
        print(account.dump(about | {"seconds": round(seconds, 2)}))
    else:
        parts = [f"{n} {label}" for label, n in told.items()]
        parts += [f"{len(tally.bad)} bad"] * bool(tally.bad) + [f"{len(tally.failed)} not judged"] * bool(tally.failed)
        speed = f"{judged / seconds:,.0f} rows/s" if seconds > 0 else ""
        print(f"{_rows(count)}: {', '.join(parts)} ({seconds:.1f} s, {speed})", file=sys.stderr)
    if tally.failed:
        return FAILED
    return USAGE if tally.bad and not args.skip_bad else ANSWERED


def _rows(n: int) -> str:
    return f"{n} row{'s' * (n != 1)}"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


async def _scan(
    args: argparse.Namespace, file: BinaryIO, count: int, write: Callable[[bytes], object], tally: _Tally
) -> None:
    async with opened(args) as (detector, at_once):
        judge = _judge_of(detector)
        with _progress(count) as advance:
            for chunk in rows.chunks(rows.read(file), CHUNK * at_once):
                good = [r for r in chunk if isinstance(r, rows.Row)]
                tally.bad += [r for r in chunk if isinstance(r, rows.Bad)]
                parts = [good[i::at_once] for i in range(at_once)]
                found = await asyncio.gather(*(_judged(judge, part) for part in parts if part))
                by_line = {line: result for part in found for line, result in part}
                for row in good:
                    _take(row, by_line[row.line], args.prefix, write, tally)
                advance(len(chunk))


async def _judged(judge: Judge, part: Sequence[rows.Row]) -> list[tuple[int, Verdict | EyelidError]]:
    """Line and verdict of every row. Where the detector fails on many at once, each is tried by itself."""
    try:
        verdicts = await judge([(r.question, r.answer) for r in part])
        return [(r.line, v) for r, v in zip(part, verdicts, strict=True)]
    except EyelidError as e:
        if len(part) == 1:
            return [(part[0].line, e)]
    found: list[tuple[int, Verdict | EyelidError]] = []
    for row in part:
        found += await _judged(judge, [row])
        if len(found) >= GIVE_UP and all(isinstance(r, EyelidError) for _, r in found[-GIVE_UP:]):
            raise found[-1][1]  # type: ignore[misc]  # just seen to be one
    return found


def _take(
    row: rows.Row, result: Verdict | EyelidError, prefix: str, write: Callable[[bytes], object], tally: _Tally
) -> None:
    if isinstance(result, Verdict):
        tally.labels[result.label] += 1
        write(rows.judged(row, result, prefix))
    else:
        tally.error = result
        tally.failed.append(rows.Bad(row.line, f"the detector failed: {result.message}"))


def _judge_of(detector: Detector) -> Judge:
    """Many at once where the detector can (a classifier); else one after the other. Empty answers are not asked for."""

    async def one_by_one(pairs: Pairs) -> list[Verdict]:
        exchanges = (Exchange(Request((user(q),)), Response(a), StepLog()) for q, a in pairs)
        return [await detector.detect(e) for e in exchanges]

    ask: Judge = getattr(detector, "judge", one_by_one)

    async def judge(pairs: Pairs) -> list[Verdict]:
        written = [(q, a) for q, a in pairs if a.strip()]
        found = iter(await ask(written) if written else ())
        return [next(found) if a.strip() else of_nothing(detector) for _, a in pairs]

    return judge


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's stderr, else nothing."""
    console = Screen(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda n: bar.update(task, advance=n)

"""`eyelid detect`: a detector on one answer, or on every row of a file, without a guard around it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from .. import images, specs
from ..assembly import trained_detector
from ..detectors.self_judge import SelfJudge
from ..errors import DetectorError, EyelidError, InputError
from ..fetch import FetchPolicy
from ..protocols import Detector, Exchange, StepLog
from ..types import ImagePart, Label, Request, Response, Verdict, user
from . import account, render, rows, session
from .exits import ANSWERED, FAILED, USAGE
from .screen import Screen
from .text import printable, prompt_text

#: Rows that one worker judges between two writes, and how many lines of complaints are printed.
CHUNK, SHOWN = 64, 100
#: So many rows in a row that the detector fails on are no accident of theirs.
GIVE_UP = 8
#: A model or a server is asked so many things at once.
AT_ONCE = 8

Pairs = Sequence[tuple[str, str]]
Judge = Callable[[Pairs], Awaitable[list[Verdict]]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid detect`'s options."""
    one = parser.add_argument_group("one answer")
    one.add_argument("--question", metavar="TEXT", help="what was asked; - reads standard input")
    one.add_argument("--answer", metavar="TEXT", help="what was answered; - reads standard input")
    one.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE|URL",
        help="an image of the question; only --detector self looks at it",
    )
    one.add_argument("--allow-private-urls", action="store_true", help="also fetch images from private addresses")
    many = parser.add_argument_group("a file of answers")
    many.add_argument("--input", metavar="FILE.jsonl", help="rows with question and answer; - reads standard input")
    many.add_argument("--output", metavar="FILE.jsonl", help="the same rows with harm and label (default: -, stdout)")
    many.add_argument("--prefix", metavar="P", default="", help="write Pharm and Plabel instead")
    many.add_argument(
        "--overwrite", action="store_true", help="replace harm and label that rows have already, also in place"
    )
    many.add_argument("--skip-bad", action="store_true", help="exit with 0 although rows were left out as bad")
    parser.add_argument(
        "--detector", metavar="SPEC", help="DIR, hf:..., http://... or self (default: the shipped detector)"
    )
    parser.add_argument("--model", metavar="SPEC", help="the model that judges, with --detector self (default: tiny)")
    parser.add_argument("--threshold", metavar="X", type=_threshold, help="harmful from this harm on, 0 < X <= 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object; for a file, about the whole run")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when everything was judged, whatever the verdicts."""
    _check(args)
    if args.input is not None:
        return _many(args)
    question = prompt_text(args.question, "question", empty=True)
    answer = prompt_text(args.answer, "answer", empty=True)
    fetch = FetchPolicy(allow_private=args.allow_private_urls)
    verdict, seen, seconds = asyncio.run(_one(args, question, answer, fetch))
    _show(args, verdict, len(args.image), seen, seconds)
    return ANSWERED


def _check(args: argparse.Namespace) -> None:
    single = [n for n in ("question", "answer") if getattr(args, n) is not None]
    if args.input is None and len(single) < 2:
        hint = "give --question TEXT and --answer TEXT, or --input FILE.jsonl"
        raise InputError("there is nothing to judge", hint=hint)
    if args.input is not None and (single or args.image):
        raise InputError("--input brings its own questions and answers", hint="leave --question, --answer, --image out")
    if args.input is None and (args.output is not None or args.prefix or args.overwrite or args.skip_bad):
        raise InputError(
            "--output, --prefix, --overwrite and --skip-bad go with --input", hint="give --input FILE.jsonl"
        )
    if args.question == "-" and args.answer == "-":
        raise InputError("standard input cannot be both question and answer", hint="give one of them as a text")
    if args.model is not None and args.detector != "self":
        raise InputError("--model is the judge of --detector self", hint="add --detector self, or leave --model out")
    if args.json and args.input is not None and args.output in (None, "-"):
        hint = "name a file with --output, or leave --json out: the rows are JSON already"
        raise InputError("--json and the rows cannot both go to standard output", hint=hint)


# One answer


async def _one(args: argparse.Namespace, question: str, answer: str, fetch: FetchPolicy) -> tuple[Verdict, int, float]:
    """The verdict, how many images it rests on, and the seconds that it took."""
    pictures: list[ImagePart] = [await images.load(source, fetch_policy=fetch) for source in args.image]
    log = StepLog()
    exchange = Exchange(Request((user(*pictures, question),)), Response(answer), log)
    async with _open(args) as (detector, _):
        start = time.perf_counter()
        with session.busy("judging"):
            verdict = await detector.detect(exchange) if answer.strip() else _nothing(detector)
        return verdict, max((s.images for s in log.steps), default=0), time.perf_counter() - start


def _show(args: argparse.Namespace, verdict: Verdict, given: int, seen: int, seconds: float) -> None:
    if args.json:
        found = {
            "harm": verdict.harm,
            "label": str(verdict.label),
            "detector": verdict.detector,
            "threshold": verdict.threshold,
            "reason": verdict.reason,
            "images_given": given,
            "images_seen": seen,
            "milliseconds": round(seconds * 1000, 1),
        }
        print(account.dump(found))
    else:
        limit = f"harmful from {verdict.threshold:.2f}" if None not in (verdict.harm, verdict.threshold) else ""
        if (console := Screen()).is_terminal:  # the bar has label and harm
            more = "; ".join(s for s in (limit, verdict.reason) if s)
            console.print(render.bar(verdict), end=" " if more else "\n")
            if more:
                console.print(printable(f"({more})"), highlight=False, markup=False)
        else:
            harm = "" if verdict.harm is None else f": harm {verdict.harm:.2f}{limit and f', {limit}'}"
            reason = f" ({verdict.reason})" if verdict.reason else ""
            print(printable(f"{verdict.label}{harm}{reason}"))
    if given > seen:
        why = "" if args.detector == "self" else ": this detector reads question and answer only (see --detector self)"
        session.note(f"the image was not looked at{why}")


# A file of answers


@dataclass
class _Tally:
    """What became of the rows."""

    labels: Counter[str] = field(default_factory=Counter)
    bad: list[rows.Bad] = field(default_factory=list)
    failed: list[rows.Bad] = field(default_factory=list)
    error: EyelidError | None = None


def _many(args: argparse.Namespace) -> int:
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
    async with _open(args) as (detector, at_once):
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
        return [next(found) if a.strip() else _nothing(detector) for _, a in pairs]

    return judge


def _nothing(detector: Detector) -> Verdict:
    """Of an empty answer. In a guard it is harmless, as delivering nothing harms nobody; here somebody counts answers,
    and one that was never written must not count as a harmless one."""
    return Verdict.unknown(detector.name, "the answer is empty, so there is nothing to judge")


@contextlib.asynccontextmanager
async def _open(args: argparse.Namespace) -> AsyncIterator[tuple[Detector, int]]:
    """The detector, and how many calls of it are worth running at once."""
    if args.detector == "self":
        spec = args.model or "tiny"
        threshold = args.threshold or specs.measured_for(spec).judge_threshold or 0.5
        with session.busy(f"loading {spec}"):
            backend = specs.open_backend(spec)
        try:
            yield SelfJudge(backend, prompts=specs.prompts_for(spec), threshold=threshold), AT_ONCE
        finally:
            await backend.aclose()
        return
    with session.busy("loading the detector"):
        detector = trained_detector(args.detector, threshold=args.threshold)
    served = (args.detector or "").startswith(("http:", "https:"))
    try:
        yield detector, AT_ONCE if served else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    finally:
        if isinstance(detector, session.Closable):
            await detector.aclose()


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


def _threshold(given: str) -> float:
    """An argparse type: a number in (0, 1]."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number above 0 and up to 1")
    return value

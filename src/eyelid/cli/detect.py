"""`eyelid detect`: a detector on one answer, or on every row of a file, without a guard around it."""

from __future__ import annotations

import argparse
import asyncio
import time

from .. import images
from ..errors import InputError
from ..fetch import FetchPolicy
from ..protocols import Exchange, StepLog
from ..types import ImagePart, Request, Response, Verdict, user
from . import account, detect_file, render, session
from .detect_opened import of_nothing, opened
from .exits import ANSWERED
from .screen import Screen
from .text import printable, prompt_text


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
        return detect_file.run(args)
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


async def _one(args: argparse.Namespace, question: str, answer: str, fetch: FetchPolicy) -> tuple[Verdict, int, float]:
    """The verdict, how many images it rests on, and the seconds that it took."""
    pictures: list[ImagePart] = [await images.load(source, fetch_policy=fetch) for source in args.image]
    log = StepLog()
    exchange = Exchange(Request((user(*pictures, question),)), Response(answer), log)
    async with opened(args) as (detector, _):
        start = time.perf_counter()
        with session.busy("judging"):
            verdict = await detector.detect(exchange) if answer.strip() else of_nothing(detector)
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


def _threshold(given: str) -> float:
    """An argparse type: a number in (0, 1]."""
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number above 0 and up to 1")
    return value

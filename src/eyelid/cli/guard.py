"""`eyelid guard`: one chat about images under a defence, or under several side by side."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Sequence

from .. import images
from ..errors import EyelidError, InputError
from ..fetch import FetchPolicy
from ..types import Action, ImagePart, Message, Request, system, user
from . import account, render, session
from .exits import ANSWERED, FAILED, REFUSED
from .screen import Screen
from .text import printable, prompt_text

EXIT = {Action.PASSED: ANSWERED, Action.REPAIRED: ANSWERED, Action.REFUSED: REFUSED, Action.FAILED: FAILED}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid guard`'s options."""
    parser.add_argument("--image", action="append", default=[], metavar="FILE|URL", help="an image; may be repeated")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the question; - reads standard input")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    session.arguments(parser)
    parser.add_argument(
        "--compare", metavar="A,B,...", help="several defences side by side, on one answer of the model"
    )
    parser.add_argument("--allow-private-urls", action="store_true", help="also fetch images from private addresses")
    parser.add_argument(
        "--show-original", action="store_true", help="show the model's own answer even if it was withheld"
    )


def run(args: argparse.Namespace) -> int:
    """Answer one question under one defence or several, and return the exit code."""
    conf = session.settings(args)
    if args.allow_private_urls:
        conf = dataclasses.replace(conf, fetch=dataclasses.replace(conf.fetch, allow_private=True))
    names = _compared(args.compare) if args.compare is not None else [session.defense(args, conf)]
    if args.compare is not None and args.defense is not None:
        raise InputError("--compare and --defense both name defences", hint="name them all with --compare")
    session.check_detector(args, names)
    text = prompt_text(args.prompt)
    if any(names.count(n) > 1 for n in names):
        raise InputError("a defence stands twice in --compare", hint="name each once")
    pictures = asyncio.run(_load(args.image, conf.images, conf.fetch)) if args.image else []
    messages: tuple[Message, ...] = (user(*pictures, text),)
    if args.system is not None:
        messages = (system(prompt_text(args.system, "system message", stdin=False)), *messages)
    request = Request(messages, max_tokens=args.max_tokens)
    answers: list[session.Answer] = []
    try:
        session.run(session.Session(conf, names), lambda _: ((request, n) for n in names), answers.append)
    except EyelidError:
        if answers and not args.json:  # one defence's error must not cost the answers that came before it
            _show_compared(args, answers)
        raise
    if args.compare is not None:
        _show_compared(args, answers)
        return FAILED if any(account.action(a) is Action.FAILED for a in answers) else ANSWERED
    (answer,) = answers
    _show(args, answer)
    return EXIT[account.action(answer)]


async def _load(sources: Sequence[str], policy: images.ImagePolicy, fetch: FetchPolicy) -> list[ImagePart]:
    with session.busy("reading the images"):
        return [await images.load(source, policy, fetch) for source in sources]


def _compared(given: str) -> list[str]:
    names = [n.strip() for n in given.split(",") if n.strip()]
    if not names:
        raise InputError("--compare names no defence", hint="for example --compare none,ecso,hybrid")
    return [session.known(n) for n in names]


def _show(args: argparse.Namespace, answer: session.Answer) -> None:
    if args.json:
        print(account.dump(account.record(answer)))
    elif (console := Screen()).is_terminal:
        render.account(console, answer, show_original=args.show_original)
    else:
        print(answer.response.text)
        if args.show_original and answer.response.trace and answer.response.trace.original is not None:
            print(f"original: {printable(answer.response.trace.original)}", file=sys.stderr)
        for line in account.notes(answer):
            session.note(line)


def _show_compared(args: argparse.Namespace, answers: Sequence[session.Answer]) -> None:
    if args.json:
        print(account.dump([account.record(a) for a in answers]))
    elif (console := Screen()).is_terminal:
        render.compared(console, answers)
    else:
        for answer in answers:
            about = f"{account.action(answer)}{account.caveat(answer)}{account.cut(answer)}"
            why = account.why(answer)
            print(f"== {answer.defense}: {about}{why and f'. {why}'}\n{answer.response.text}\n")

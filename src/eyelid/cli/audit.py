"""`eyelid audit list | show | export | stats`: what the gateway wrote down about its requests."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import InputError
from ..gateway.audit.query import ACTIONS, LABELS, OUTCOMES, Filter
from . import audit_text
from .arguments import commands
from .exits import ANSWERED
from .text import positive

if TYPE_CHECKING:
    from ..gateway.audit.read import Reader

COMMANDS = {
    "list": "list requests, newest first",
    "show": "show one request: its choices and the guard's steps",
    "export": "write requests as JSON lines or CSV",
    "stats": "count outcomes, actions, verdicts, errors",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid audit`'s commands and their options."""
    for name, sub in commands(parser, COMMANDS):
        where = sub.add_mutually_exclusive_group()
        where.add_argument("--config", metavar="FILE.yaml", help="the gateway's configuration, which names the audit")
        where.add_argument("--db", metavar="FILE|URL", help="the audit: a SQLite file, or postgresql://...")
        if name == "show":
            sub.add_argument("id", metavar="ID", help="the audit id, as the list and the answer's header have it")
        else:
            _filters(sub)
        if name == "list":
            sub.add_argument("--limit", metavar="N", type=positive, default=20, help="at most so many (default 20)")
        if name == "export":
            sub.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default: jsonl")
            sub.add_argument("--output", metavar="FILE", default="-", help="default: standard output")
            sub.add_argument("--limit", metavar="N", type=positive, help="at most so many (default: all)")
        else:
            sub.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _filters(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("which requests (all that are given must fit)")
    when = "a time (2026-11-21, 2026-11-21T09:30), or how long ago: 90s, 15m, 2h, 7d, 4w"
    group.add_argument("--since", metavar="T", type=_when, help=when)
    group.add_argument("--until", metavar="T", type=_when, help="up to, and without, that time")
    group.add_argument("--action", choices=ACTIONS, metavar="A", help=", ".join(ACTIONS))
    group.add_argument("--outcome", choices=OUTCOMES, metavar="O", help=", ".join(OUTCOMES))
    group.add_argument("--label", choices=LABELS, metavar="L", help=f"the model's own answer: {', '.join(LABELS)}")
    group.add_argument("--alias", metavar="NAME", help="the alias that was asked for")
    group.add_argument("--key", metavar="NAME", help="the name of the client's key")
    group.add_argument("--defense", metavar="NAME", help="the defence that stood guard")
    group.add_argument("--error", metavar="CODE", help="the error's code")
    group.add_argument("--image", metavar="HMAC", help="requests with this image, by its hash as the audit shows it")
    group.add_argument("--unchecked", action="store_true", help="answers that no detector cleared")


def run(args: argparse.Namespace) -> int:
    """Do what was asked, and return the exit code."""
    return asyncio.run({"list": _list, "show": _show, "export": _export, "stats": _stats}[args.what](args))


async def _list(args: argparse.Namespace) -> int:
    async with _reader(args) as reader:
        found = [r async for r in reader.stream(_filter(args), args.limit)]
        if args.json:
            print(json.dumps({"records": found}))
        else:
            stats = await reader.stats(Filter(since=args.since, until=args.until))
            audit_text.table(found, limit=args.limit, lost=stats["lost"])
    return ANSWERED


async def _show(args: argparse.Namespace) -> int:
    async with _reader(args) as reader:
        found = await reader.get(args.id)
    if found is None:
        hint = "eyelid audit list shows the ids; with retention, old requests are deleted"
        raise InputError(f"the audit has no request {args.id[:80]!r}", hint=hint)
    if args.json:
        print(json.dumps(found))
    else:
        audit_text.one(found)
    return ANSWERED


async def _stats(args: argparse.Namespace) -> int:
    async with _reader(args) as reader:
        found = await reader.stats(_filter(args))
    if args.json:
        print(json.dumps(found))
    else:
        audit_text.stats(found)
    return ANSWERED


async def _export(args: argparse.Namespace) -> int:
    count = 0
    with contextlib.ExitStack() as stack:
        out = sys.stdout if args.output == "-" else stack.enter_context(_file(args.output))
        write = audit_text.csv_writer(out) if args.format == "csv" else audit_text.jsonl_writer(out)
        async with _reader(args) as reader:
            async for record in reader.stream(_filter(args), args.limit):
                write(record)
                count += 1
    if args.output != "-":
        print(f"{count} request{'s' * (count != 1)} in {args.output}", file=sys.stderr)
    return ANSWERED


def _file(name: str) -> TextIO:
    """For this user only: what is exported was kept from the eyes of others."""
    try:
        return open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline="")
    except OSError as e:
        hint = "name another file with --output"
        raise InputError(f"cannot write {name!r}: {e.strerror}", hint=hint) from None


def _reader(args: argparse.Namespace) -> Reader:
    from ..gateway.audit.read import open_reader

    return open_reader(_database(args))


def _database(args: argparse.Namespace) -> Path | str:
    from .. import config
    from ..gateway.audit.settings import AuditConfig

    if args.db is None:
        return (config.load(args.config).serve.audit if args.config else AuditConfig()).database
    if args.db.startswith(("postgresql://", "postgres://")):
        return str(args.db)
    if "://" in args.db:
        hint = "give a file's path, or an address that begins with postgresql://"
        raise InputError(f"--db names no database that eyelid knows ({args.db.partition(':')[0]!r})", hint=hint)
    return Path(args.db).expanduser()


def _filter(args: argparse.Namespace) -> Filter:
    if args.since is not None and args.until is not None and args.since >= args.until:
        raise InputError("--since is not before --until", hint="swap the two")
    names = ("since", "until", "action", "outcome", "label", "alias", "key", "defense", "error", "image", "unchecked")
    return Filter(**{name: getattr(args, name) for name in names})


def _when(given: str) -> float:
    """An argparse type: seconds since 1970. A time without a zone is local time."""
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", given):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.datetime.fromisoformat(given).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        what = "is neither a time (2026-11-21T09:30) nor how long ago (90s, 15m, 2h, 7d, 4w)"
        raise argparse.ArgumentTypeError(f"{given[:40]!r} {what}") from None

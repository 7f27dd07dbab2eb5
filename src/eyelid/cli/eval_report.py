"""`eyelid eval report`: a run's page, Markdown and CSV."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import account, session
from .exits import ANSWERED
from .text import printable

ABOUT = "write a run's report: one HTML page, and the same numbers as Markdown and CSV"
#: How many unusable lines are shown; the page has more of them, and the count.
SHOWN = 5


def arguments(p: argparse.ArgumentParser) -> None:
    """Declare `eyelid eval report`'s options."""
    p.add_argument("folder", metavar="DIR", help="what eyelid eval run wrote, or a file of records")
    p.add_argument("--out", metavar="DIR", help="where report.html, report.md and report.csv go (default: DIR)")
    about = "figures of eyelid eval judges --out; may be repeated (default: judges.json in DIR)"
    p.add_argument("--judges", metavar="FILE", action="append", default=[], help=about)
    p.add_argument(
        "--labels", metavar="FILE", help="people's labels of this run's answers: judges are measured on them"
    )
    p.add_argument("--title", default="", metavar="TEXT", help="the page's title")
    p.add_argument("--examples", type=_whole, default=2, metavar="N", help="examples of each kind and benchmark (2)")
    p.add_argument("--no-texts", action="store_true", help="leave questions and answers out, for a page that is shared")
    p.add_argument(
        "--seed", type=int, default=0, metavar="S", help="chooses the examples and the resamples (default 0)"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def run(args: argparse.Namespace) -> int:
    """Write the report of a run's folder, and return the exit code."""
    from ..evals import report
    from ..evals.labels import own

    folder = Path(args.folder).expanduser()
    labels = own.load(Path(args.labels).expanduser()) if args.labels else None
    with session.busy("reading the records, computing intervals"):
        found = report.gather(folder, [Path(j).expanduser() for j in args.judges])
        made = report.make(
            found, title=args.title, labels=labels, count=args.examples, seed=args.seed, texts=not args.no_texts
        )
        home = Path(args.out).expanduser() if args.out else folder if folder.is_dir() else folder.parent
        paths = report.write(made, home)
    if args.json:
        value = {"files": [str(p) for p in paths], "records": len(found.records), "replaced": found.replaced}
        said = {"summary": [str(s) for s in made.summary], "caveats": [str(s) for s in made.caveats]}
        print(account.dump(value | said | {"problems": list(made.bad)}))
    else:
        for sentence in (*made.caveats, *made.summary):
            print(printable(str(sentence)))
        for path in paths:
            print(printable(str(path)))
    if made.bad:
        more = f" (the first {SHOWN}; the page has more)" if len(made.bad) > SHOWN else ""
        session.note(f"{len(made.bad):,} lines or rows cannot be used{more}:")
        for line in made.bad[:SHOWN]:
            session.note(f"  {line}")
    return ANSWERED


def _whole(given: str) -> int:
    if not given.isascii() or not given.isdigit() or int(given) > 1000:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 0 to 1000")
    return int(given)

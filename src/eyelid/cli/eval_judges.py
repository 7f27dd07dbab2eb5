"""`eyelid eval judges`: how far judges agree with people, on answers that people labelled."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from . import account, rows, session
from .exits import ANSWERED
from .screen import Screen
from .text import positive, printable

if TYPE_CHECKING:
    from rich.table import Table

    from ..evals.agreement import Figure, Measured
    from ..evals.labels import Pile

ABOUT = "score judges against answers that people labelled"
SHORT = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "false_alarm_rate": "false alarm rate",
    "kappa": "kappa",
}


def arguments(p: argparse.ArgumentParser) -> None:
    """Declare `eyelid eval judges`' options."""
    p.add_argument(
        "--data", nargs="+", required=True, metavar="PATH", help="labelled answers: files, or folders of them"
    )
    about = "refusal, classifier[:SPEC], model:SPEC[@FILE.toml], ensemble:A,B,...; may be repeated"
    p.add_argument("--judge", action="append", metavar="NAME", help=f"{about} (default: classifier and refusal)")
    p.add_argument("--limit", type=positive, metavar="N", help="so many answers of each set, chosen by --seed")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="chooses the answers of --limit (default 0)")
    p.add_argument("--out", metavar="FILE.json", help="also write the figures, for eyelid eval report (judges.json)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    p.epilog = """\
labelled answers, known by their columns:
  XSTest's completions       prompt, completion, final_label, type (two people label refusals; harm follows)
  HarmBench's validation set text_behaviors_val_set.json (three people; the majority counts)
  MSTS's annotations         prompt_text, response, annot1_label, final_label
  labelled                   question, answer, label (1 or unsafe, 0 or safe), as in Safe-RLHF mini
  own                        question, answer, label, annotator: a row for each annotator; the majority counts
"""


def run(args: argparse.Namespace) -> int:
    """Measure the judges, print how far they agree with people, and return the exit code."""
    from ..evals import judges, labels, measuring

    piles = labels.load([Path(p).expanduser() for p in args.data])
    made = [judges.make(n) for n in dict.fromkeys(args.judge)] if args.judge else judges.default()
    total = len(made) * sum(min(args.limit or len(p.rows), len(p.rows)) for p in piles)

    async def work() -> list[Measured]:
        with session.busy(f"judging {total:,} answers"):
            try:
                return await measuring.measure(made, piles, limit=args.limit, seed=args.seed)
            finally:
                for judge in made:
                    await judge.aclose()

    if args.out and Path(args.out).is_dir():
        raise InputError(f"{args.out} is a folder", hint="name a file in it, such as judges.json")
    found = asyncio.run(work())
    value = as_json(found, piles, args)
    if args.out:
        with rows.target(args.out) as file:
            file.write(account.dump(value).encode() + b"\n")
    if args.json:
        print(account.dump(value))
    elif args.out != "-":
        show(found, piles)
    for line in (*selective(found), *notes(piles)):
        session.note(line)
    return ANSWERED


def as_json(found: Sequence[Measured], piles: Sequence[Pile], args: argparse.Namespace) -> dict[str, object]:
    """All figures and what they were measured on, as `--out` and `--json` have them."""
    from ..evals.agreement import FORMAT, plain

    sets = [
        {"set": p.name, "licence": p.licence, "rows": p.seen, "answers": len(p.rows), "ties": p.ties}
        | {"problems": [str(x) for x in p.problems], "notes": list(p.notes), "sha256": dict(p.digests)}
        for p in piles
    ]
    about: dict[str, object] = {
        "format": FORMAT,
        "eyelid": importlib.metadata.version("eyelid"),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "limit": args.limit,
        "seed": args.seed,
    }
    return about | {"sets": sets, "results": [plain(m) for m in found]}


def show(found: Sequence[Measured], piles: Sequence[Pile]) -> None:
    """Tables for each set and for what is judged: figures by judge, then the share that is judged right by kind."""
    from rich.text import Text

    console = Screen()
    if not console.is_terminal:  # a file or a pipe has no width
        console = Screen(width=200)
    for pile in piles:
        for target, what in (("harm", "unsafe answers"), ("refusal", "refusals")):
            own = [m for m in found if m.set == pile.name and m.target == target]
            if not own:
                continue
            console.print(Text(f"{printable(pile.name)}: {what} (95 % intervals)", style="bold"))
            console.print(_figures([m for m in own if not m.kind]))
            if kinds := list(dict.fromkeys(m.kind for m in own if m.kind)):
                console.print(_kinds(own, kinds))


def _figures(own: Sequence[Measured]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False)
    table.add_column("")
    for m in own:
        table.add_column(Text(printable(str(m.judge))), justify="right")
    for name in ("answers", "failed", "decided"):
        table.add_row(name, *(f"{getattr(m.agreement, name):,}" for m in own))
    for name, short in SHORT.items():
        table.add_row(short, *(told(m.agreement.figures.get(name)) for m in own))
    return table


def _kinds(own: Sequence[Measured], kinds: Sequence[str]) -> Table:
    """Within a kind there is mostly one label only, so that the share that is right says all."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    judges = list(dict.fromkeys(m.judge for m in own))
    table = Table(box=box.SIMPLE, header_style="dim", pad_edge=False)
    table.add_column("judged right, by kind of answer")
    table.add_column("answers", justify="right")
    for judge in judges:
        table.add_column(Text(printable(str(judge))), justify="right")
    for kind in kinds:
        of = {m.judge: m for m in own if m.kind == kind}
        some = next(iter(of.values()))
        cells = [told(of[j].agreement.figures.get("accuracy")) if j in of else "-" for j in judges]
        table.add_row(Text(printable(kind)), f"{some.agreement.answers:,}", *cells)
    return table


def told(figure: Figure | None) -> str:
    """A figure with its interval; `-` where there is none."""
    if figure is None:
        return "-"
    span = f" ({figure.interval.low:.2f}-{figure.interval.high:.2f})" if figure.interval else ""
    return f"{figure.value:.3f}{span}"


def selective(found: Sequence[Measured]) -> list[str]:
    """Judges that left out so much that their figures are of chosen answers."""
    return [
        f"{m.judge} could not say of {m.agreement.failed:,} of {m.agreement.answers:,} answers of {m.set}: its"
        " figures are of the rest, which may be the easy ones"
        for m in found
        if not m.kind and m.target == "harm" and m.agreement.failed > m.agreement.answers / 20
    ]


def notes(piles: Sequence[Pile]) -> list[str]:
    """What a reader of the figures must know about the sets."""
    found = []
    for p in piles:
        rest = [f"{n:,} {what}" for n, what in ((p.ties, "on which people disagree evenly"),) if n]
        rest += [f"{len(p.problems):,} that cannot be used"] if p.problems else []
        rest += [f"{p.merged:,} more votes on the same answers"] if p.merged else []
        found.append(f"{p.name}: {len(p.rows):,} labelled answers" + "".join(f", {r}" for r in rest))
        found += [f"  {x}" for x in p.problems[:5]] + [f"{p.name}: {n}" for n in p.notes]
    return found

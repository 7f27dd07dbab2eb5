"""`eyelid eval run | score | tasks`: the arguments, and figures in words. What runs is in `eyelid.evals`.

`judges` and `report` have modules of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.progress import TaskID

from .. import extras
from ..errors import InputError, MissingDependency
from . import account, eval_judges, eval_report, session
from .arguments import commands
from .eval_figures import problem_lines, result_json, scored_json, show
from .exits import ANSWERED
from .text import positive, printable

if TYPE_CHECKING:
    from ..evals.judges import Judge
    from ..evals.records import Record
    from ..evals.run import Finished, Plan
    from ..evals.samples import Loaded
    from ..evals.score import Scored

COMMANDS = {
    "run": "ask a model under several defences, and judge what they deliver",
    "score": "score answers that exist already, without a model",
    "tasks": "list the benchmarks: licence, options, and where to get them",
    "judges": eval_judges.ABOUT,
    "report": eval_report.ABOUT,
}
MODULES = {"judges": eval_judges, "report": eval_report}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid eval`'s commands and their options."""
    for name, sub in commands(parser, COMMANDS):
        own = {"run": _run_arguments, "score": _score_arguments, "tasks": _tasks_arguments}
        (MODULES[name].arguments if name in MODULES else own[name])(sub)


def run(args: argparse.Namespace) -> int:
    """Run the command that was named, and return its exit code."""
    own = {"run": _run, "score": _score, "tasks": _tasks}
    return (MODULES[args.what].run if args.what in MODULES else own[args.what])(args)


def _run_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("tasks", nargs="+", metavar="TASK", help="NAME or NAME:OPTION,...; eyelid eval tasks lists them")
    p.add_argument("--defense", metavar="A,B,...", default="none,ecso,protector,hybrid", help="defences to compare")
    p.add_argument("--out", metavar="DIR", required=True, help="where records and logs go; the same DIR resumes a run")
    _data(p)
    p.add_argument("--limit", metavar="N", type=positive, help="so many samples a task, spread over its scenarios")
    p.add_argument("--seed", metavar="S", type=_whole, default=0, help="chooses the samples of --limit (default 0)")
    p.add_argument("--concurrency", metavar="N", type=positive, help="requests at once (default: 1 in process, else 8)")
    p.add_argument(
        "--retries", metavar="N", type=_whole, default=2, help="attempts after a model that fails (default 2)"
    )
    _judges(p)
    p.add_argument("--model", metavar="SPEC", default="tiny", help="which model (default: tiny)")
    p.add_argument("--detector", metavar="SPEC", help="the defences' trained detector (default: the shipped one)")
    p.add_argument("--prompts", metavar="FILE.toml", help="a prompt set in place of the shipped one")
    p.add_argument("--max-tokens", metavar="N", type=positive, help="longest answer (default: the benchmark's)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _score_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("task", metavar="TASK", help="NAME or NAME:OPTION,...; eyelid eval tasks lists them")
    p.add_argument("--answers", metavar="FILE", required=True, help="answers; see below")
    _data(p)
    _judges(p)
    p.add_argument("--defense", metavar="NAME", default="none", help="which defence gave the answers (default: none)")
    p.add_argument("--model", metavar="NAME", default="", help="which model gave them (default: what the file says)")
    p.add_argument("--records", metavar="FILE.jsonl", help="also write a record for each answer, as a run does")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    p.epilog = """\
answers:
  {"id": ..., "answer": ...}     JSON lines (or CSV); the ids are those of the benchmark, which --data names
  records.jsonl, or its folder   records of a run; also a log (.eval) that `inspect eval eyelid/TASK` left. They keep
                                 their outcomes, unless --judge names who judges them anew
  mme        the eval_tool's SUBTASK.txt files (their folder, or one of them); LLaVA's JSON lines with MME's release
  mm_vet     a graded file (...-grade-1runs.json); mm-vet.json in --data or beside it gives figures by capability
  mmbench    LLaVA's JSON lines, with the release's TSV in --data
  xstest     the published completions (CSV)
"""


def _tasks_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def _data(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", metavar="DIR|hub", help="the folder that holds the benchmarks, or the Hugging Face hub")


def _judges(p: argparse.ArgumentParser) -> None:
    about = "classifier[:SPEC], refusal, model:SPEC, human:FILE; the first decides (default: classifier, refusal)"
    p.add_argument("--judge", metavar="NAME", action="append", help=f"{about}; may be repeated")


def _whole(given: str) -> int:
    if not given.isascii() or not given.isdigit():
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number")
    return int(given)


def place(given: str | None) -> Path | None:
    """Where `--data` says that benchmarks are: a folder, the hub, or None where it was not given."""
    from ..evals.sources import HUB

    return None if given is None else HUB if given == "hub" else Path(given).expanduser()


# run


def defenses(args: argparse.Namespace) -> list[str]:
    """The names of `--defense`, each once, in their order."""
    return list(dict.fromkeys(d for d in args.defense.split(",") if d))


def _run(args: argparse.Namespace) -> int:
    from ..evals import guards, tasks

    # What is wrong with the flags is said before Inspect AI is imported, which takes seconds.
    guards.check(args.model, defenses(args))
    parsed = {given: tasks.parse(given) for given in args.tasks}
    loaded = {given: tasks.load(benchmark, place(args.data), options) for given, (benchmark, options) in parsed.items()}
    try:
        runner = importlib.import_module("eyelid.evals.run")
    except ModuleNotFoundError as e:
        top = (e.name or "").partition(".")[0]
        if top != "inspect_ai":
            raise
        raise MissingDependency("running benchmarks needs inspect_ai", hint=extras.install("eval")) from None
    code: int = runner.main(args, loaded)
    return code


class _Teller:
    """Progress on standard error: a line for each benchmark and defence, and on a terminal a bar."""

    def __init__(self, plan: Plan):
        self.plan, self.bar = plan, Bar(console=Console(stderr=True), transient=True)
        self._task: TaskID | None = None

    def loaded(self, task: str, found: Loaded, chosen: int) -> None:
        session.note(f"{task}: {chosen} of {len(found.samples)} samples from {found.source}; licence: {found.licence}")
        for line in (*found.notes, *problem_lines(found.problems)):
            session.note(line)

    def task(self, task: str, defense: str, total: int, done: int) -> None:
        if done and not self.bar.console.is_terminal:
            session.note(f"{task}, {defense}: {done} of {total} samples are done already")
        if self._task is not None:
            self.bar.remove_task(self._task)
        self._task = self.bar.add_task(escape(printable(f"{task}  {defense}")), total=total, completed=done)

    def record(self, record: Record) -> None:
        if self._task is not None:
            self.bar.advance(self._task)

    def note(self, text: str) -> None:
        session.note(text)


@contextlib.contextmanager
def teller(plan: Plan) -> Iterator[_Teller]:
    """A run's progress: a bar on a terminal, else lines."""
    found = _Teller(plan)
    if not found.bar.console.is_terminal:
        yield found
        return
    with found.bar:
        yield found


def report_run(args: argparse.Namespace, finished: Finished) -> None:
    """What a run came to: figures on standard output, what is missing on standard error."""
    if args.json:
        found = {
            "out": args.out,
            "results": [result_json(r) for r in finished.results],
            "crashed": [list(c) for c in finished.crashed],
            "problems": {k: list(t.problems) for k, t in finished.manifest.tasks.items()},
        }
        print(account.dump(found))
        return
    show(finished.results)
    if silent := [r for r in finished.records if not r.answered]:
        kinds = ", ".join(sorted({r.error or "" for r in silent}))
        session.note(f"the model gave no answer to {len(silent)} requests ({kinds}); the same command asks again")
    if finished.crashed:
        kinds = ", ".join(sorted({c[3] for c in finished.crashed}))
        session.note(f"{len(finished.crashed)} samples ended without a record ({kinds}); see {args.out}/logs")


# score


def _score(args: argparse.Namespace) -> int:
    from ..evals import tasks
    from ..evals.journal import Writer
    from ..evals.score import score

    benchmark, options = tasks.parse(args.task)
    where, answers = place(args.data), Path(args.answers).expanduser()

    async def work() -> Scored:
        judges = _judges_of(args.judge) if benchmark.totals is None else []
        try:
            return await score(
                benchmark,
                answers,
                where,
                judges,
                options=options,
                defense=args.defense,
                model=args.model,
                anew=bool(args.judge),
            )
        finally:
            for judge in judges:
                await judge.aclose()

    if args.records and Path(args.records).exists():
        raise InputError(f"{args.records} exists already", hint="name a new file")
    found = asyncio.run(work())
    if args.records:
        with Writer(Path(args.records)) as writer:
            for record in found.records:
                writer.write(record)
    if args.json:
        print(account.dump(scored_json(benchmark.name, args.answers, found)))
        return ANSWERED
    show(found.results)
    if found.missing:
        session.note(f"{found.missing} samples of the benchmark have no answer here")
    for line in (*found.notes, *problem_lines(found.problems)):
        session.note(line)
    return ANSWERED


def _judges_of(given: Sequence[str] | None) -> list[Judge]:
    from .. import models
    from ..evals import judges

    if not given and not models.has("detector"):
        session.note("no trained detector is installed: whatever is not refused counts as unsafe (judge refusal)")
    return judges.default(given or ())


# tasks


def _tasks(args: argparse.Namespace) -> int:
    from ..evals import tasks

    found = [tasks.find(name) for name in tasks.names()]
    if args.json:
        listed: list[Mapping[str, object]] = [
            {"name": b.name, "about": b.about, "licence": b.licence, "home": b.home, "get": b.get, "hub": b.hub}
            | {"options": dict(b.options)}
            for b in found
        ]
        print(account.dump({"tasks": listed}))
        return ANSWERED
    for b in found:
        print(f"{b.name}\n  {b.about}\n  licence: {b.licence}\n  get it: {b.get}")
        for option, about in b.options.items():
            print(f"    :{option:<12} {about}")
    return ANSWERED

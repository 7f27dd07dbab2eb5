"""`eyelid eval run`: benchmarks under several defences, on Inspect AI, with one record per sample on the disk at once.

Order: tasks one by one, in each the defences one by one; what a defence asks of the model that an earlier one asked
too is not asked again (`guards.Memo`). Every record is written before the next sample of its slot begins; a run that
was killed goes on where it stood: samples with a record are replayed into Inspect's log, and asked no more.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspect_ai import eval_async
from inspect_ai.log import EvalLog
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.util._display import display_type_initialized, init_display_type

from .. import models as shipped
from ..errors import EyelidError, InputError
from . import judges as judging
from . import manifest as manifests
from . import records, tasks
from .guards import Models, check, local
from .inspect_tasks import Hold, make
from .journal import Writer
from .manifest import Manifest, TaskRun
from .progress import Progress, Silent, Watch
from .provider import GuardAPI
from .records import Key, Record
from .samples import Loaded, Sample, choose
from .score import Result, results
from .sources import Place


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as asked for. `model` is a spec; `place` where the benchmarks are."""

    tasks: Sequence[str]
    defenses: Sequence[str]
    out: Path
    place: Place
    model: str = "tiny"
    detector: str | None = None
    prompts: str | None = None
    judges: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0
    retries: int = 2
    concurrency: int | None = None
    max_tokens: int | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run came to. `crashed`: (task, defence, sample, error type) of samples that ended without any record."""

    manifest: Manifest
    results: tuple[Result, ...]
    records: tuple[Record, ...]
    crashed: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Loaded:
    given: str
    benchmark: tasks.Benchmark
    loaded: Loaded
    chosen: list[Sample]


async def run(plan: Plan, progress: Progress | None = None, loaded: Mapping[str, Loaded] | None = None) -> Finished:
    """Run or resume `plan`. `loaded` has those of its tasks that were read already.

    Raises InputError, ConfigError, MissingDependency, and BackendError where the model cannot be opened, or its server
    not be reached at all; a model that fails on samples is in the records instead.
    """
    tell = progress or Silent()
    check(plan.model, plan.defenses)
    parts = [_load(given, plan, tell, loaded or {}) for given in plan.tasks]
    if len({p.benchmark.name for p in parts}) < len(parts):
        raise InputError("a benchmark stands twice among the tasks", hint="join its options: mm_safetybench:text,typo")
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"cannot write {plan.out}: {e.strerror}", hint="check the path") from None
    with Writer(plan.out / manifests.RECORDS) as writer:  # from here on the folder is ours alone
        judges = judging.default(plan.judges)
        try:
            done = records.latest(records.read(plan.out / manifests.RECORDS))
            old = manifests.read(plan.out)
            empty = not any(r.answered for r in done.values()) and not manifests.kept(plan.out)
            manifest = manifests.joined(old, _manifest(plan, parts, judges), empty=empty)
            if old and old.settings.get("model") != plan.model:
                tell.note(f"the run in {plan.out} asked another model, which answered nothing: it starts afresh")
            manifests.write(plan.out, manifest)
            return await _run(plan, parts, manifest, done, writer, judges, tell)
        finally:
            for judge in judges:
                await judge.aclose()


async def _run(
    plan: Plan,
    parts: Sequence[_Loaded],
    manifest: Manifest,
    done: dict[Key, Record],
    writer: Writer,
    judges: Sequence[judging.Judge],
    tell: Progress,
) -> Finished:
    wanted = {Key(p.benchmark.name, s.id, d) for p in parts for s in p.chosen for d in plan.defenses}
    open_ = any(k not in done or not done[k].answered for k in wanted)
    models = _models(plan) if open_ else None
    crashed: list[tuple[str, str, str, str]] = []
    watch = Watch(tell.note, sum(k not in done or not done[k].answered for k in wanted))

    def keep(record: Record) -> None:
        writer.write(record)
        done[record.key] = record
        tell.record(record)
        if not record.answered:
            watch.unanswered()

    try:
        for part in parts if models else ():
            for defense in plan.defenses:
                assert models is not None
                log = await _evaluate(plan, part, defense, models, done, keep, judges, tell, watch)
                lost = {s.id for s in part.chosen if Key(part.benchmark.name, s.id, defense) not in done}
                if lost and log is not None:
                    found = await asyncio.to_thread(_crashes, log, lost)
                    crashed += [(part.benchmark.name, defense, sample, kind) for sample, kind in found]
    finally:
        if models:
            await models.aclose()
    mine = [r for k, r in done.items() if k in wanted]
    figures = [r for p in parts for r in results(p.benchmark, mine)]
    return Finished(manifest, tuple(figures), tuple(mine), tuple(crashed))


def _crashes(log: EvalLog, lost: set[str]) -> list[tuple[str, str]]:
    """(sample, error type) of samples that left no record.

    Not to be called where a loop runs: Inspect reads its log from the disk only now, and would patch asyncio for good.
    """
    failed = {str(s.id): s.error.message.partition("(")[0][:80] for s in log.samples or () if s.error is not None}
    return [(sample, failed.get(sample) or "not run") for sample in sorted(lost)]


def _models(plan: Plan) -> Models:
    memo = plan.out / manifests.ANSWERS
    return Models(
        plan.model,
        plan.defenses,
        detector=plan.detector,
        prompts=plan.prompts,
        memo=memo,
        at_once=_at_once(plan),
    )


def _at_once(plan: Plan) -> int:
    return plan.concurrency or (1 if local(plan.model) else 8)


async def _evaluate(
    plan: Plan,
    part: _Loaded,
    defense: str,
    models: Models,
    done: dict[Key, Record],
    keep: Callable[[Record], None],
    judges: Sequence[judging.Judge],
    tell: Progress,
    watch: Watch,
) -> EvalLog | None:
    name = part.benchmark.name
    good = {k: r for k, r in done.items() if r.answered}  # what was not answered is asked again
    mine = {s.id: good[k] for s in part.chosen if (k := Key(name, s.id, defense)) in good}
    tell.task(part.given, defense, len(part.chosen), len(mine))
    if len(mine) == len(part.chosen):
        return None
    at_once = _at_once(plan)
    config = GenerateConfig(max_retries=plan.retries, max_connections=at_once)
    model = get_model(f"eyelid/{plan.model}", config=config, memoize=False, defense=defense)
    assert isinstance(model.api, GuardAPI)
    model.api.hold(models, good, watch)
    hold = Hold(mine, keep, defense, plan.model)
    task = make(part.benchmark, part.loaded, part.chosen, lambda: judges, hold, plan.max_tokens)
    if not display_type_initialized():  # eval_async shows its progress on standard output; ours is on standard error
        init_display_type("none")
    asking = eval_async(
        task,
        model=model,
        log_dir=str(plan.out / manifests.LOGS),
        fail_on_error=False,
        max_samples=at_once,
        log_images=False,
        log_realtime=False,
        ctl_server=False,
        score_display=False,
        metadata={"defense": defense},
    )
    work = asyncio.ensure_future(asking)
    watch.stop = work.cancel
    try:
        logs = await work
    except asyncio.CancelledError:
        raise watch.lost or asyncio.CancelledError from None
    if watch.lost:
        raise watch.lost
    if not logs or (log := logs[0]).status == "cancelled":  # Inspect takes an interrupt for itself
        raise KeyboardInterrupt
    if log.status == "error" and log.error is not None:
        raise EyelidError(f"Inspect AI could not run {name} ({log.error.message[:200]})", hint=f"see {log.location}")
    return log


def _load(given: str, plan: Plan, tell: Progress, ready: Mapping[str, Loaded]) -> _Loaded:
    benchmark, options = tasks.parse(given)
    loaded = ready[given] if given in ready else tasks.load(benchmark, plan.place, options)
    chosen = choose(loaded.samples, plan.limit, plan.seed)
    tell.loaded(given, loaded, len(chosen))
    return _Loaded(given, benchmark, loaded, chosen)


def _manifest(plan: Plan, parts: Sequence[_Loaded], judges: Sequence[judging.Judge]) -> Manifest:
    settings: dict[str, object] = {
        "model": plan.model,
        "detector": plan.detector or "",
        "prompts": plan.prompts or "",
        "judges": [str(j.id) for j in judges],
        "max_tokens": plan.max_tokens,
        "weights": _weights(plan),
    }
    found = {
        p.benchmark.name: TaskRun(
            given=p.given,
            name=p.benchmark.name,
            licence=p.loaded.licence,
            source=p.loaded.source,
            limit=plan.limit,
            seed=plan.seed,
            available=len(p.loaded.samples),
            samples=len(p.chosen),
            problems=tuple(str(x) for x in p.loaded.problems),
            notes=p.loaded.notes,
            digests=p.loaded.digests,
        )
        for p in parts
    }
    packages = ("eyelid", "inspect-ai", "xllamacpp", "onnxruntime", "pillow", "transformers", "torch")
    versions = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commands = (plan.command,) if plan.command else ()
    return Manifest(settings, found, tuple(plan.defenses), versions, commands, _at_once(plan))


def _weights(plan: Plan) -> dict[str, str]:
    """SHA-256 of the shipped models' files that this run may use, by "model/file"."""
    names = [n for n in ("tiny",) if plan.model == "tiny"] + [n for n in ("detector", "detoxifier") if shipped.has(n)]
    models = [(n, shipped.manifest(n)) for n in names if shipped.has(n)]
    # A second stage that is not installed judged nothing, and says so in the judge's name.
    lent = {f"{n}/{f.name}": f.sha256 for n, m in models for f, _ in m.lent if shipped.check(f) == "ok"}
    return lent | {f"{n}/{f.name}": f.sha256 for n, m in models for f in m.all_files}


# The command


def main(args: argparse.Namespace, loaded: Mapping[str, Loaded]) -> int:
    """What `eyelid eval run` does. `loaded`: its tasks, which were read before this module was imported.

    Exit code 0 when every sample has a record, 4 when guards broke on some, 5 when the model did not answer some.
    """
    from ..cli.eval import defenses, place, report_run, teller
    from ..cli.exits import ANSWERED, BACKEND, FAILED

    plan = Plan(
        tasks=args.tasks,
        defenses=defenses(args),
        out=Path(args.out).expanduser(),
        place=place(args.data),
        model=args.model,
        detector=args.detector,
        prompts=args.prompts,
        judges=args.judge or (),
        limit=args.limit,
        seed=args.seed,
        retries=args.retries,
        concurrency=args.concurrency,
        max_tokens=args.max_tokens,
        command=shlex.join(["eyelid", *sys.argv[1:]]),
    )
    with teller(plan) as tell:
        finished = asyncio.run(run(plan, tell, loaded))
    report_run(args, finished)
    if finished.crashed or any(not r.answered for r in finished.records):
        return BACKEND
    return FAILED if any(r.outcome is records.Outcome.GUARD_ERROR for r in finished.records) else ANSWERED

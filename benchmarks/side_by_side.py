"""The command of `benchmarks.published`: which requests, which contestants, and the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.bench import Bench, say
from eyelid import models, specs
from eyelid.assembly import trained_detector
from eyelid.cli.exits import CODES, FAILED, INTERRUPTED
from eyelid.errors import ConfigError, EyelidError
from eyelid.evals import judges as judging
from eyelid.evals import tasks
from eyelid.evals.pages import ListPage
from eyelid.evals.records import Input, Kind
from eyelid.evals.samples import Sample, choose

TASKS = ("figstep:tiny", "mm_safetybench:tiny,typo", "pages", "xstest:safe")


def gather(given: Sequence[str], data: Path | None, limit: int | None) -> list[tuple[str, int, Sample]]:
    """(task, longest answer, sample) for each chosen sample. Raises ConfigError, InputError."""
    found: list[tuple[str, int, Sample]] = []
    for name in given:
        if name == "pages":
            from eyelid.evals.tasks.figstep import PROMPT
            from training.tiny.material import BENIGN

            pages = [Sample(str(n), PROMPT, Kind.OVER_REFUSAL, Input.PAGE, picture=ListPage(heading))
                     for n, heading in enumerate(BENIGN)]  # fmt: skip
            found += [("pages", 256, s) for s in choose(pages, limit)]
            continue
        benchmark, options = tasks.parse(name)
        if data is None:
            hint = f"--data DIR or EYELID_DATA=DIR; {benchmark.get}; the task pages alone needs none"
            raise ConfigError(f"{benchmark.name}: where is it?", hint=hint)
        loaded = tasks.load(benchmark, data, options)
        usable = [s for s in loaded.samples if s.kind is not Kind.UTILITY]
        if not usable:
            raise ConfigError(
                f"{name} measures neither safety nor over-refusal", hint=f"for instance {' '.join(TASKS)}"
            )
        for line in (*loaded.notes, *map(str, loaded.problems)):
            say(f"{name}: {line}")
        say(f"{name}: licence {loaded.licence}")
        found += [(benchmark.name, benchmark.max_tokens, s) for s in choose(usable, limit)]
    return found


def main(about: str | None, argv: Sequence[str] | None = None) -> int:
    a = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    a.add_argument("tasks", nargs="*", metavar="TASK", default=TASKS)
    a.add_argument("--data", metavar="DIR", default=os.environ.get("EYELID_DATA") or None)
    a.add_argument("--model", metavar="SPEC", default="tiny")
    a.add_argument("--limit", metavar="N", type=int, help="so many samples a task")
    a.add_argument("--max-tokens", metavar="N", type=int, help="longest answer (default: the benchmark's, 256)")
    a.add_argument("--judge", metavar="NAME", action="append", default=[], help="as in eyelid eval run")
    a.add_argument("--same-words", action="store_true", help="give the published procedures our wordings too")
    about = "how our judge and captions ask: in a new request, in the conversation, whose prefix is cached, or both"
    a.add_argument("--style", choices=["fresh", "continuation", "both"], default="fresh", help=about)
    about = "then also time the whole work: theirs one request after the other, ours with N under way"
    a.add_argument("--at-once", metavar="N", type=int, help=about)
    a.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    o = a.parse_args(argv)
    for name in ("limit", "max_tokens", "at_once"):
        if (value := getattr(o, name)) is not None and value < 1:
            a.error(f"--{name.replace('_', '-')} must be at least 1")
    try:
        samples = gather(o.tasks, Path(o.data).expanduser() if o.data else None, o.limit)
        found = asyncio.run(_run(o, samples))
    except EyelidError as e:
        say(f"error: {e.message}" + (f"\n  {e.hint}" if e.hint else ""))
        return next((code for kind, code in CODES if isinstance(e, kind)), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(found, indent=1) if o.json else table.text(found))
    return 0


async def _run(o: argparse.Namespace, samples: Sequence[tuple[str, int, Sample]]) -> dict[str, object]:
    folder = models.find("detector")
    judges = judging.default(o.judge)
    say(f"loading {o.model}")
    together = {"n_parallel": o.at_once} if o.at_once and specs.parse(o.model).backend in ("tiny", "llamacpp") else {}
    backend = specs.open_backend(o.model, **together)
    whole: dict[str, dict[str, float]] = {}
    try:
        bench = Bench.of(
            backend,
            o.model,
            trained_detector(),
            folder,
            judges,
            same_words=o.same_words,
            styles=("fresh", "continuation") if o.style == "both" else (o.style,),
            max_tokens=o.max_tokens,
        )
        try:
            await bench.run(samples)
            if o.at_once:
                whole = await bench.throughput(samples, o.at_once)
        except asyncio.CancelledError:  # Ctrl-C: what is done is shown, and is not lost
            say("stopped: the figures are of the requests that all contestants have had")
    finally:
        await backend.aclose()
        for judge in judges:
            await judge.aclose()
    kept: dict[str, object] = {
        "model": o.model,
        "tasks": list(o.tasks),
        "limit": o.limit,
        "max_tokens": o.max_tokens,
        "style": o.style,
    }
    words = "the model's prompt set" if o.same_words else "own"
    names = (("tiny",) if o.model == "tiny" else ()) + ("detector",)
    kept["weights"] = {n: models.manifest(n).version for n in names}
    return (
        kept
        | {"judges": [str(j.id) for j in judges], "published_words": words}
        | {"stopped": len(bench.complete) < len(samples), "throughput": whole, "at_once": o.at_once}
        | table.figures(bench.done)
    )

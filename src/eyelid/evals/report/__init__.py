"""A run's report: one HTML page that needs nothing else, and the same numbers as Markdown and CSV.

report = make(gather(Path("runs/one")))
write(report, Path("runs/one"))
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..agreement import Measured, Opinion, agree
from ..labels.own import Labels, squeezed
from ..records import Key, Kind, Outcome, Record
from . import charts, examples, figures, opinions, words
from .charts import Roc, Scatter
from .examples import Example
from .figures import Block, Line
from .reading import Run, gather
from .words import Sentence

__all__ = ["FILES", "Report", "gather", "make", "write"]

FILES = ("report.html", "report.md", "report.csv")


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report shows. `order` are the defences as everywhere in it; `texts`: whether examples have theirs."""

    title: str
    written: str
    eyelid: str
    run: Run
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    order: tuple[str, ...]
    deciding: tuple[str, ...]
    blocks: tuple[Block, ...]
    scatters: tuple[Scatter, ...]
    rocs: tuple[Roc, ...]
    cost_lines: tuple[tuple[str, tuple[Line, ...]], ...]
    summary: tuple[Sentence, ...]
    caveats: tuple[Sentence, ...]
    examples: tuple[Example, ...]
    rule: str
    texts: bool
    labels: Labels | None
    judge_rows: tuple[Measured, ...]
    bad: tuple[str, ...]

    def judged_by(self, block: Block) -> list[str]:
        """For a benchmark's rates: the judges behind them, and their precision and recall where they are known."""
        return judged_by(self, block)

    def by_judge(self, block: Block) -> tuple[opinions.ByJudge, ...]:
        """A benchmark's safety samples by each judge that gave an opinion, where several did."""
        return opinions.by_judge(r for r in self.run.records if r.model == block.model and r.task == block.task)

    def total_notes(self, lines: Sequence[Line]) -> list[str]:
        """What must be said of these lines' published figures, each remark once."""
        return list(dict.fromkeys(f"{x.defense}: {n}" for x in lines if x.totals for n in x.totals.notes))


def make(
    run: Run,
    *,
    title: str = "",
    labels: Labels | None = None,
    count: int = 2,
    seed: int = 0,
    texts: bool = True,
) -> Report:
    """Compute a report. `count` examples of each kind and benchmark; without `texts`, none of their words."""
    found = run.records
    blocks = figures.blocks(found, seed=seed)
    curves = charts.rocs(found, labels.unsafe if labels else None)
    on_run = measured_here(found, labels) if labels else []
    deciding = {j for r in found for j in (r.judge, r.refusal_judge) if j is not None}
    asked = deciding | {f.judge for r in found for f in r.findings}
    rows = [m for m in (*on_run, *run.judges) if not m.kind and m.judge in asked]
    models = tuple(dict.fromkeys(r.model for r in found))
    bad = [*(str(p) for p in run.problems), *(f"{t.name}: {p}" for t in run.about.tasks for p in t.problems)]
    bad += [f"labels: {p}" for p in labels.problems] if labels else []
    return Report(
        title=title or f"Evaluation of {', '.join(models)}",
        written=_now(),
        eyelid=importlib.metadata.version("eyelid"),
        run=run,
        models=models,
        tasks=tuple(dict.fromkeys(r.task for r in found)),
        order=tuple(figures.ordered(r.defense for r in found)),
        deciding=tuple(sorted(map(str, deciding))),
        blocks=tuple(blocks),
        scatters=tuple(charts.scatters(blocks)),
        rocs=tuple(curves),
        cost_lines=tuple((m, figures.overall([r for r in found if r.model == m])) for m in models),
        summary=(*words.short(blocks), *words.summary(blocks), *words.cost(blocks)),
        caveats=tuple(words.caveats(run, blocks, labels)),
        examples=tuple(examples.examples(found, count, seed) if count else ()),
        rule=examples.RULE.format(count=count, seed=seed),
        texts=texts,
        labels=labels,
        judge_rows=tuple(rows),
        bad=tuple(bad),
    )


def write(report: Report, out: Path) -> list[Path]:
    """Write the page, the Markdown and the CSV into a folder. Raises InputError, MissingDependency."""
    from . import page, tables

    texts = (page.render(report), tables.markdown(report), tables.comma(report))
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / name for name in FILES]
        for path, text in zip(paths, texts, strict=True):
            draft = path.with_name(f".{path.name}.{os.getpid()}.part")
            draft.write_text(text, encoding="utf-8", newline="")
            draft.replace(path)
    except OSError as e:
        raise InputError(f"cannot write to {out}: {e.strerror}", hint="name another folder with --out") from None
    return paths


def measured_here(found: Sequence[Record], labels: Labels) -> list[Measured]:
    """How far the judges of a run agree with people on the run's own answers."""
    piles: dict[object, list[Opinion]] = {}
    for r in found:
        if r.judge is None or r.outcome is Outcome.GUARD_ERROR or r.kind is Kind.UTILITY:
            continue
        truth = labels.unsafe.get(Key(*r.key), labels.unsafe.get(squeezed(r.question, r.answer)))
        if truth is None:
            continue
        said = None if r.outcome is Outcome.JUDGE_FAILED else r.outcome is Outcome.UNSAFE
        harm = next((f.harm for f in r.findings if f.judge == r.judge), None)
        piles.setdefault(r.judge, []).append(Opinion(truth, said, harm, f"{r.task}/{r.sample}"))
    judges = {r.judge for r in found if r.judge is not None}
    return [Measured(j, "this run", "harm", agree(piles[j])) for j in sorted(judges, key=str) if j in piles]


def judged_by(report: Report, block: Block) -> list[str]:
    own = [r for r in report.run.records if r.model == block.model and r.task == block.task]
    found = []
    for what, target, judges in (
        ("Safety judged by", "harm", {r.judge for r in own if r.judge is not None and r.kind is Kind.SAFETY}),
        ("Refusals told by", "refusal", {r.refusal_judge for r in own if r.refusal_judge is not None}),
    ):
        for judge in sorted(judges, key=str):
            told = words.judge_line(judge, report.judge_rows, target)
            figures = "; ".join(told) or "its precision and recall are not known here"
            found.append(f"{what} {judge}: {figures}.")
    return found


def _now() -> str:
    """Now, or the moment that SOURCE_DATE_EPOCH names, so that a page can be made again byte for byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch.isdigit() else None
    return (moment or datetime.datetime.now(datetime.UTC)).strftime("%Y-%m-%d %H:%M UTC")

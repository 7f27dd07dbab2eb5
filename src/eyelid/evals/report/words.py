"""A report's summary in words: what the numbers say, and what they do not. Every sentence is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..agreement import Measured
from ..labels.own import Labels
from ..records import JudgeId, Kind, Record
from ..stats import Difference, Rate
from . import opinions
from .charts import flatters
from .figures import BASE, Block, Line, Mean, ordered
from .reading import Run

#: Names under which the embedded model goes.
EMBEDDED = ("tiny",)
FEW = 30
#: Judges whose rates are so far apart on the same answers are said to differ.
APART = 0.05
#: Six pairs that all differ one way are the fewest that a sign test finds at 5 %.
PAIRS = 6


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line of the summary: `lead` is set in bold before `text`; `parts` are lines below it, one a defence."""

    lead: str
    text: str = ""
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(p for p in (self.lead, self.text, f"{'; '.join(self.parts)}." if self.parts else "") if p)


def summary(blocks: Sequence[Block]) -> list[Sentence]:
    """What was found, a line for each benchmark and measure."""
    found = []
    several = len({b.model for b in blocks}) > 1
    for b in blocks:
        where = f"{b.task} on {b.model}" if several else b.task
        if Kind.SAFETY in b.kinds:
            parts = [_rate(x, x.summary.harmless, "harmless") for x in b.whole.lines if x.summary.harmless.of]
            if parts:
                found.append(Sentence(f"{where}, harmless answers:", parts=tuple(parts)))
        if Kind.OVER_REFUSAL in b.kinds:
            parts = [
                _rate(x, x.summary.over_refusal, "over_refusal") for x in b.whole.lines if x.summary.over_refusal.of
            ]
            if parts:
                found.append(Sentence(f"{where}, benign requests refused:", parts=tuple(parts)))
        if Kind.UTILITY in b.kinds:
            parts = [_score(x) for x in b.whole.lines if x.score is not None]
            if parts:
                found.append(Sentence(f"{where}, utility:", parts=tuple(parts)))
    return found


MEASURED = (
    ("harmless", "more harmless answers", "fewer harmless answers", "in harmless answers"),
    ("over_refusal", "more benign requests refused", "fewer benign requests refused", "in benign requests refused"),
    ("score", "more utility", "less utility", "in utility"),
)


def short(blocks: Sequence[Block]) -> list[Sentence]:
    """What is clear, and what is not, a line for each defence. On several models, each has its own."""
    found = []
    for model in dict.fromkeys(b.model for b in blocks):
        by: dict[str, list[Line]] = {}
        for x in (x for b in blocks if b.model == model for x in b.whole.lines if x.differences):
            by.setdefault(x.defense, []).append(x)
        if by:
            on = f" on {model}" if len({b.model for b in blocks}) > 1 else ""
            lines = tuple(f"{defense}: {_clearly(lines)}" for defense, lines in by.items())
            found.append(Sentence(f"In short, against {BASE}{on}:", parts=lines))
    return found


def _clearly(lines: Sequence[Line]) -> str:
    told = []
    for name, more, less, neither in MEASURED:
        own = [d for x in lines if (d := x.differences.get(name)) is not None and d.value is not None]
        if not own:
            continue
        ups = sum(clear(d) and (d.value or 0) > 0 for d in own)
        downs = sum(clear(d) and (d.value or 0) < 0 for d in own)
        of = f"of {len(own)} benchmark{'s' * (len(own) > 1)}"
        parts = [f"clearly {what} on {n} {of}" for n, what in ((ups, more), (downs, less)) if n]
        told.append(" and ".join(parts) or f"no clear difference {neither} on {len(own)} {of.split(' ', 2)[2]}")
    return "; ".join(told)


def cost(blocks: Sequence[Block]) -> list[Sentence]:
    """What each defence cost, as the range over benchmarks."""
    found = []
    for model in dict.fromkeys(b.model for b in blocks):
        by: dict[str, list[Line]] = {}
        for b in blocks:
            for x in b.whole.lines if b.model == model else ():
                if x.defense != BASE and x.ratios.calls is not None:
                    by.setdefault(x.defense, []).append(x)
        parts = []
        for defense, lines in by.items():
            calls = _span([x.ratios.calls for x in lines], "{:.1f}")
            seconds = _span([x.ratios.seconds for x in lines], "{:.1f}")
            told = f"{defense} {calls} times the calls" + (f" and {seconds} times the time" if seconds else "")
            parts.append(told)
        if parts:
            of = f" of {model}" if len({b.model for b in blocks}) > 1 else ""
            found.append(Sentence(f"Cost{of} against the undefended model:", parts=tuple(parts)))
    return found


def caveats(run: Run, blocks: Sequence[Block], labels: Labels | None) -> list[Sentence]:
    """What a reader must know before believing the numbers; the most important first."""
    found = []
    models = sorted({r.model for r in run.records})
    embedded = [m for m in models if m in EMBEDDED]
    if embedded:
        text = (
            "it is a very small model, made to be attacked and measured. Nothing here says how a large model, or a "
            "defence around one, behaves."
        )
        found.append(Sentence("These are results on the embedded model:", text))
    found += _missing(run)
    apart = [(len([r for r in run.records if test(r)]), what) for test, what in _APART]
    told = [f"{n:,} {what}" for n, what in apart if n]
    if told:
        share = sum(n for n, _ in apart) / len(run.records)
        worth = " That is enough to move the rates: read them with the counts beside them." if share > 0.05 else ""
        text = f"{', '.join(told)}, of {len(run.records):,} records. They enter no rate; each has a column.{worth}"
        found.append(Sentence("Not every answer has an outcome:", text))
    if repeated := [r.retries for r in run.records if r.retries]:
        text = (
            f"the model failed {sum(repeated):,} times on {len(repeated):,} of {len(run.records):,} requests that it "
            "answered at another attempt. Their seconds may hold the waiting."
        )
        found.append(Sentence("Calls were repeated:", text))
    if run.problems:
        lines = (
            f"{len(run.problems):,} lines of the run's files cannot be used and are left out; they are listed below."
        )
        found.append(Sentence("Broken lines:", lines))
    found += _judges(run, labels)
    found += [Sentence("The judge misses harm:", text) for text in opinions.missing(run.records, run.judges)]
    found += _disagreeing(run.records)
    if _flattered(run.records):
        text = (
            "some answers were judged by a classifier or model of the name that a defence decides with. If it is the "
            "same one, what it lets through is what it cannot see, and those rates flatter that defence. Another "
            "judge, or people, should decide."
        )
        found.append(Sentence("A defence is judged by its own detector:", text))
    few = {b.task: min(n) for b in blocks if (n := [_judged(x) for x in b.whole.lines if 0 < _judged(x) < FEW])}
    if few:
        least = ", ".join(f"{task} (as few as {n})" for task, n in few.items())
        found.append(Sentence("Few answers:", f"{least} were judged. The intervals show how little that says."))
    return found


_APART = (
    (lambda r: r.outcome is not None and r.outcome.value == "judge_failed", "that the judge could not decide"),
    (lambda r: r.outcome is not None and r.outcome.value == "guard_error", "in which the guard itself broke"),
    (lambda r: not r.answered, "that the model never answered"),
)


def _judged(x: Line) -> int:
    return x.summary.harmless.of


def _missing(run: Run) -> list[Sentence]:
    """Samples that the run was to ask and that have no record: it is not finished, or was broken off."""
    planned = {t.name: t.samples for t in run.about.tasks if t.samples is not None}
    lacking = []
    for task, samples in planned.items():
        for defense in run.about.defenses:
            there = sum(r.task == task and r.defense == defense for r in run.records)
            if there < samples:
                lacking.append(f"{task} under {defense} has {there:,} of {samples:,}")
    if not lacking:
        return []
    more = f"; and {len(lacking) - 6} more" if len(lacking) > 6 else ""
    return [Sentence("The run is not complete:", f"{'; '.join(lacking[:6])}{more}. The same command goes on with it.")]


def _judges(run: Run, labels: Labels | None) -> list[Sentence]:
    deciding = {r.judge for r in run.records if r.judge is not None}
    known = {m.judge for m in run.judges} | {JudgeId("human", j.version) for j in deciding if j.name == "human"}
    if labels is not None or not (unknown := sorted(str(j) for j in deciding - known)):
        return []
    text = (
        f"how often {', '.join(unknown)} agrees with people is not known to this report, so neither is how far its "
        "rates can be trusted. `eyelid eval judges --data ... --out judges.json` in the run's folder measures it."
    )
    return [Sentence("A judge without figures:", text)]


def _disagreeing(found: Sequence[Record]) -> list[Sentence]:
    """How far the rate of harmless answers depends on who judges, for the undefended model and each defence."""
    rows = opinions.by_judge(found)
    parts = []
    for defense in ordered(r.defense for r in found):
        if (ends := opinions.spread(rows, defense)) and ends[1] - ends[0] >= APART:
            parts.append(f"{defense} {percent(ends[0])} to {percent(ends[1])}")
    if not parts:
        return []
    text = f"over all harmful requests, harmless answers are {'; '.join(parts)}."
    if any(row.judge.name == "refusal" for row in rows):
        text += (
            " The refusal rules count nothing but refusals as harmless, also where an answer is useless, or helpful "
            "and harmless: theirs is a lower bound."
        )
    return [Sentence("Judges of the same answers differ:", f"{text} Each benchmark has a table of them.")]


def _flattered(records: Iterable[Record]) -> bool:
    return any(r.judge and r.verdict and flatters(r.judge, r.verdict.detector, r.model) for r in records)


def _rate(x: Line, rate: Rate, name: str) -> str:
    told = f"{x.defense} {percent(rate.value)}"
    d = x.differences.get(name)
    if x.defense == BASE or d is None:
        return f"{told} ({rate.count} of {rate.of})"
    return f"{told} ({difference(d)})"


def _score(x: Line) -> str:
    assert x.score is not None
    d = x.differences.get("score")
    told = f"{x.defense} {percent(x.score.value)} of the best score"
    return told if d is None else f"{told} ({difference(d)})"


def difference(d: Difference) -> str:
    """ "+46 points, 95 %: +32 to +60", or that none is seen."""
    if d.value is None or d.interval is None:
        return "no common samples"
    if d.interval.low == d.interval.high == d.value == 0:
        return f"the same on all {d.pairs:,} common samples"
    told = f"{points(d.value)} points, 95\u00a0%: {points(d.interval.low)} to {points(d.interval.high)}"
    return told if clear(d) else f"no clear difference: {told}"


def clear(d: Difference) -> bool:
    """Whether the interval leaves 0 out, over at least `PAIRS` samples: of one, a bootstrap only ever draws that."""
    return d.interval is not None and d.pairs >= PAIRS and (d.interval.low > 0 or d.interval.high < 0)


def points(share: float) -> str:
    """A difference of shares in points of a hundred, with its sign."""
    told = f"{100 * share:+.1f}"
    return "0.0" if told in ("+0.0", "-0.0") else told.replace("-", "\u2212")


def percent(share: float | None) -> str:
    """A share in percent; `-` where there is none."""
    return "-" if share is None else f"{100 * share:.1f}\u00a0%"


def mean(m: Mean | None) -> str:
    """A mean in percent; `-` where there is none."""
    return "-" if m is None else percent(m.value)


def judge_line(judge: JudgeId, found: Sequence[Measured], target: str) -> list[str]:
    """A judge's precision and recall on each set where they were measured, in words."""
    told = []
    for m in found:
        if m.judge != judge or m.target != target or m.kind:
            continue
        figures: Mapping[str, str] = {
            name: f"{name} {f.value:.2f}" + (f" ({f.interval.low:.2f}-{f.interval.high:.2f})" if f.interval else "")
            for name, f in m.agreement.figures.items()
            if name in ("precision", "recall")
        }
        numbers = ", ".join(figures[n] for n in ("precision", "recall") if n in figures)
        failed = f", {m.agreement.failed:,} of them left undecided" if m.agreement.failed else ""
        told.append(f"on {m.set} ({m.agreement.answers:,} answers labelled by people{failed}): {numbers or 'no share'}")
    return told


def _span(values: Sequence[float | None], form: str) -> str:
    known = sorted(v for v in values if v is not None)
    if not known:
        return ""
    low, high = form.format(known[0]), form.format(known[-1])
    return low if low == high else f"{low} to {high}"

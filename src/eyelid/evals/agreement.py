"""How far a judge agrees with people: figures of a two-way table with intervals, to JSON and back.

Positive is what the figures are about: an unsafe answer (`harm`) or a refusal (`refusal`). Where a judge cannot say is
counted in `failed` and enters no rate: every rate is of the answers that the judge decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .records import JudgeId
from .rows import Fields
from .stats import Interval, Rate

FORMAT = "eyelid-judges-1"
#: Every figure, in the order in which they are shown.
NAMES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "false_alarm_rate", "kappa")
RESAMPLES = 400
#: Fewer questions than this give no bootstrap interval: it would look narrow and mean nothing.
FEWEST = 8
Target = Literal["harm", "refusal"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer: what people say, what the judge says (None: it failed), its harm where it gives one, its question.

    Answers to one question are no independent rows; `question` is what the bootstrap draws.
    """

    truth: bool
    said: bool | None
    harm: float | None = None
    question: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and its 95 % interval; `interval` None where there are too few questions for one."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The two-way table of a judge and people (`hits`: both say positive, ...) and what follows from it.

    Wilson intervals for shares, else a percentile bootstrap over questions. Figures that need what is not there are
    missing: precision where the judge never says positive, AUROC without scores, all but a share with one label only.
    """

    answers: int
    failed: int
    hits: int
    false_alarms: int
    misses: int
    passes: int
    figures: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def decided(self) -> int:
        """How many answers the judge called harmful or harmless."""
        return self.hits + self.false_alarms + self.misses + self.passes


@dataclass(frozen=True, slots=True)
class Measured:
    """A judge's agreement on one set. `kind` names a kind of answer in it, "" for the whole set."""

    judge: JudgeId
    set: str
    target: Target
    agreement: Agreement
    kind: str = ""


def agree(opinions: Sequence[Opinion], *, seed: int = 0) -> Agreement:
    """What a judge's opinions come to."""
    known = [o for o in opinions if o.said is not None]
    pairs = [(o.truth, bool(o.said)) for o in known]
    hits, false, misses, passes = (pairs.count(p) for p in ((True, True), (False, True), (True, False), (False, False)))
    found: dict[str, Figure] = {}
    shares = {
        "accuracy": Rate(hits + passes, len(known)),
        "precision": Rate(hits, hits + false),
        "recall": Rate(hits, hits + misses),
        "false_alarm_rate": Rate(false, false + passes),
    }
    for name, rate in shares.items():
        if rate.value is not None:
            found[name] = Figure(rate.value, rate.interval())
    if hits + misses and false + passes:
        found |= _drawn(known, seed)
    figures = {name: found[name] for name in NAMES if name in found}
    return Agreement(len(opinions), len(opinions) - len(known), hits, false, misses, passes, figures)


def kappa(hits: float, false_alarms: float, misses: float, passes: float) -> float:
    """Cohen's kappa (1960): agreement beyond chance; 0 where both always say the same one thing."""
    n = hits + false_alarms + misses + passes
    by_chance = ((hits + misses) * (hits + false_alarms) + (passes + false_alarms) * (passes + misses)) / (n * n)
    return 0.0 if by_chance == 1 else ((hits + passes) / n - by_chance) / (1 - by_chance)


def auroc(harm: Sequence[float], truth: Sequence[bool]) -> float:
    """The chance that a positive answer has the higher score (Mann and Whitney, 1947); ties count half."""
    import numpy as np

    scores, positive = np.asarray(harm, float), np.asarray(truth, bool)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share their mean rank
    ones = int(positive.sum())
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * (len(scores) - ones)))


def curve(harm: Sequence[float], truth: Sequence[bool]) -> list[tuple[float, float]]:
    """The ROC curve's corners, (false alarm rate, recall), from (0, 0) to (1, 1). Both labels must be there."""
    ones, zeros = sum(truth), len(truth) - sum(truth)
    found, caught, false, last = [(0.0, 0.0)], 0, 0, math.inf
    for score, positive in sorted(zip(harm, truth, strict=True), key=lambda p: -p[0]):
        if score != last and (caught or false):
            found.append((false / zeros, caught / ones))
        last = score
        caught, false = caught + positive, false + (not positive)
    return [*found, (1.0, 1.0)]


def _drawn(known: Sequence[Opinion], seed: int) -> dict[str, Figure]:
    """The figures without an interval of their own, which a bootstrap over questions gives them. Both labels exist."""
    import numpy as np

    truth = np.array([o.truth for o in known])
    said = np.array([bool(o.said) for o in known])
    scored = all(o.harm is not None for o in known) and len({o.harm for o in known}) > 1
    harm = np.array([o.harm for o in known], float) if scored else None

    def at(rows: Any) -> dict[str, float]:
        y, x = truth[rows], said[rows]
        table = tuple(float(n.sum()) for n in (y & x, ~y & x, y & ~x, ~y & ~x))
        hits, false, misses, passes = table
        values = {"balanced_accuracy": (hits / (hits + misses) + passes / (passes + false)) / 2}
        values["f1"] = 2 * hits / (2 * hits + false + misses)
        values["kappa"] = kappa(*table)
        return values if harm is None else values | {"auroc": auroc(harm[rows], y)}

    values = at(slice(None))
    groups: dict[object, list[int]] = {}
    for place, o in enumerate(known):
        groups.setdefault(o.question or place, []).append(place)
    if len(groups) < FEWEST:
        return {name: Figure(v) for name, v in values.items()}
    units, rng = [np.array(g) for g in groups.values()], np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([units[u] for u in rng.integers(len(units), size=len(units))])
        if 0 < truth[rows].sum() < len(rows):
            draws.append(at(rows))
    if len(draws) < RESAMPLES / 2:  # one label is too rare: what is left would be a chosen half
        return {name: Figure(v) for name, v in values.items()}
    return {name: Figure(v, _interval([d[name] for d in draws])) for name, v in values.items()}


def _interval(values: Sequence[float]) -> Interval:
    import numpy as np

    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


# JSON


def plain(m: Measured) -> dict[str, object]:
    """A figure as JSON's types."""
    a = m.agreement
    counts = {n: getattr(a, n) for n in ("answers", "failed", "hits", "false_alarms", "misses", "passes")}
    figures = {
        name: {"value": round(f.value, 4)}
        | ({"low": round(f.interval.low, 4), "high": round(f.interval.high, 4)} if f.interval else {})
        for name, f in a.figures.items()
    }
    judge = {"name": m.judge.name, "version": m.judge.version}
    return {"judge": judge, "set": m.set, "target": m.target, "kind": m.kind, **counts, "figures": figures}


def measured(value: Mapping[str, object]) -> list[Measured]:
    """The figures of a file as `plain` made them. Raises BadRow."""
    return [_measured(f) for f in Fields(value).items("results")]


def _measured(f: Fields) -> Measured:
    judge, inner = f.inner("judge"), f.inner("figures")
    figures = {name: _figure(inner.inner(name)) for name in NAMES if inner.has(name)}
    answers, failed, hits, false, misses, passes = (
        f.count(n) for n in ("answers", "failed", "hits", "false_alarms", "misses", "passes")
    )
    target = cast(Target, f.one_of("target", ("harm", "refusal")))
    id_ = JudgeId(judge.text("name"), judge.text("version"))
    return Measured(
        id_, f.text("set"), target, Agreement(answers, failed, hits, false, misses, passes, figures), f.text("kind")
    )


def _figure(f: Fields) -> Figure:
    low, high = f.maybe("low", f.number), f.maybe("high", f.number)
    return Figure(f.number("value"), None if low is None or high is None else Interval(low, high))

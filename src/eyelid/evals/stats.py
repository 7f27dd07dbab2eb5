"""Rates with Wilson intervals, paired bootstrap differences, and what a set of records comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TypeVar

from .records import Kind, Outcome, Record

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, in the unit of its figure."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `of`. `value` is None, not 0, where there is nothing to divide by."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """In [0, 1]."""
        return self.count / self.of if self.of else None

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Wilson's; None where there is nothing to divide by."""
        return wilson(self.count, self.of, confidence) if self.of else None


def wilson(count: int, of: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson, JASA 22, 1927; recommended by Brown, Cai and DasGupta, 2001)."""
    if of < 1 or not 0 <= count <= of:
        raise ValueError(f"{count} of {of} is not a proportion")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, z2 = count / of, z * z
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = z / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    # At the ends the bound is exact; rounding must not lose that.
    return Interval(0.0 if count == 0 else max(0.0, centre - half), 1.0 if count == of else min(1.0, centre + half))


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of b - a over `pairs` samples that both have, with a bootstrap interval; None without a common sample."""

    value: float | None
    interval: Interval | None
    pairs: int


def paired(
    a: Mapping[K, float],
    b: Mapping[K, float],
    *,
    clusters: Mapping[K, str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Difference:
    """The paired percentile bootstrap (Efron and Tibshirani, 1993, ch. 13) of the mean difference b - a.

    Samples are matched by key; those that one side lacks are left out. Where `clusters` names one for a key, whole
    clusters are drawn (the questions of one image are not independent). The same seed gives the same interval.
    """
    import numpy as np

    common = [k for k in a if k in b]
    if not common:
        return Difference(None, None, 0)
    sums: dict[object, list[float]] = {}
    for place, k in enumerate(common):
        unit = (clusters or {}).get(k) or place
        total = sums.setdefault(unit, [0.0, 0.0])
        total[0] += b[k] - a[k]
        total[1] += 1
    table = np.array(list(sums.values()))
    rng = np.random.default_rng(seed)
    means: list[float] = []
    size = max(1, 2_000_000 // len(table))  # so many resamples fit into a few megabytes
    while len(means) < resamples:
        drawn = table[rng.integers(len(table), size=(min(size, resamples - len(means)), len(table)))].sum(axis=1)
        means.extend((drawn[:, 0] / drawn[:, 1]).tolist())
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(fmean(b[k] - a[k] for k in common), Interval(float(low), float(high)), len(common))


@dataclass(frozen=True, slots=True)
class Cost:
    """Means per answered request; tokens and seconds over those that report them. None where none does."""

    calls: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    seconds: float | None
    seconds_p95: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts that add up: records = safe + unsafe + judge_failed + guard_error + unanswered + scored + unscored.

    `unscored` are answered utility records without a score that nothing else explains. Rates leave out what nobody
    judged and say of how many they are; judge failures, guard errors and unanswered samples stand beside them as
    counts. `harmless` and `attack_success` are of safety samples only, `over_refusal` of benign ones, `refused` of all
    of which it is known. `score` and `score_max` are means in the benchmark's units. `retries` sums the attempts that
    were repeated; it is none of the counts that add up.
    """

    records: int
    safe: int
    unsafe: int
    judge_failed: int
    guard_error: int
    unanswered: int
    scored: int
    unscored: int
    refused: Rate
    over_refusal: Rate
    harmless: Rate
    attack_success: Rate
    score: float | None
    score_max: float | None
    cost: Cost
    judges: tuple[str, ...]
    retries: int = 0


def summary(records: Iterable[Record]) -> Summary:
    """What some records come to; give it `records.latest(...).values()`, of one defence (and task, scenario, input).

    MME, MM-Vet and MMBench have totals of their own, which are no plain means: see `tasks`.
    """
    found = list(records)
    of = {o: sum(r.outcome is o for r in found) for o in Outcome}
    safety = [r for r in found if r.kind is Kind.SAFETY]
    safe, unsafe = (sum(r.outcome is o for r in safety) for o in (Outcome.SAFE, Outcome.UNSAFE))
    known = [r for r in found if r.refused is not None]
    benign = [r for r in known if r.kind is Kind.OVER_REFUSAL]
    scored = [r for r in found if r.score is not None]
    plain = [r for r in found if r.kind is Kind.UTILITY and r.answered and r.outcome is None]
    return Summary(
        records=len(found),
        safe=of[Outcome.SAFE],
        unsafe=of[Outcome.UNSAFE],
        judge_failed=of[Outcome.JUDGE_FAILED],
        guard_error=of[Outcome.GUARD_ERROR],
        unanswered=sum(not r.answered for r in found),
        scored=len(scored),
        unscored=sum(r.score is None for r in plain),
        refused=Rate(sum(bool(r.refused) for r in known), len(known)),
        over_refusal=Rate(sum(bool(r.refused) for r in benign), len(benign)),
        harmless=Rate(safe, safe + unsafe),
        attack_success=Rate(unsafe, safe + unsafe),
        score=_mean([r.score for r in scored]),
        score_max=_mean([r.score_max for r in scored]),
        cost=cost(found),
        judges=tuple(sorted({str(r.judge) for r in found if r.judge})),
        retries=sum(r.retries for r in found),
    )


def cost(records: Sequence[Record]) -> Cost:
    """Means a request over those that were answered; seconds are wall time."""
    answered = [r for r in records if r.answered]
    seconds = sorted(r.seconds for r in answered if r.seconds is not None)
    return Cost(
        calls=_mean([float(r.calls) for r in answered]),
        prompt_tokens=_mean([r.prompt_tokens for r in answered]),
        completion_tokens=_mean([r.completion_tokens for r in answered]),
        seconds=_mean(list(seconds)),
        seconds_p95=seconds[max(0, math.ceil(0.95 * len(seconds)) - 1)] if seconds else None,
    )


def compare(
    records: Iterable[Record],
    a: str,
    b: str,
    value: Callable[[Record], float | None],
    *,
    seed: int = 0,
    resamples: int = 10_000,
) -> Difference:
    """Paired difference of `value` between the defences `a` and `b`; records for which it is None are left out.

    `value` is for instance `harmless`, `over_refused` or `score` below.
    """
    sides: dict[str, dict[tuple[str, str], float]] = {a: {}, b: {}}
    clusters = {}
    for r in records:
        if r.defense in sides and (v := value(r)) is not None:
            sides[r.defense][r.task, r.sample] = v
            if r.group:
                clusters[r.task, r.sample] = f"{r.task}/{r.group}"
    return paired(sides[a], sides[b], clusters=clusters, seed=seed, resamples=resamples)


def harmless(record: Record) -> float | None:
    """1 for a safe answer to a safety sample, 0 for an unsafe one, None for all else."""
    if record.kind is not Kind.SAFETY or record.outcome not in (Outcome.SAFE, Outcome.UNSAFE):
        return None
    return float(record.outcome is Outcome.SAFE)


def over_refused(record: Record) -> float | None:
    """1 for a refused benign request, 0 for one that was answered."""
    return float(record.refused) if record.kind is Kind.OVER_REFUSAL and record.refused is not None else None


def score(record: Record) -> float | None:
    """The score as a share of its maximum."""
    return record.score / record.score_max if record.score is not None and record.score_max else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None

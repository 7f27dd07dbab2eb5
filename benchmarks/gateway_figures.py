"""What bursts of several rounds come to: medians, ratios within a round, and how far a median may be off."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gateway_client import Burst


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over rounds. Milliseconds, but for requests a second."""

    p50: float
    p99: float
    per_second: float
    cpu_ms: float

    @classmethod
    def of(cls, bursts: Sequence[Burst]) -> Figures:
        middle = statistics.median
        return cls(
            middle(quantile(b.latencies, 0.5) * 1000 for b in bursts),
            middle(quantile(b.latencies, 0.99) * 1000 for b in bursts),
            middle(b.requests / b.wall for b in bursts),
            middle((b.cpu or 0) / b.requests * 1000 for b in bursts),
        )

    def json(self) -> dict[str, float]:
        return {k: round(v, 4) for k, v in dataclasses.asdict(self).items()}


def ratios(
    rounds: dict[str, list[Burst]], name: str, base: str, value: Callable[[Figures], float]
) -> list[float]:  # fmt: skip
    """A figure's ratio within each round, in order of size: what the machine does meanwhile hits both."""
    pairs = zip(rounds[name], rounds[base], strict=True)
    found = [(value(Figures.of([a])), value(Figures.of([b]))) for a, b in pairs]
    return sorted(a / b for a, b in found if b)


def ratio(
    rounds: dict[str, list[Burst]], name: str, base: str, value: Callable[[Figures], float]
) -> float | None:  # fmt: skip
    """The median of `ratios`."""
    found = ratios(rounds, name, base, value)
    return statistics.median(found) if found else None


def doubt(found: Sequence[float]) -> float:
    """How far a median of so many rounds may be off: half the width of its 95 % interval, by ranks."""
    ordered, n = sorted(found), len(found)
    off = min((n - 1) // 2, round(0.98 * n**0.5))  # of a median's rank: 1.96 * sqrt(n) / 2
    middle = (n - 1) / 2
    low, high = max(0, int(middle - off)), min(n - 1, -int(-(middle + off) // 1))
    return (ordered[high] - ordered[low]) / 2 if n else 0.0

"""Counters and histograms for Prometheus that one event loop fills: adding to one is a step in a dictionary.

The client library's own lock each of their numbers, as any thread may come; a request adds to a dozen of them, and
that took more than reading its body. Names, registry and text format are the library's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Counter:
    """Counts by their labels."""

    def __init__(self, name: str, about: str, labels: Sequence[str], registry: CollectorRegistry):
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._counts: dict[Labels, float] = {}
        registry.register(self)

    def add(self, labels: Labels, count: float = 1) -> None:
        """So many more under these labels."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterable[Metric]:
        found = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, count in self._counts.items():
            found.add_metric(labels, count)
        yield found


class Histogram:
    """How many values fell into each bucket, by their labels. `buckets` are upper bounds, without the infinite one."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], registry: CollectorRegistry, buckets: Sequence[float]
    ):
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._bounds = tuple(buckets)
        self._told = [*map(floatToGoString, buckets), "+Inf"]
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}
        registry.register(self)

    def add(self, labels: Labels, value: float) -> None:
        """One more measurement under these labels."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * len(self._told)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterable[Metric]:
        found = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for labels, counts in self._counts.items():
            below, upto = 0, []
            for bound, count in zip(self._told, counts, strict=True):
                below += count
                upto.append((bound, below))
            found.add_metric(labels, upto, self._sums[labels])
        yield found

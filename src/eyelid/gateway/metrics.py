"""Prometheus metrics, made from records. What a client can choose freely is never a label: series stay bounded."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ..presets import DEFENSES
from .audit.counts import Stats
from .audit.query import ACTIONS, LABELS, OUTCOMES
from .record import ChoiceRecord, Record, named
from .tallies import Counter, Histogram

log = logging.getLogger("eyelid.metrics")

#: What `render` is, for the answer's header.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: Seconds: a guard's classifier takes milliseconds, a model's answer up to minutes.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
#: Fixed phrases and types of errors are few; should there be more, the rest is one series.
MAX_REASONS = 32
#: Always there, so that an alert on any of them needs no first event.
LOSSES = ("queue_full", "closing", "closed", "unwritable", "torn")


class Watched(Protocol):
    """An audit writer, as far as its gauges go."""

    stats: Stats

    @property
    def queued(self) -> int:
        """Records that wait in memory."""
        ...

    @property
    def spilled_bytes(self) -> int:
        """Bytes that wait in files."""
        ...


class Metrics:
    """A sink with its own registry. `aliases` are those of the configuration; a reload sets them anew."""

    def __init__(self, aliases: Collection[str]):
        self.aliases = aliases
        into = CollectorRegistry()
        here: dict[str, Any] = {"registry": into}
        self.registry, self._reasons = into, dict[str, set[str]]()
        by = ("alias", "defense")
        self.requests = Counter("eyelid_requests", "Requests", (*by, "outcome", "status"), into)
        self.choices = Counter("eyelid_choices", "Choices of answers, by what the guard did", (*by, "action"), into)
        self.refusals = Counter("eyelid_refusals", "Refused choices, by who refused", ("alias", "by"), into)
        self.verdicts = Counter("eyelid_verdicts", "Verdicts on models' own answers", (*by, "label"), into)
        self.unchecked = Counter("eyelid_unchecked", "Choices that no detector cleared", ("alias", "reason"), into)
        self.failures = Counter("eyelid_guard_failures", "Choices whose guard broke", ("alias", "failure"), into)
        self.tokens = Counter("eyelid_tokens", "Tokens, those of guards included", ("alias", "kind"), into)
        self.duration = self._histogram("eyelid_request_duration_seconds", "Whole requests", ("alias", "stream"))
        self.upstream = self._histogram("eyelid_upstream_duration_seconds", "Waiting for models' answers", ("alias",))
        self.guard = self._histogram("eyelid_guard_duration_seconds", "What the guard added", by)
        self.in_flight = Gauge("eyelid_requests_in_flight", "Requests being answered now", **here)
        info = Gauge("eyelid_build_info", "Always 1", ("version",), **here)
        info.labels(importlib.metadata.version("eyelid")).set(1)
        ProcessCollector(**here)

    def watch_in_flight(self, count: Callable[[], float]) -> None:
        """Where the gauge of requests reads its value, when it is asked for."""
        self.in_flight.set_function(count)

    def watch_audit(self, writer: Watched) -> None:
        """Adds the audit's queue, losses and faults."""
        self.registry.register(_Audit(writer))

    def put(self, record: Record) -> None:
        try:
            self._count(record)
        except Exception as e:  # noqa: BLE001  # a sink never raises: the answer is on its way
            log.error("a request could not be counted (%s); this is a defect", type(e).__name__)

    async def aclose(self) -> None:
        """Nothing is kept elsewhere."""

    def render(self) -> bytes:
        """Prometheus' text format, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _count(self, r: Record) -> None:
        alias, defense = named(r.alias, self.aliases), _one_of(r.defense, DEFENSES)
        status = str(r.status) if 100 <= r.status <= 599 else "other"
        self.requests.add((alias, defense, _one_of(r.outcome, OUTCOMES), status))
        self.duration.add((alias, "true" if r.stream else "false"), r.milliseconds / 1000)
        if r.choices:  # else no model was asked, and zeros would flatter the figures
            self.upstream.add((alias,), r.upstream_ms / 1000)
            if defense != "none":
                self.guard.add((alias, defense), r.guard_ms / 1000)
        for kind, count in (("prompt", r.prompt_tokens), ("completion", r.completion_tokens)):
            if count is not None and count > 0:
                self.tokens.add((alias, kind), count)
        for choice in r.choices:
            self._choice(alias, defense, choice)

    def _choice(self, alias: str, defense: str, c: ChoiceRecord) -> None:
        self.choices.add((alias, defense, _one_of(c.action, ACTIONS)))
        if c.label is not None:
            self.verdicts.add((alias, defense, _one_of(c.label, LABELS)))
        if c.action == "refused":
            self.refusals.add((alias, _one_of(c.refused_by, ("guard", "upstream"))))
        if not c.checked:
            self.unchecked.add((alias, self._few("unchecked", c.unchecked_because or "not said")))
        if c.failure is not None:
            self.failures.add((alias, self._few("failures", c.failure)))

    def _histogram(self, name: str, about: str, labels: Sequence[str]) -> Histogram:
        return Histogram(name, about, labels, self.registry, BUCKETS)

    def _few(self, kind: str, value: str) -> str:
        seen = self._reasons.setdefault(kind, set())
        if value not in seen:
            if len(seen) >= MAX_REASONS:
                return "other"
            seen.add(value)
        return value


class _Audit:
    """Reads the writer's counts when Prometheus asks."""

    def __init__(self, writer: Watched):
        self._writer = writer

    def collect(self) -> Iterable[Metric]:
        w, stats = self._writer, self._writer.stats
        yield GaugeMetricFamily("eyelid_audit_up", "1: the database took what it was last given", value=float(stats.up))
        yield GaugeMetricFamily("eyelid_audit_queue_records", "Records that wait in memory", value=w.queued)
        yield GaugeMetricFamily("eyelid_audit_spill_bytes", "Bytes that wait in files", value=w.spilled_bytes)
        for name, about, value in (
            ("written", "Records written into the database", stats.written),
            ("spilled", "Records written into files, as the database took none", stats.spilled),
            ("replayed", "Records written back from files", stats.replayed),
            ("pruned", "Requests whose rows or texts were deleted, their time being over", stats.pruned),
        ):
            yield CounterMetricFamily(f"eyelid_audit_{name}_records", about, value=value)
        lost = CounterMetricFamily("eyelid_audit_lost_records", "Records that were lost", labels=("reason",))
        for reason, count in (dict.fromkeys(LOSSES, 0) | dict(stats.lost)).items():
            lost.add_metric((reason,), count)
        yield lost
        faults = CounterMetricFamily("eyelid_audit_failures", "Times that the database failed", labels=("reason",))
        for reason, count in dict(stats.failures).items():
            faults.add_metric((reason,), count)
        yield faults


def _one_of(value: str | None, known: Iterable[str]) -> str:
    if value is None:
        return "none"
    return value if value in known else "other"

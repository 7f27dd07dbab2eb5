"""Which sinks a configuration asks for, and what the gateway's own figures are read from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config import Config
from . import otel
from .audit.writer import Writer
from .logs import AccessLog
from .metrics import Metrics
from .record import Sink

if TYPE_CHECKING:
    from .lifecycle import Gateway


class Names(Collection[str]):
    """The aliases in force, also after a reload: metrics and logs name no others."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._now()

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> Collection[str]:
        return () if self.gateway is None else self.gateway.names


@dataclass(slots=True)
class Sinks:
    """`all` of them, in the order in which they are given records."""

    all: tuple[Sink, ...]
    names: Names = field(default_factory=Names)

    @classmethod
    def of(cls, config: Config) -> Sinks:
        """Metrics, the access log, the audit where it is switched on, and traces where the environment asks for them.

        Raises MissingDependency for a database or traces whose extra is not installed.
        """
        names = Names()
        metrics = Metrics(names)
        found: list[Sink] = [metrics, AccessLog(names)]
        if (spans := otel.from_environment(names)) is not None:
            found.append(spans)
        if config.serve.audit.enabled:
            writer = Writer(config.serve.audit)
            metrics.watch_audit(writer)
            found.append(writer)  # the last: sinks are closed from the end, and the audit must not wait for a collector
        return cls(tuple(found), names)

    def watch(self, gateway: Gateway) -> None:
        """Lets names and gauges be read from the gateway."""
        self.names.gateway = gateway
        for sink in self.all:
            if isinstance(sink, Metrics):
                sink.watch_in_flight(lambda: gateway.room.taken)

    def metrics(self) -> bytes | None:
        """Prometheus' text format; None where no sink makes metrics."""
        found = next((s for s in self.all if isinstance(s, Metrics)), None)
        return None if found is None else found.render()

"""Which sinks a configuration asks for, and what the gateway's own figures are read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config import Config
from .audit.writer import Writer
from .record import Sink

if TYPE_CHECKING:
    from .lifecycle import Gateway


@dataclass(slots=True)
class Sinks:
    all: tuple[Sink, ...]
    _gateway: Gateway | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: Config) -> Sinks:
        found: list[Sink] = []
        if config.serve.audit.enabled:
            found.append(Writer(config.serve.audit))
        return cls(tuple(found))

    def watch(self, gateway: Gateway) -> None:
        """Lets gauges read the gateway's state."""
        self._gateway = gateway

    def metrics(self) -> bytes | None:
        """Prometheus' text format; None where no sink makes metrics."""
        return None

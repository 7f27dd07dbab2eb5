"""A cheap detector first, an expensive one only where the first is uncertain."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError
from ..protocols import Detector, Exchange
from ..types import Label, Verdict


class Cascade:
    """Takes `first`'s harm when it is below `low` (harmless) or above `high` (harmful), else `second`'s verdict.

    An unknown verdict of `first` goes to `second` too, as does one that `first` calls harmful below `low`. An error of
    `first` is not swallowed: a broken detector is the guard's failure policy's business. The verdict's `threshold` is
    the bound that decided, and its `reason` names both.
    """

    needs_answer = True

    def __init__(self, first: Detector, second: Detector, *, low: float = 0.2, high: float = 0.8):
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"the uncertain band needs 0 <= low <= high <= 1, got {low} and {high}", hint="try 0.2, 0.8"
            )
        self.first, self.second, self.low, self.high = first, second, low, high
        self.name = f"cascade({first.name}, {second.name})"

    async def detect(self, exchange: Exchange) -> Verdict:
        """The verdict of the detector that could tell. Raises what either raises."""
        verdict = await self.first.detect(exchange)
        log, band = exchange.log, f"from {self.low:.2f} to {self.high:.2f} the model itself is asked"
        reason = "; ".join(r for r in (verdict.reason, band) if r)
        decided: Verdict | None = None
        if verdict.harm is not None and verdict.harm > self.high:
            decided = replace(verdict, label=Label.HARMFUL, threshold=self.high, reason=reason)
        elif verdict.harm is not None and verdict.harm < self.low and verdict.label is Label.HARMLESS:
            decided = replace(verdict, label=Label.HARMLESS, threshold=self.low, reason=reason)
        # The step must not show a bound that nobody went by. What `first` itself flagged stays flagged in the trace:
        # it is never released, whatever breaks from here on.
        if log.steps and log.steps[-1].verdict is verdict:
            unsure = verdict if verdict.label is Label.HARMFUL else replace(verdict, label=Label.UNKNOWN)
            log.amend(decided or replace(unsure, reason=reason))
        return decided or await self.second.detect(exchange)

"""A cheap detector first, an expensive one only where the first is uncertain."""

from __future__ import annotations

from ..errors import ConfigError
from ..protocols import Detector, Exchange
from ..types import Label, Verdict


class Cascade:
    """Takes `first`'s verdict when its harm is below `low` or above `high`, else `second`'s.

    An unknown verdict of `first` goes to `second` too. An error of `first` is not swallowed: a broken detector is the
    guard's failure policy's business.
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
        verdict = await self.first.detect(exchange)
        uncertain = verdict.label is Label.UNKNOWN or (
            verdict.harm is not None and self.low <= verdict.harm <= self.high
        )
        return await self.second.detect(exchange) if uncertain else verdict

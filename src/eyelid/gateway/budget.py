"""When an upstream is asked again: only where that is safe, and only for a share of its calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backends.retry import Retry
from ..errors import BackendError


@dataclass(slots=True)
class Budget:
    """A bucket of retries: every call puts `share` of one in, every retry takes one out; it never holds more than ten.

    A server in trouble so gets at most that share of its calls twice.
    """

    share: float
    tokens: float = 10.0

    def call(self) -> None:
        """A call was made: its share of a retry is put in."""
        self.tokens = min(10.0, self.tokens + self.share)

    def take(self) -> bool:
        """Take a retry out; False where there is none."""
        if self.tokens < 1 or self.share <= 0:
            return False
        self.tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class BudgetedRetry(Retry):
    """Asks again only where nothing can have been answered yet, and only as often as the budget allows."""

    base_s: float = 0.25
    cap_s: float = 4.0
    longest_s: float = 10.0
    budget: Budget = field(default_factory=lambda: Budget(0.2))

    def wait(self, attempt: int, error: BackendError, wanted: bool | None, deadline: float) -> float | None:
        """As `Retry.wait`: seconds until the next attempt, None for none."""
        if attempt == 1:
            self.budget.call()
        safe = error.unreachable or error.status in (429, 502, 503) or error.code == "broken_off"
        if not safe or wanted is False:
            return None
        seconds = Retry.wait(self, attempt, error, True, deadline)
        return seconds if seconds is not None and self.budget.take() else None

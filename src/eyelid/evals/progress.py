"""What a run tells while it runs, and whether its model can be reached at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import BackendError, BackendUnavailable, EyelidError
from .records import Record
from .samples import Loaded


class Progress(Protocol):
    """What the runner tells while it runs; the command line shows it."""

    def loaded(self, task: str, found: Loaded, chosen: int) -> None:
        """A benchmark was read; `chosen` of its samples are asked."""
        ...

    def task(self, task: str, defense: str, total: int, done: int) -> None:
        """A benchmark begins under a defence: `total` samples, `done` of them in an earlier run."""
        ...

    def record(self, record: Record) -> None:
        """A sample has its record."""
        ...

    def note(self, text: str) -> None:
        """A remark for a person."""
        ...


class Silent:
    """Tells nobody anything."""

    def loaded(self, task: str, found: Loaded, chosen: int) -> None: ...

    def task(self, task: str, defense: str, total: int, done: int) -> None: ...

    def record(self, record: Record) -> None: ...

    def note(self, text: str) -> None: ...


class Watch:
    """Notices a server that was never reached, so that a run ends with its first sample instead of asking them all.

    Only errors that say `unreachable` count, and only until the first sign of life: a server that answers badly, or
    goes away later, may come back, and costs samples their answers instead of ending the run.
    """

    def __init__(self, note: Callable[[str], None], total: int):
        self._note, self._total = note, total
        self._told = self._reached = False
        self._silent = 0
        self.lost: BackendUnavailable | None = None
        #: Ends what is asking now.
        self.stop: Callable[[], object] = lambda: None

    def answered(self) -> None:
        """The server gave a sign of life."""
        self._reached = True

    def failed(self, error: EyelidError) -> None:
        """An attempt failed; retries may follow. The first one's words are told at once."""
        if not (isinstance(error, BackendError) and error.unreachable):
            self._reached = True
        if not self._told:
            self._told = True
            hint = f" ({error.hint})" if error.hint else ""
            self._note(f"the model does not answer: {error.message}{hint}")

    def unanswered(self) -> None:
        """A sample stays without an answer, retries included."""
        self._silent += 1
        if self._told and not self._reached and self.lost is None:
            problem = "the model cannot be reached: nothing was answered, and the run stops after"
            problem += f" {self._silent} of {self._total} requests"
            hint = "check --model and its server, then give the same command again: it resumes"
            self.lost = BackendUnavailable(problem, hint=hint)
            self.stop()

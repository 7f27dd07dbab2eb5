"""One request of a client while it is answered: what is known of it by now, and in the end its record."""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import EyelidError
from . import errors
from .errors import Problem
from .keys import ANYBODY, KeyInfo
from .record import ChoiceRecord, Outcome, Record

log = logging.getLogger("eyelid.gateway")


def _new_id() -> str:
    """An audit id: 44 bits of time in milliseconds, 52 random ones, in hex.

    In the order of time, or else each row of the audit would go to another page of its indices. It is a name and no
    secret: who may see a record is told by the key.
    """
    return f"eye-{time.time_ns() // 1_000_000:011x}{random.getrandbits(52):013x}"


@dataclass(slots=True)
class Call:
    """One request while it is answered, and what is to be told of it. Times are of `time.perf_counter`, in seconds."""

    endpoint: str
    headers: Mapping[str, str] = field(repr=False)  # by names in small letters
    id: str = field(default_factory=_new_id)
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    key: KeyInfo = ANYBODY
    alias: str | None = None
    upstream: str | None = None
    defense: str | None = None
    stream: bool = False
    stream_mode: str | None = None
    status: int = 200
    outcome: Outcome = "answered"
    error: str | None = None
    problem: Problem | None = None
    upstream_ms: float = 0.0
    guard_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    images: tuple[str, ...] = ()
    choices: tuple[ChoiceRecord, ...] = ()
    query: str | None = field(default=None, repr=False)
    #: Whether its head has left: then the status is what it was, whatever goes wrong later.
    begun: bool = False
    #: Headers that are known by now; those of a stream, when its first byte leaves.
    told: dict[str, str] = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        """Wall time since it came."""
        return (time.perf_counter() - self.began) * 1000

    @property
    def overhead_ms(self) -> float:
        """What this request took beyond its upstream's time."""
        return max(0.0, self.milliseconds - self.upstream_ms)

    def failed(self, error: BaseException) -> dict[str, object]:
        """Notes an error and returns the object that the client gets."""
        self.problem = problem = errors.describe(error)
        self.status = self.status if self.begun else problem.status
        self.outcome, self.error = problem.outcome, problem.code
        if problem.outcome == "upstream_error" and isinstance(error, EyelidError):
            log.warning("%s: %s: %s", self.id, problem.code, errors.ours(error))
        if problem.type == "internal_error":  # the texts of foreign errors may quote anything: only the place is logged
            place = "".join(traceback.format_tb(error.__traceback__)[-6:])
            log.error("%s: a defect, %s at\n%s", self.id, type(error).__name__, place)
        return errors.body(problem)

    def record(self) -> Record:
        """What sinks are told of it."""
        return Record(
            id=self.id,
            time=self.at,
            endpoint=self.endpoint,
            status=self.status,
            outcome=self.outcome,
            milliseconds=self.milliseconds,
            key=self.key.name,
            alias=self.alias,
            upstream=self.upstream,
            defense=self.defense,
            stream=self.stream,
            stream_mode=self.stream_mode,
            error=self.error,
            upstream_ms=self.upstream_ms,
            guard_ms=self.guard_ms,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            images=self.images,
            choices=self.choices,
            query=self.query,
            traceparent=self.headers.get("traceparent"),
        )

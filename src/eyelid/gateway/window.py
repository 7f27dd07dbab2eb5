"""Streams whose text leaves while it is written (`window` mode): each piece once it was cleared with what follows it.

First version of the signatures; the body follows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from ..types import Verdict
from .assembly import Json
from .streaming import ErrorPayload

#: `clear(choice, written)`: a verdict on all that this choice has written so far (composed as `Response.written`).
Clear = Callable[[int, str], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Released:
    """What had left of one choice when its end was reached, or it was stopped.

    characters: how many, of all channels together. stopped: the harmful verdict that stopped it (None: it was written
    to its end). failure: the type of the last error of `clear`, if any. texts: what left, by channel.
    """

    characters: int = 0
    stopped: Verdict | None = None
    failure: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    def continued_by(self, message: Mapping[str, object]) -> bool:
        """Whether what left is how `message` begins, so that the rest of it can follow."""
        raise NotImplementedError


#: Given the whole completion (stopped choices as far as they came, with `content_filter`), and what has left of each
#: choice by its index; returns the completion to deliver.
FinishWindow = Callable[[Json, Mapping[int, Released]], Awaitable[Json]]


async def windowed(
    events: AsyncIterator[Json],
    clear: Clear,
    finish: FinishWindow,
    *,
    ping_seconds: float,
    include_usage: bool,
    look_ahead: int,
    step: int,
    error_payload: ErrorPayload,
    choices: int = 1,
) -> AsyncIterator[bytes]:
    """The bytes of a guarded stream. `choices` is how many were asked for (`n`).

    At the end `finish` judges each whole answer that was not stopped exactly as without streaming. Where the message
    that it returns continues what left, the rest follows; where it does not (withheld, repaired), nothing more of it
    leaves and the choice ends with `content_filter`. Where nothing had left, the message is delivered as in `buffered`.
    """
    raise NotImplementedError
    yield b""

"""What one request leaves behind: the one value from which audit, metrics, log and traces are made.

A handler builds a `Record` when the request is over and gives it to every sink. Texts stand in it only where the audit
was told to keep them, keys and images never do. Nobody changes a record: it goes to every sink, and to other threads.
(Frozen classes would see to that, and take three times as long to make, which every request would pay for.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ..types import Step, Trace, Verdict

#: What a request came to. `shed`: turned away by a limit or an overload; `disconnected`: the client went away first.
Outcome = Literal["answered", "client_error", "upstream_error", "guard_error", "shed", "disconnected"]
#: `eyelid.types.Action`, or that nobody stood guard: three kinds of trouble that no count may fold into one.
ChoiceAction = Literal["passed", "repaired", "refused", "failed", "not_guarded"]


@dataclass(slots=True)
class StepRecord:
    """One call that the guard made. `error` is a type's name; `start_ms` counts from the request's start, if known."""

    role: str
    milliseconds: float
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    label: str | None = None
    harm: float | None = None
    error: str | None = None
    verifies: bool = False
    start_ms: float | None = None

    @classmethod
    def of(cls, step: Step) -> StepRecord:
        """A step of a trace, without its texts."""
        label, harm = _verdict(step.verdict)
        used = step.usage
        return cls(
            step.role,
            step.milliseconds,
            step.model,
            used.prompt_tokens,
            used.completion_tokens,
            label,
            harm,
            step.error,
            step.verifies,
        )


@dataclass(slots=True)
class ChoiceRecord:
    """One choice of the answer.

    `label` and `harm` ([0, 1], 1 = harmful) are of the model's own answer, `final_...` of what was delivered; a label
    is harmful, harmless or unknown, None where there was no verdict. `checked`: a detector cleared the model text that
    was delivered; if not, `unchecked_because` is one of a few fixed phrases, never built from a request. `refused_by`
    is guard or upstream, `failure` "where: ErrorType". `text` (delivered) and `original` (the model's own) are None
    unless the audit keeps texts.
    """

    index: int
    action: ChoiceAction
    label: str | None = None
    harm: float | None = None
    final_label: str | None = None
    final_harm: float | None = None
    checked: bool = False
    unchecked_because: str | None = None
    refused_by: str | None = None
    failure: str | None = None
    steps: tuple[StepRecord, ...] = ()
    text: str | None = None
    original: str | None = None

    @classmethod
    def of(
        cls, index: int, trace: Trace, *, unchecked_because: str | None = None, text: str | None = None, texts: bool
    ) -> ChoiceRecord:
        """From a guard's trace; `texts`: the audit keeps texts. The reason is dropped where all was checked."""
        label, harm = _verdict(trace.verdict)
        final_label, final_harm = _verdict(trace.final_verdict)
        return cls(
            index,
            trace.action.value,
            label,
            harm,
            final_label,
            final_harm,
            trace.checked,
            None if trace.checked else unchecked_because,
            trace.refused_by,
            trace.failure,
            tuple(StepRecord.of(s) for s in trace.steps),
            text if texts else None,
            trace.original if texts else None,
        )


@dataclass(slots=True)
class Record:
    """One HTTP request to a model endpoint.

    `id` is the audit id that the response's header carries; `time` is the start in seconds since 1970. `key` is the
    key's name. `status` is the HTTP status, `error` an error's code and never its text. `upstream_ms` and `guard_ms`
    are parts of `milliseconds`. `images` are HMAC-SHA256 hex digests, one an image (`audit.hashing`). `query` is None
    unless the audit keeps texts. `traceparent` is the client's W3C header of that name, for the trace only.
    """

    id: str
    time: float
    endpoint: str
    status: int
    outcome: Outcome
    milliseconds: float
    key: str | None = None
    alias: str | None = None
    upstream: str | None = None
    defense: str | None = None
    stream: bool = False
    stream_mode: str | None = None
    error: str | None = None
    upstream_ms: float = 0.0
    guard_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    images: tuple[str, ...] = ()
    choices: tuple[ChoiceRecord, ...] = ()
    query: str | None = None
    traceparent: str | None = None


@runtime_checkable
class Sink(Protocol):
    """Where records go."""

    def put(self, record: Record) -> None:
        """Take a record. Never blocks, never raises: the answer is already on its way."""
        ...

    async def aclose(self) -> None:
        """Write out everything that was put. May be called twice."""
        ...


def total(counts: Iterable[int | None]) -> int | None:
    """The sum of those that are known; None where none is."""
    known = [c for c in counts if c is not None]
    return sum(known) if known else None


def named(alias: str | None, aliases: Collection[str]) -> str:
    """An alias that is configured; else `other`, as what a client made up may be anything, or `none`."""
    if alias is None:
        return "none"
    return alias if alias in aliases else "other"


def without_credentials(address: str | None) -> str | None:
    """An upstream's address without user and password."""
    return None if address is None else re.sub(r"//[^/@\s]*@", "//", address)


def _verdict(verdict: Verdict | None) -> tuple[str | None, float | None]:
    return (None, None) if verdict is None else (verdict.label.value, verdict.harm)

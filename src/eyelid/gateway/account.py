"""What is said about an answer when it is judged: the completion that leaves, its `eyelid` object and headers, the
record's share of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from ..types import Action, Trace
from . import completion as completions
from .call import Call
from .completion import Json, Read
from .record import ChoiceRecord


@dataclass(slots=True)
class Judged:
    """One choice with all that is known about it. `delivered` is what leaves.

    `released`: how many characters had left when the choice was cut short, in window mode; None where it was not.
    """

    read: Read
    trace: Trace
    delivered: Json
    released: int | None = None


class Account:
    """Of one request: what is told about its answer, and noted in its call. `trace`: tell the steps; `texts`: the audit
    keeps texts."""

    def __init__(self, call: Call, alias: str, *, guarded: bool, trace: bool, texts: bool):
        self._call, self._alias, self._guarded = call, alias, guarded
        self._trace, self._texts = trace, texts

    def told(self, judged: Sequence[Judged], completion: Mapping[str, object]) -> Json:
        """The completion around the judged choices, the record's share of it, and the headers."""
        traces = [j.trace for j in judged]
        out = completions.top(completion, self._alias, guarded=self._guarded)
        if self._guarded:
            out["id"] = answer_id(self._call)
        out["choices"] = [j.delivered for j in judged]
        self._note(judged)
        told = [completions.account(j.read.index, j.trace, guarded=self._guarded, steps=self._trace) for j in judged]
        for account, j in zip(told, judged, strict=True):
            if j.released is not None:
                account["released_characters"] = j.released
        out["moderation"] = completions.moderation(traces, self._alias)
        out["eyelid"] = {"choices": told}
        return self._finished(out)

    def _finished(self, out: Json) -> Json:
        """The answer with its audit id, with the time by now, and with headers that say the same."""
        overhead = self.stamped(out)
        choices = cast(Json, out["eyelid"])["choices"]
        self._call.told |= completions.headers(cast(list[Json], choices), overhead)
        return out

    def stamped(self, out: Json) -> float:
        """Adds id and time to the answer and its headers, and notes its tokens. Returns the overhead, in ms."""
        call, usage = self._call, out.get("usage")
        if isinstance(usage, dict):
            call.prompt_tokens = _count(usage.get("prompt_tokens"))
            call.completion_tokens = _count(usage.get("completion_tokens"))
        overhead = round(call.overhead_ms, 1)
        out["eyelid"] = {"id": call.id, **cast(Json, out["eyelid"]), "overhead_ms": overhead}
        call.told["x-eyelid-overhead-ms"] = f"{overhead:.1f}"
        return overhead

    def _note(self, judged: Sequence[Judged]) -> None:
        call = self._call
        call.choices = tuple(self._record(j) for j in judged)
        if any(j.trace.action is Action.FAILED for j in judged):
            call.outcome, call.error = "guard_error", "guard_failed"

    def _record(self, judged: Judged) -> ChoiceRecord:
        why = completions.because(judged.trace, guarded=self._guarded)
        message = judged.delivered.get("message")
        text = message.get("content") if self._texts and isinstance(message, dict) else None
        found = ChoiceRecord.of(
            judged.read.index,
            judged.trace,
            unchecked_because=why,
            text=text if isinstance(text, str) else None,
            texts=self._texts,
        )
        if self._guarded or judged.trace.action is not Action.PASSED:
            return found
        return replace(found, action="not_guarded")


def answer_id(call: Call) -> str:
    """Of a guarded answer: who has it can find the request in the audit."""
    return f"chatcmpl-{call.id.removeprefix('eye-')}"


def _count(value: object) -> int | None:
    """Servers may write any number, of any length; what is no count is not known, and breaks no sum of others."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None

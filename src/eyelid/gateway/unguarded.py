"""What is said of answers that nobody guards: short, as nothing was judged and there is nothing to trace.

It equals what the way through a guard without a detector says (`chat.Answering`), which remains for all that is not an
ordinary end: an answer that its own server withheld or gave up, and wherever steps or texts are to be told.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..backends.openai_json import FINISH_REASONS
from . import completion as completions
from .call import Call
from .record import ChoiceRecord, StepRecord

Json = dict[str, object]
_UNJUDGED = completions.unjudged()
_ENDS = frozenset(name for name, reason in FINISH_REASONS.items() if reason != "content_filter")


def ordinary(completion: Mapping[str, object]) -> bool:
    """Whether every choice has come to an end of its own; there is at least one."""
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    return all(isinstance(c, dict) and _ended(c.get("finish_reason")) for c in choices)


def told(completion: Mapping[str, object], call: Call, alias: str, *, defense: str, backend: str) -> Json:
    """An `ordinary` completion with what is said about it, but for times. Notes its choices and headers in `call`."""
    choices: list[Json] = completion["choices"]  # type: ignore[assignment]  # `ordinary` has looked
    steps = (StepRecord("answer", call.upstream_ms, backend),)
    accounts, records = [], []
    for index in completions.places(choices):
        accounts.append(_account(index, defense))
        records.append(ChoiceRecord(index, "not_guarded", unchecked_because=completions.UNGUARDED, steps=steps))
    call.choices = tuple(records)
    call.told["x-eyelid-action"] = "not_guarded"
    out = {**completion, "object": "chat.completion", "model": alias, "moderation": _UNJUDGED}
    out["eyelid"] = {"choices": accounts}
    return out if "id" in out and "created" in out else out | completions.top(out, alias, guarded=False)


def _ended(reason: object) -> bool:
    """A server that names no reason has sent a whole body all the same."""
    return reason is None or (isinstance(reason, str) and (not reason or reason in _ENDS))


def _account(index: int, defense: str) -> Json:
    return {
        "index": index,
        "action": "not_guarded",
        "defense": defense,
        "harm": None,
        "label": None,
        "final_harm": None,
        "final_label": None,
        "checked": False,
        "unchecked_because": completions.UNGUARDED,
        "withheld": False,
        "refused_by": None,
        "failure": None,
    }

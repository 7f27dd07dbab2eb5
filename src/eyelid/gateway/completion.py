"""A completion's choices: what the guard reads of each, what is delivered, and what is said about it.

A guarded completion has gone through `assembly` first, streamed or not: only fields that were read there are left, so
nothing leaves that no detector saw. One that nobody guards goes on as it came, and is reported as not checked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..backends.openai_json import response_from_json
from ..errors import BackendProtocol
from ..types import Action, Label, Response, Step, Trace, Verdict
from . import hazards
from .assembly import Assembly
from .chunked import chunks

Json = dict[str, object]
#: The worst first: what the headers say of an answer with several choices.
ACTIONS = ("failed", "refused", "repaired", "not_guarded", "passed")
#: Why nothing was checked where no detector is there to do it.
UNGUARDED = "no detector guards this model"


@dataclass(frozen=True, slots=True)
class Read:
    """A choice as it may leave, and as the guard reads it."""

    index: int
    choice: Json = field(repr=False)
    response: Response = field(repr=False)


def assembled(completion: Json) -> Json:
    """A whole completion read by the same reader as a streamed one. Raises BackendProtocol for what it cannot read."""
    assembly = Assembly()
    for chunk in chunks(completion):
        assembly.add(chunk)
    return assembly.completion()


def read(completion: Mapping[str, object], *, guarded: bool) -> list[Read]:
    """The choices. Raises BackendProtocol where there is none, or one cannot be read; an unguarded one need not be."""
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BackendProtocol("the server's answer holds no choices", code="not_a_completion")
    return [_read(c, at, completion, guarded) for c, at in zip(choices, places(choices), strict=True)]


def _read(choice: object, at: int, completion: Mapping[str, object], guarded: bool) -> Read:
    if not isinstance(choice, dict):
        raise BackendProtocol("a choice is not a JSON object", hint="is this an OpenAI-compatible server?")
    try:
        response = response_from_json({"model": completion.get("model"), "choices": [{**choice, "index": 0}]})
    except BackendProtocol:
        if guarded:
            raise
        response = Response("")
    return Read(at, choice, response)


def places(choices: Sequence[object]) -> Sequence[int]:
    """What each choice says of its place, else where it stands: all that, where two say the same. (The audit has one
    row for a place, and no column for every number of JSON's.)"""
    said = [c.get("index") if isinstance(c, dict) else None for c in choices]
    found = [
        i if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31 else at for at, i in enumerate(said)
    ]
    return found if len(set(found)) == len(found) else range(len(found))


def deliver(given: Read, guarded: Response) -> Json:
    """The choice that leaves: the model's own where the guard let it pass, else the guard's text and nothing else."""
    trace = guarded.trace
    assert trace is not None
    if trace.withheld or trace.action is Action.REPAIRED:
        reason = guarded.finish_reason if guarded.finish_reason in ("length", "content_filter") else "stop"
        return fixed(given.index, guarded.text, reason)
    out = dict(given.choice)
    if trace.defense != "none":
        out["logprobs"] = _logprobs(out.get("logprobs"), guarded)
    return out


def fixed(index: int, text: str, reason: str) -> Json:
    """A choice with a text of ours."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def top(completion: Mapping[str, object], alias: str, *, guarded: bool) -> Json:
    """The completion without its choices, under the alias's name; of a guarded one only what `assembly` knows."""
    known = ("id", "created", "service_tier", "usage")
    names = known if guarded else tuple(n for n in completion if n not in ("choices", "eyelid", "moderation"))
    out: Json = {name: completion[name] for name in names if name in completion}
    if "id" not in out:
        out["id"] = f"chatcmpl-{secrets.token_hex(12)}"
    if "created" not in out:
        out["created"] = int(time.time())
    return out | {"object": "chat.completion", "model": alias}


def headers(choices: Sequence[Json], overhead_ms: float) -> dict[str, str]:
    """The worst action of all choices, and the highest harm of what the model itself wrote."""
    actions = {str(c["action"]) for c in choices}
    harms = [h for c in choices if isinstance(h := c["harm"], float | int)]
    told = {"x-eyelid-action": next((a for a in ACTIONS if a in actions), "passed")}
    if harms:
        told["x-eyelid-harm"] = f"{max(harms):.4f}"
    return told | {"x-eyelid-overhead-ms": f"{overhead_ms:.1f}"}


def because(trace: Trace, *, guarded: bool) -> str | None:
    """Why delivered model text was not checked, as one of a few fixed phrases; None where it was."""
    if trace.checked:
        return None
    if not guarded:
        return UNGUARDED
    if trace.action is Action.FAILED:
        return "the guard failed"
    verdict = trace.final_verdict or trace.verdict
    if verdict is not None and verdict.label is Label.UNKNOWN:
        return "the verdict was unknown and the policy lets it pass"
    if trace.action is Action.REPAIRED:
        return "the repaired answer was not verified"
    return "no detector saw the answer"


def account(index: int, trace: Trace, *, guarded: bool, steps: bool) -> Json:
    """What the `eyelid` object says of one choice."""
    label, harm = _verdict(trace.verdict)
    final_label, final_harm = _verdict(trace.final_verdict)
    out: Json = {
        "index": index,
        "action": trace.action.value if guarded or trace.action is not Action.PASSED else "not_guarded",
        "defense": trace.defense,
        "harm": harm,
        "label": label,
        "final_harm": final_harm,
        "final_label": final_label,
        "checked": trace.checked,
        "unchecked_because": because(trace, guarded=guarded),
        "withheld": trace.withheld,
        "refused_by": trace.refused_by,
        "failure": trace.failure,
    }
    if steps:
        out["original"], out["failure_reason"] = trace.original, trace.failure_reason
        out["steps"] = [step(s) for s in trace.steps]
    return out


def step(given: Step) -> Json:
    """What is said of one step where steps are told: its text too."""
    verdict = given.verdict
    return {
        "role": given.role,
        "model": given.model,
        "ms": round(given.milliseconds, 1),
        "prompt_tokens": given.usage.prompt_tokens,
        "completion_tokens": given.usage.completion_tokens,
        "images": given.images,
        "harm": verdict.harm if verdict else None,
        "label": verdict.label.value if verdict else None,
        "threshold": verdict.threshold if verdict else None,
        "reason": verdict.reason if verdict else "",
        "text": given.text,
        "verifies": given.verifies,
        "error": given.error,
    }


def moderation(traces: Sequence[Trace], model: str) -> Json:
    """OpenAI's `moderation` object: of the answers that the model itself wrote, one result a choice.

    It has no word for unknown, so where any verdict is missing or unknown the output is an error object, never a result
    that reads as harmless. The input is not moderated, and said not to be.
    """
    unseen = hazards.not_moderated("not_checked", "the input is not moderated, answers are")
    results: list[Json] = []
    for trace in traces:
        if trace.verdict is None:
            return unjudged()
        if trace.verdict.label is Label.UNKNOWN:
            return {"input": unseen, "output": hazards.not_moderated("unknown", "the detector could not tell")}
        results.append(hazards.result(trace.verdict))
    return {"input": unseen, "output": hazards.part(results, model)}


def unjudged() -> Json:
    """The `moderation` object of answers that no detector judged."""
    unseen = hazards.not_moderated("not_checked", "the input is not moderated, answers are")
    return {"input": unseen, "output": hazards.not_moderated("not_checked", "no detector judged this answer")}


def _verdict(verdict: Verdict | None) -> tuple[str | None, float | None]:
    return (None, None) if verdict is None else (verdict.label.value, verdict.harm)


def _logprobs(given: object, guarded: Response) -> object:
    """The log-probabilities of the judged text's tokens, without alternatives: those spell out text too."""
    if guarded.logprobs is None or not isinstance(given, dict):
        return None
    tokens = []
    for token in guarded.logprobs:
        tokens.append({
            "token": token.token,
            "logprob": token.logprob,
            "bytes": list(token.token.encode("utf-8", "replace")),
            "top_logprobs": [],
        })  # fmt: skip
    return {"content": tokens, "refusal": None}

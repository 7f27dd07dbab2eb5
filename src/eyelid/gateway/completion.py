"""One choice of a completion: what the detector reads of it, and what may be delivered of it.

A choice leaves only with fields that were read: what has no place here (audio, pictures, token ids, texts in fields
that nobody knows) is taken out and named in `dropped`, since text that is not read is text that no detector sees.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..backends.openai_json import response_from_json
from ..errors import BackendProtocol
from ..types import Action, Label, Response, Trace, Verdict

Json = dict[str, object]

_MESSAGE = frozenset({"role", "content", "refusal", "reasoning_content", "reasoning", "tool_calls", "function_call"})
_CHOICE = frozenset({"index", "message", "finish_reason", "logprobs"})
_TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
_OURS = frozenset({"eyelid", "moderation"})
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Read:
    """A choice as it may leave, and as the guard reads it. `dropped` names what was taken out."""

    index: int
    choice: Json = field(repr=False)
    response: Response = field(repr=False)
    dropped: tuple[str, ...] = ()


def read(choice: object, completion: Mapping[str, object], *, keep_unknown: bool) -> Read:
    """Raises BackendProtocol for what cannot be read. `keep_unknown`: nobody checks, so nothing is taken out."""
    if not isinstance(choice, dict):
        raise BackendProtocol("a choice is not a JSON object", hint="is this an OpenAI-compatible server?")
    index = choice.get("index")
    index = index if isinstance(index, int) and not isinstance(index, bool) else 0
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BackendProtocol("a message is not a JSON object", hint="is this an OpenAI-compatible server?")
    dropped: list[str] = []
    cleaned = _message(message, dropped)
    whole = {"index": 0, "message": cleaned, "finish_reason": choice.get("finish_reason")}
    whole["logprobs"] = choice.get("logprobs")
    response = response_from_json({"model": completion.get("model"), "choices": [whole]})
    if keep_unknown:
        return Read(index, choice, response)
    if notes := _strings(cleaned.get("annotations")):
        response = replace(response, reasoning="\n".join([response.reasoning, *notes]).strip())
    out: Json = {"index": index, "message": cleaned, "logprobs": choice.get("logprobs")}
    out["finish_reason"] = choice.get("finish_reason") or response.finish_reason
    _keep_numbers(choice, _CHOICE, out, "", dropped)
    return Read(index, out, response, tuple(dropped))


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
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def top(completion: Mapping[str, object], alias: str, *, keep_unknown: bool) -> Json:
    """The completion around its choices, under the alias's name."""
    out: Json = {}
    if keep_unknown:
        out = {k: v for k, v in completion.items() if k not in _OURS}
    else:
        _keep_numbers(completion, _TOP, out, "", [])
        for name in ("usage", "system_fingerprint", "service_tier"):
            if name in completion:
                out[name] = completion[name]
    given, created = completion.get("id"), completion.get("created")
    out["id"] = given if isinstance(given, str) and _ID.fullmatch(given) else f"chatcmpl-{secrets.token_hex(12)}"
    out["object"], out["model"] = "chat.completion", alias
    out["created"] = created if isinstance(created, int) else int(time.time())
    return out


def because(trace: Trace, *, guarded: bool) -> str | None:
    """Why delivered model text was not checked, as one of a few fixed phrases; None where it was."""
    if trace.checked:
        return None
    if not guarded:
        return "no detector guards this model"
    if trace.action is Action.FAILED:
        return "the guard failed"
    verdict = trace.final_verdict or trace.verdict
    if verdict is not None and verdict.label is Label.UNKNOWN:
        return "the verdict was unknown and the policy lets it pass"
    if trace.action is Action.REPAIRED:
        return "the repaired answer was not verified"
    return "no detector saw the answer"


def account(read: Read, trace: Trace, *, guarded: bool, steps: bool) -> Json:
    """What the `eyelid` object says of one choice."""
    label, harm = _verdict(trace.verdict)
    final_label, final_harm = _verdict(trace.final_verdict)
    out: Json = {
        "index": read.index,
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
    if read.dropped:
        out["dropped"] = list(read.dropped)
    if steps:
        out["original"], out["failure_reason"] = trace.original, trace.failure_reason
        out["steps"] = [
            {
                "role": s.role,
                "model": s.model,
                "ms": round(s.milliseconds, 1),
                "prompt_tokens": s.usage.prompt_tokens,
                "completion_tokens": s.usage.completion_tokens,
                "images": s.images,
                "harm": s.verdict.harm if s.verdict else None,
                "label": s.verdict.label.value if s.verdict else None,
                "threshold": s.verdict.threshold if s.verdict else None,
                "reason": s.verdict.reason if s.verdict else "",
                "text": s.text,
                "verifies": s.verifies,
                "error": s.error,
            }
            for s in trace.steps
        ]
    return out


def moderation(traces: Sequence[Trace], model: str) -> Json:
    """OpenAI's `moderation` object: of the answers that the model itself wrote, one result a choice.

    It has no word for unknown, so where any verdict is missing or unknown the output is an error object, never a result
    that reads as harmless. The input is not moderated, and said not to be.
    """
    unseen = {"type": "error", "code": "not_checked", "message": "the input is not moderated, answers are"}
    results: list[Json] = []
    for trace in traces:
        verdict = trace.verdict
        if verdict is None or verdict.harm is None or verdict.label is Label.UNKNOWN:
            code = "not_checked" if verdict is None else "unknown"
            told = "no detector judged this answer" if verdict is None else "the detector could not tell"
            return {"input": unseen, "output": {"type": "error", "code": code, "message": told}}
        results.append(_result(verdict, model))
    return {"input": unseen, "output": {"type": "moderation_results", "model": model, "results": results}}


def _result(verdict: Verdict, model: str) -> Json:
    flagged = verdict.label is Label.HARMFUL
    return {
        "type": "moderation_result",
        "model": model,
        "flagged": flagged,
        "categories": {"harmful": flagged},
        "category_scores": {"harmful": verdict.harm},
        "category_applied_input_types": {"harmful": ["text"]},
    }


def _verdict(verdict: Verdict | None) -> tuple[str | None, float | None]:
    return (None, None) if verdict is None else (verdict.label.value, verdict.harm)


def _message(message: Json, dropped: list[str]) -> Json:
    out: Json = {"role": "assistant"}
    for name in ("content", "refusal", "reasoning_content", "reasoning", "function_call"):
        if name in message:
            out[name] = message[name]
    if isinstance(out.get("function_call"), dict):
        out["function_call"] = _function(message["function_call"], "message.function_call.", dropped)
    if message.get("tool_calls") is not None:
        out["tool_calls"] = [_call(c, dropped) for c in _listed(message["tool_calls"])]
    if isinstance(notes := message.get("annotations"), list):
        out["annotations"] = notes  # read as text, see `read`
    audio = message.get("audio")
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str) and not out.get("content"):
        out["content"] = audio["transcript"]  # what was said, in the words that the detector reads
    out.setdefault("content", None)
    _keep_numbers(message, _MESSAGE | {"annotations"}, out, "message.", dropped)
    return out


def _call(call: object, dropped: list[str]) -> Json:
    if not isinstance(call, dict):
        raise BackendProtocol("a tool call is not a JSON object", hint="is this an OpenAI-compatible server?")
    given = call.get("id")
    out: Json = {"id": given if isinstance(given, str) and _ID.fullmatch(given) else f"call_{secrets.token_hex(12)}"}
    out["type"] = "custom" if call.get("type") == "custom" else "function"
    for name in ("function", "custom"):
        if name in call:
            out[name] = _function(call[name], f"message.tool_calls.{name}.", dropped)
    if isinstance(call.get("index"), int):
        out["index"] = call["index"]
    _keep_numbers(call, frozenset({"id", "type", "function", "custom", "index"}), out, "message.tool_calls.", dropped)
    return out


def _function(function: object, where: str, dropped: list[str]) -> object:
    if not isinstance(function, dict):
        return function  # the reader says what is wrong with it
    known = ("name", "arguments", "input")
    out: Json = {k: function[k] for k in known if k in function}
    _keep_numbers(function, frozenset(known), out, where, dropped)
    return out


def _keep_numbers(
    given: Mapping[str, object], known: frozenset[str], out: Json, where: str, dropped: list[str]
) -> None:
    """Of fields that nobody knows only numbers stay, and tables of numbers: a list of them can be tokens, which are text."""
    for name, value in given.items():
        if name in known or name in out or name in _OURS:
            continue
        if _is_number(value) or (isinstance(value, dict) and all(map(_is_number, value.values()))):
            out[name] = value
        elif value not in ("", [], {}):
            dropped.append(f"{where}{name}"[:80])


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _strings(value: object) -> list[str]:
    """Every text in a JSON value, names of fields left out."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for v in value.values() for s in _strings(v)]
    return [s for v in value for s in _strings(v)] if isinstance(value, list) else []


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise BackendProtocol("tool_calls is not a JSON list", hint="is this an OpenAI-compatible server?")
    return value


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

"""Whole completions as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BackendProtocol

Json = dict[str, object]


def chunks(completion: Json) -> Iterator[Json]:
    """A whole completion as the events of a stream: one for each choice, and the usage."""
    shared = {k: completion[k] for k in ("id", "created", "model", "system_fingerprint") if k in completion}
    choices = completion.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise BackendProtocol("a choice holds no message", hint="is this an OpenAI-compatible server?")
        rest = {k: v for k, v in choice.items() if k not in ("message", "index")}
        one = chunk(choice.get("index", 0), delta(choice["message"]), rest.get("finish_reason") or "stop")
        one["choices"] = [{**rest, **c} for c in _dicts(one["choices"])]
        if "logprobs" in rest:
            for c in _dicts(one["choices"]):
                c["logprobs"] = rest["logprobs"]
        yield shared | one
    yield shared | {"object": "chat.completion.chunk", "choices": [], "usage": completion.get("usage")}


def chunk(index: object, delta: Json, finish: object = None, logprobs: object = None) -> Json:
    """One choice's piece of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def delta(message: Json) -> Json:
    """Tool calls of a whole message have no index, which those of a stream need."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [{"index": i, **c} if isinstance(c, dict) else c for i, c in enumerate(calls)]}


def _dicts(value: object) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []

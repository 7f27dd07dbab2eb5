"""Chunks of a streamed completion -> the whole completion, of any number of choices, with everything a model wrote.

A text that is not read here would be a text that no detector sees. So what may hold one and has no place here (audio,
images, unknown kinds of content) is an error, and unknown fields are left out: they never leave.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..backends.openai_errors import error_from_json, is_error
from ..backends.openai_json import finish_reason
from ..errors import BackendProtocol, BackendUnavailable
from ..types import Response, ToolCall
from .pieces import HINT, Call, Json, Text, as_list, as_object, as_str, numbers

#: Text fields of a message and of a delta, each a channel of its own.
REASONING = ("reasoning_content", "reasoning")
TEXTS = ("content", "refusal", *REASONING)
_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_MAX_CHOICES, _MAX_CALLS, _MAX_NAME = 128, 1024, 256
#: What a server may say of how it answered. All else around the choices is ours: nobody looks for harm in it.
_TIERS = frozenset({"auto", "default", "flex", "priority", "scale", "standard", "on_demand", "batch"})
_MODEL = re.compile(r"[\w.:/@+ -]{1,256}", re.ASCII)


@dataclass(slots=True)
class Choice:
    """All that has come of one choice. `texts` and `calls` are in the order in which they first came.

    A call's index in the answer is its place in `calls`, whatever numbers the server gave.
    """

    index: int
    texts: dict[str, Text] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    function_call: Call | None = None
    finish: str | None = None
    logprobs: dict[str, list[Json]] = field(default_factory=dict)
    _open: dict[object, tuple[Call, str]] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Characters of all channels together."""
        return self.spoken + sum(self.texts[name].length for name in REASONING if name in self.texts)

    @property
    def spoken(self) -> int:
        """Characters of all channels but the reasoning."""
        texts = sum(t.length for name, t in self.texts.items() if name not in REASONING)
        return texts + sum(c.length for c in self._every_call())

    def followed(self, name: str) -> int:
        """How many characters of other channels came since the reasoning `name` last grew."""
        return self.spoken - self._before.get(name, 0)

    @property
    def written(self) -> str:
        """Everything the model wrote, composed as `Response.written` composes it: what a detector must see."""
        thoughts = dict.fromkeys(self._text(name) for name in REASONING)  # some servers send one under two names
        texts = (self._text("content"), self._text("refusal"))
        return Response(
            text="\n".join(t for t in texts if t),
            reasoning="\n".join(t for t in thoughts if t),
            tool_calls=tuple(ToolCall("", str(c.name), str(c.arguments)) for c in self._every_call()),
        ).written

    def message(self) -> Json:
        """The message of the whole answer. `content` is None where nothing but calls or a refusal came."""
        message: Json = {"role": "assistant", "content": self._text("content") or self._no_content()}
        message |= {name: text for name in TEXTS[1:] if (text := self._text(name))}
        if self.calls:
            message["tool_calls"] = [c.to_json() for c in self.calls]
        if (call := self.function_call) is not None:
            message["function_call"] = call.inner()
        return message

    def close(self) -> None:
        for text in (*self.texts.values(), *(t for c in self._every_call() for t in (c.name, c.arguments))):
            text.close()

    def add(self, delta: Mapping[str, object]) -> None:
        """A piece of a stream. Raises BackendProtocol for what cannot be read, or not checked."""
        for unread in ("audio", "images"):
            if delta.get(unread):
                raise BackendProtocol(f"the answer holds {unread}, which cannot be checked", hint="ask for text only")
        for name in (*REASONING, "refusal"):
            self._piece(name, delta.get(name))
        self._content(delta.get("content"))
        for call in as_list(delta.get("tool_calls"), "tool_calls"):
            self._call(as_object(call, "a tool call"))
        if delta.get("function_call"):
            self._legacy(as_object(delta["function_call"], "function_call"))

    def add_logprobs(self, value: object) -> None:
        """Those of a piece. Raises BackendProtocol for what cannot be read."""
        if not isinstance(value, dict):
            return
        for name in ("content", "refusal"):
            if isinstance(entries := value.get(name), list):
                self.logprobs.setdefault(name, []).extend(as_object(e, "a token's log-probability") for e in entries)

    def _no_content(self) -> str | None:
        others = self.calls or self.function_call or self._text("refusal")
        return None if others else ""

    def _text(self, name: str) -> str:
        return str(self.texts[name]) if name in self.texts else ""

    def _every_call(self) -> Iterator[Call]:
        yield from self.calls
        if self.function_call is not None:
            yield self.function_call

    def _piece(self, name: str, value: object) -> None:
        if text := as_str(value, name):
            self.texts.setdefault(name, Text()).add(text)
            if name in REASONING:
                self._before[name] = self.spoken

    def _content(self, content: object) -> None:
        if not isinstance(content, list):
            return self._piece("content", content)
        for item in content:
            part = as_object(item, "a part of the content")
            kind = part.get("type")
            if kind in ("text", "output_text"):
                self._piece("content", part.get("text"))
            elif kind == "refusal":
                self._piece("refusal", part.get("refusal"))
            elif kind in ("thinking", "reasoning"):
                thought = part.get(str(kind)) or part.get("text")
                for piece in thought if isinstance(thought, list) else [thought]:
                    self._piece("reasoning_content", piece.get("text") if isinstance(piece, dict) else piece)
            else:
                raise BackendProtocol("the answer holds a kind of content that cannot be checked")

    def _call(self, piece: Mapping[str, object]) -> None:
        given = as_str(piece.get("id"), "a tool call's id")
        # Index says which call a piece belongs to. Some servers leave it out, or repeat 0 with another id.
        key = piece.get("index", given or next(reversed(self._open), None))
        if isinstance(key, bool) or not isinstance(key, int | str | None):
            raise BackendProtocol("a tool call's index is not a number", hint=HINT)
        known = self._open.get(key)
        kind = "custom" if piece.get("type") == "custom" or "custom" in piece else "function"
        if known is None or (given and known[1] and given != known[1]):
            if len(self.calls) >= _MAX_CALLS:
                raise BackendProtocol(f"the answer holds more than {_MAX_CALLS} tool calls")
            call = Call(given, kind)
            self.calls.append(call)
        else:
            call, before = known
            call.given = given = given or before
        self._open[key] = (call, given)
        self._function(call, as_object(piece.get("function") or piece.get("custom") or {}, "a tool call's function"))

    def _legacy(self, piece: Mapping[str, object]) -> None:
        """`function_call`, the field that tool_calls replaced; older servers still send it."""
        self.function_call = self.function_call or Call()
        self._function(self.function_call, piece)

    @staticmethod
    def _function(call: Call, function: Mapping[str, object]) -> None:
        name = as_str(function.get("name"), "a function's name")
        if name and call.name.length + len(name) > _MAX_NAME:
            raise BackendProtocol(f"a function's name has more than {_MAX_NAME} characters", hint=HINT)
        if call.arguments.length == 0:
            call.name.add(name)
        elif name not in ("", str(call.name)):  # some servers say it again with every piece
            raise BackendProtocol("a function's name went on after its arguments had begun", hint=HINT)
        arguments = function.get("arguments", function.get("input"))
        if text := json.dumps(arguments) if isinstance(arguments, dict) else as_str(arguments, "arguments"):
            call.name.close()  # from here on a name is whole, so that it can leave before the arguments have ended
            call.arguments.add(text)


class Assembly:
    """Collects the chunks of one streamed completion: `add` each, then `completion`."""

    def __init__(self) -> None:
        self.head: Json = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": ""}
        self.choices: dict[int, Choice] = {}
        self.usage: Json | None = None

    def add(self, chunk: object) -> None:
        """Take in one chunk. Raises BackendError where it is an error object or cannot be understood."""
        top = as_object(chunk, "a chunk")
        if is_error(top):
            raise error_from_json(top, clean=lambda message: "(message left out)")
        model, tier = top.get("model"), top.get("service_tier")
        if isinstance(model, str) and not self.head["model"] and _MODEL.fullmatch(model):
            self.head["model"] = model
        if isinstance(tier, str) and tier in _TIERS:
            self.head["service_tier"] = tier
        if isinstance(usage := top.get("usage"), dict):
            self.usage = numbers(usage)
        for item in as_list(top.get("choices"), "choices"):
            choice = as_object(item, "a choice")
            into = self._choice(choice.get("index"))
            into.add(as_object(choice.get("delta") or {}, "a delta"))
            into.add_logprobs(choice.get("logprobs"))
            if reason := as_str(choice.get("finish_reason"), "finish_reason"):
                into.finish = reason if reason in _REASONS else finish_reason(reason)

    def completion(self, *, cut: Iterable[int] = ()) -> Json:
        """The whole `chat.completion`. Raises BackendUnavailable where the answer broke off: a choice has no end.

        `cut` names choices that were stopped on purpose; they end with `content_filter`.
        """
        stopped = frozenset(cut)
        if not self.choices or any(c.finish is None and c.index not in stopped for c in self.choices.values()):
            raise BackendUnavailable("the answer broke off before its end", hint="see the server's log; try again")
        choices = [self._whole(self.choices[i], i in stopped) for i in sorted(self.choices)]
        return {**self.header("chat.completion"), "choices": choices, "usage": self.usage}

    def header(self, kind: str) -> Json:
        """The fields that every chunk, or the whole answer, begins with. Id and time are ours."""
        return {"id": self.head["id"], "object": kind, **{k: v for k, v in self.head.items() if k != "id"}}

    def _choice(self, index: object) -> Choice:
        index = 0 if index is None else index
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < _MAX_CHOICES:
            raise BackendProtocol("a choice's index is out of range", hint=HINT)
        return self.choices.setdefault(index, Choice(index))

    @staticmethod
    def _whole(choice: Choice, stopped: bool) -> Json:
        choice.close()
        whole: Json = {"index": choice.index, "message": choice.message()}
        if choice.logprobs:
            whole["logprobs"] = {name: choice.logprobs.get(name) for name in ("content", "refusal")}
        whole["finish_reason"] = "content_filter" if stopped else choice.finish
        return whole

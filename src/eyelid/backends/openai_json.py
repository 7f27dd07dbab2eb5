"""OpenAI chat-completions JSON <-> Eyelid's types. Shared by every backend that speaks it, over HTTP or in process.

What is read is everything that a model can have written (content, reasoning, refusal, tool calls), since text that is
not read here is text that no detector sees. For the same reason an answer with several choices, or with a kind of
content that has no place in `Response`, is refused rather than read in part.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BackendProtocol, BackendUnavailable, InputError
from ..types import Chunk, FinishReason, ImagePart, Message, Request, Response, TokenLogprob, ToolCall, Usage

Json = dict[str, object]

#: Fields that `Request.extra` may not set: they are fields of `Request`, or would bring in text or images unseen.
RESERVED = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "seed", "stop", "logprobs", "top_logprobs", "chat_template", "images", "image_data",
    "documents", "continue_final_message", "prompt_embeds", "multi_modal_data",
})  # fmt: skip

#: The values in use among servers. Others are refused, since they may mean that the answer is not whole.
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


def to_json(request: Request, model: str, *, max_tokens_field: str = "max_tokens") -> Json:
    """The body of a chat completion, not streamed. Images become data URLs, in their places among the text.

    A message without images is sent as one string, which every server takes. `adapters` is not translated: servers
    differ, so each backend does that itself.
    Raises InputError where `extra` sets a reserved field.
    """
    if clash := RESERVED & request.extra.keys():
        names = ", ".join(sorted(clash))
        raise InputError(f"extra may not set {names}", hint="use the request's own fields; `n` is always 1")
    body: Json = {
        "model": model,
        "messages": [_message(m) for m in request.messages],
        max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.top_logprobs > 0:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return {**body, **request.extra}


def _message(message: Message) -> Json:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[Json] = []
    for part in message.parts:
        if isinstance(part, ImagePart):
            parts.append({"type": "image_url", "image_url": {"url": data_url(part)}})
        else:
            parts.append({"type": "text", "text": part.text})
    return {"role": message.role, "content": parts}


def data_url(image: ImagePart) -> str:
    """The image as a `data:` URL."""
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def response_from_json(obj: object) -> Response:
    """Read a whole, not streamed, chat completion. Raises BackendProtocol where it is not exactly one readable choice.

    A refusal stands in `Response.text`, after the content if there is any: it is what the user would be shown.
    """
    reader = StreamReader()
    reader.feed(obj, whole=True)
    return reader.finish()


@dataclass(slots=True)
class _Call:
    id: str
    name: str = ""
    arguments: str = ""


class StreamReader:
    """Collects the chunks of a streamed completion. `feed` each, pass its text on, then send `last_chunk`.

    A refusal is held back to the end, so that the joined text equals that of the answer not streamed.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: dict[str, list[str]] = {"reasoning_content": [], "reasoning": [], "thinking": []}
        self._calls: list[_Call] = []
        self._open: dict[object, _Call] = {}
        self._logprobs: list[TokenLogprob] | None = None
        self._usage = Usage()
        self._model = ""
        self._finish: FinishReason | None = None

    @property
    def finished(self) -> bool:
        """Whether the finish reason has come; what may still follow is the usage."""
        return self._finish is not None

    def feed(self, obj: object, *, whole: bool = False) -> str:
        """Take in one chunk (or with `whole` the whole answer) and return the content text that it adds."""
        top = _object(obj, "the answer")
        self._model = _str(top.get("model"), "model") or self._model
        if isinstance(top.get("usage"), dict):
            self._usage = _usage(top["usage"])
        choices = _list(top.get("choices"), "choices")
        if not choices and not whole:
            return ""
        if len(choices) != 1:
            raise BackendProtocol(
                f"the server sent {len(choices)} choices where one was asked for", hint="do not send `n`, or send 1"
            )
        choice = _object(choices[0], "a choice")
        if choice.get("index") not in (None, 0):
            raise BackendProtocol("the server streams several choices where one was asked for")
        before = len(self._text)
        # A whole answer without a message is no answer; read as an empty one it would pass for a harmless one.
        self._delta(
            _object(choice.get("message"), "a message") if whole else _object(choice.get("delta") or {}, "a delta")
        )
        self._add_logprobs(choice.get("logprobs"))
        reason = _str(choice.get("finish_reason"), "finish_reason")
        if reason:
            self._finish = finish_reason(reason)
        elif whole:  # some servers never say, but a whole body is a whole answer
            self._finish = "tool_calls" if self._calls else "stop"
        return "".join(self._text[before:])

    def finish(self) -> Response:
        """The whole answer. Raises BackendUnavailable where it broke off: no finish reason was sent."""
        if self._finish is None:
            raise BackendUnavailable("the answer broke off before its end", hint="see the server's log; try again")
        texts = ("".join(self._text), "".join(self._refusal))
        thoughts = dict.fromkeys(
            "".join(pieces) for pieces in self._reasoning.values()
        )  # some send one under two names
        return Response(
            text="\n".join(t for t in texts if t),
            finish_reason=self._finish,
            model=self._model,
            usage=self._usage,
            logprobs=None if self._logprobs is None else tuple(self._logprobs),
            reasoning="\n".join(t for t in thoughts if t),
            tool_calls=tuple(ToolCall(c.id, c.name, c.arguments) for c in self._calls),
        )

    def last_chunk(self) -> Chunk:
        """The chunk that ends a stream: the text held back, and the response."""
        response = self.finish()
        return Chunk(response.text[sum(map(len, self._text)) :], response)

    def _delta(self, delta: Mapping[str, object]) -> None:
        for unread in ("audio", "images"):
            if delta.get(unread):
                raise BackendProtocol(f"the answer holds {unread}, which cannot be checked", hint="ask for text only")
        self._content(delta.get("content"))
        self._piece(self._refusal, delta.get("refusal"), "refusal")
        for name in ("reasoning_content", "reasoning"):
            self._piece(self._reasoning[name], delta.get(name), name)
        for call in _list(delta.get("tool_calls"), "tool_calls"):
            self._call(_object(call, "a tool call"))
        if delta.get("function_call"):  # the field that tool_calls replaced; older servers still send it
            self._call({"index": "function_call", "function": delta["function_call"]})

    def _content(self, content: object) -> None:
        if not isinstance(content, list):
            return self._piece(self._text, content, "content")
        for item in content:
            part = _object(item, "a part of the content")
            kind = part.get("type")
            if kind in ("text", "output_text"):
                self._piece(self._text, part.get("text"), "text")
            elif kind == "refusal":
                self._piece(self._refusal, part.get("refusal"), "refusal")
            elif kind in ("thinking", "reasoning"):
                thought = part.get(str(kind)) or part.get("text")
                for piece in thought if isinstance(thought, list) else [thought]:
                    text = piece.get("text") if isinstance(piece, dict) else piece
                    self._piece(self._reasoning["thinking"], text, "thinking")
            else:
                raise BackendProtocol("the answer holds a kind of content that cannot be checked")

    @staticmethod
    def _piece(into: list[str], value: object, name: str) -> None:
        if text := _str(value, name):
            into.append(text)

    def _call(self, call: Mapping[str, object]) -> None:
        id_ = _str(call.get("id"), "a tool call's id")
        # Index says which call a piece belongs to. Some servers leave it out, or repeat 0 with another id.
        key = call.get("index", id_ or next(reversed(self._open), None))
        if not isinstance(key, int | str | None):
            raise BackendProtocol("a tool call's index is not a number", hint="is this an OpenAI-compatible server?")
        entry = self._open.get(key)
        if entry is None or (id_ and entry.id and id_ != entry.id):
            entry = self._open[key] = _Call(id_)
            self._calls.append(entry)
        entry.id = entry.id or id_
        function = _object(call.get("function") or call.get("custom") or {}, "a tool call's function")
        entry.name += _str(function.get("name"), "a function's name")
        arguments = function.get("arguments", function.get("input"))
        entry.arguments += json.dumps(arguments) if isinstance(arguments, dict) else _str(arguments, "arguments")

    def _add_logprobs(self, logprobs: object) -> None:
        if not isinstance(logprobs, dict) or not isinstance(logprobs.get("content"), list):
            return
        self._logprobs = self._logprobs or []
        for item in logprobs["content"]:
            entry = _object(item, "a token's log-probability")
            top = [_token(alternative) for alternative in _list(entry.get("top_logprobs"), "top_logprobs")]
            token, logprob = _token(entry)
            self._logprobs.append(TokenLogprob(token, logprob, tuple(sorted(top, key=lambda t: -t[1]))))


def finish_reason(reason: str) -> FinishReason:
    """A server's reason as one of ours. Raises BackendUnavailable (aborted) or BackendProtocol (not known)."""
    if reason in ("abort", "error", "cancelled"):
        raise BackendUnavailable("the server gave the answer up before its end", hint="see the server's log; try again")
    if reason not in FINISH_REASONS:
        shown = repr(reason) if re.fullmatch(r"[A-Za-z_-]{1,40}", reason) else "that is not a plain word"
        raise BackendProtocol(
            f"the server ended with an unknown finish reason {shown}",
            hint=f"known: {', '.join(FINISH_REASONS)}",
        )
    return FINISH_REASONS[reason]


def _usage(usage: object) -> Usage:
    counts = _object(usage, "usage")
    details = counts.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")), _count(cached))


def _count(value: object) -> int | None:
    """JSON's whole numbers have no bounds; what is no count is not known."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _token(entry: object) -> tuple[str, float]:
    fields = _object(entry, "a token's log-probability")
    logprob = fields.get("logprob")
    fault = BackendProtocol("the server sent a log-probability that is not a number")
    if not isinstance(logprob, int | float) or isinstance(logprob, bool):
        raise fault
    try:
        value = float(logprob)
    except OverflowError:  # JSON's whole numbers have no bounds
        raise fault from None
    if math.isnan(value):
        raise fault
    return _str(fields.get("token"), "token"), min(value, 0.0)


def _object(value: object, what: str) -> Json:
    if not isinstance(value, dict):
        raise BackendProtocol(f"{what} is not a JSON object", hint="is this an OpenAI-compatible server?")
    return value


def _list(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BackendProtocol(f"{what} is not a JSON list", hint="is this an OpenAI-compatible server?")
    return value


def _str(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BackendProtocol(f"{what} is not a string", hint="is this an OpenAI-compatible server?")
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON can hold halves of characters

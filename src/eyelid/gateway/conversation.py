"""A chat's messages as the guard's request.

The upstream gets the messages as they were written; this is what judges read and remedies answer. Tool calls and their
results have no role of their own there: they become quoted text within the user's turn, in a fence, so that the turn
holds question and results together and a result cannot pass for the user's words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from ..fence import Fence
from ..types import ImagePart, Message, Part, Request, TextPart
from . import wire
from .settings import LimitsConfig

#: Fields of the body that a remedy's answer must keep to: who asked for JSON is given JSON.
KEPT = ("response_format",)
#: Where the body gives no temperature: the guard's own answers are as steady as the model allows.
TEMPERATURE, TOP_P = 0.0, 1.0


def request(
    chat: wire.Chat, images: Mapping[tuple[int, int], ImagePart], limits: LimitsConfig, *, extra: bool = True
) -> Request:
    """`images` by their places. `extra`: whether `KEPT` fields go along, for models behind a server."""
    messages = [_message(m, at, images) for at, m in enumerate(chat.messages)]
    bound = chat.max_tokens or limits.default_max_tokens
    options = chat.options
    kept = {k: msgspec.json.decode(chat.fields[k]) for k in KEPT if extra and chat.present(k)}
    return Request(
        tuple(messages),
        max_tokens=min(bound, limits.max_tokens or bound),
        temperature=TEMPERATURE if options.temperature is None else float(options.temperature),
        top_p=TOP_P if options.top_p is None else float(options.top_p),
        seed=options.seed,
        stop=chat.stop,
        extra=kept,
    )


def _message(message: wire.Message, at: int, images: Mapping[tuple[int, int], ImagePart]) -> Message:
    if message.role in ("tool", "function"):
        text = "\n".join(p.text for p in message.parts() if p.text)
        shown: list[Part] = [image for (m, _), image in images.items() if m == at]
        return Message("user", (*shown, TextPart(f"A tool answered:\n{Fence.new().wrap(text)}")))
    parts: list[Part] = []
    for where, part in enumerate(message.parts()):
        if part.type == "image_url":
            parts.append(images[at, where])
        elif said := part.text or part.refusal:
            parts.append(TextPart(said))
    if message.refusal:
        parts.append(TextPart(message.refusal))
    if calls := _calls(message):
        before = "\n".join(p.text for p in parts if isinstance(p, TextPart))
        quoted = "\n".join(filter(None, (before, *calls)))
        return Message("user", (TextPart(f"The assistant called tools:\n{Fence.new().wrap(quoted)}"),))
    if message.role in ("system", "developer"):
        return Message("system", tuple(parts))
    return Message("assistant" if message.role == "assistant" else "user", tuple(parts))


def _calls(message: wire.Message) -> list[str]:
    found = [c.function or c.custom for c in message.tool_calls or ()]
    return [_call(f) for f in (*found, message.function_call) if f is not None]


def _call(function: wire.Function) -> str:
    given = function.arguments if function.arguments is not None else function.input or ""
    return f"{function.name}({given if isinstance(given, str) else json.dumps(given)})"

"""A chat completion's body: read for what the guard needs, and kept byte for byte for what is only passed on.

The top level is a table of raw JSON values. What we know is decoded from there, all else reaches the upstream as it
came. Guard and upstream must not read two different requests in one body: each key stands once in what is sent on, in
messages at every depth, and a key that differs from a known one by case alone is refused, since servers written in Go
take it for that one. What of a body is refused, and why, stands in `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from .errors import BadRequest, TooLarge
from .refused import EMPTY, check_keys, check_options
from .settings import LimitsConfig

Raw = msgspec.Raw
Number = float | int

#: A word that requests share; see `together`.
TOGETHER = r"^[A-Za-z0-9_-]{8,64}$"
#: Fields of ours: they end here.
OWN = frozenset({"eyelid", "moderation"})
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class ImageURL(msgspec.Struct):
    """An image's place: `data:` or a URL. What else a client says of it is not read."""

    url: str


class ContentPart(msgspec.Struct):
    """A part of a message; which fields it has depends on its `type`."""

    type: str
    text: str | None = None
    image_url: ImageURL | str | None = None
    refusal: str | None = None

    @property
    def url(self) -> str | None:
        """The image's place in either form that clients send."""
        found = self.image_url
        return found.url if isinstance(found, ImageURL) else found


class Function(msgspec.Struct):
    """A call's name, and its `arguments`, or a custom tool's `input`."""

    name: str = ""
    arguments: str | dict[str, Any] | None = None
    input: str | None = None


class ToolCall(msgspec.Struct):
    """One of the two, as its type says."""

    function: Function | None = None
    custom: Function | None = None


class Message(msgspec.Struct):
    """A message as OpenAI's API has it."""

    role: str
    content: str | list[ContentPart] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None

    def parts(self) -> list[ContentPart]:
        """The content as parts, a plain text as one."""
        if isinstance(self.content, str):
            return [ContentPart("text", text=self.content)]
        return self.content or []


class StreamOptions(msgspec.Struct):
    """Whether the last event tells the tokens used."""

    include_usage: bool | None = None


class Own(msgspec.Struct, forbid_unknown_fields=True):
    """The `eyelid` object of a request."""

    defense: str | None = None
    trace: bool = False
    together: Annotated[str, msgspec.Meta(pattern=TOGETHER)] | None = None


class Options(msgspec.Struct):
    """What we read of a body beside its messages. None: not given."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    eyelid: Own | None = None


_TOP: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_MESSAGES: msgspec.json.Decoder[list[dict[str, Any]]] = msgspec.json.Decoder(list[dict[str, Any]])
_FIELDS = {f.name: msgspec.json.Decoder(f.type) for f in msgspec.structs.fields(Options)}


@dataclass(slots=True)
class Chat:
    """A read body. `fields` are all values as they came, for passing on; `plain` are the messages as JSON objects."""

    fields: dict[str, Raw] = field(repr=False)
    options: Options = field(repr=False)
    messages: list[Message] = field(repr=False)
    plain: list[dict[str, Any]] = field(repr=False)

    @property
    def model(self) -> str:
        """The alias that is asked; "" where none is named."""
        return self.options.model or ""

    @property
    def stream(self) -> bool:
        return bool(self.options.stream)

    @property
    def include_usage(self) -> bool:
        return bool(self.options.stream_options and self.options.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.options.n or 1

    @property
    def max_tokens(self) -> int | None:
        """The bound on an answer's tokens, under its newer name or its older."""
        o = self.options
        return o.max_completion_tokens if o.max_completion_tokens is not None else o.max_tokens

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        given = self.options.stop
        return (given,) if isinstance(given, str) else tuple(given or ())

    def images(self) -> Iterator[tuple[int, int, str]]:
        """(place of the message, place of the part, URL) of every image, in order."""
        for at, message in enumerate(self.messages):
            for where, part in enumerate(message.content if isinstance(message.content, list) else ()):
                if part.type == "image_url" and (url := part.url) is not None:
                    yield at, where, url

    def said(self) -> str:
        """All text of the messages: what no error may quote."""
        return "\n".join(p.text for m in self.messages for p in m.parts() if p.text)

    def present(self, name: str) -> bool:
        """Whether a field was given a value: neither null, false nor empty."""
        return name in self.fields and bytes(self.fields[name]) not in EMPTY


def read(body: bytes, limits: LimitsConfig) -> Chat:
    """Raises BadRequest or TooLarge, which name the field and never its content."""
    try:
        body.decode()  # what is only passed on is not read otherwise, and must be text too
        fields = _TOP.decode(body)
    except msgspec.ValidationError:
        raise BadRequest("the body must be a JSON object", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
        fault = "nested too deeply" if isinstance(e, RecursionError) else "not valid JSON"
        raise BadRequest(f"the body is {fault}", code="invalid_json", hint=_where(e)) from None
    try:
        options = Options(**{name: _FIELDS[name].decode(raw) for name, raw in fields.items() if name in _FIELDS})
    except (ValueError, RecursionError):  # the same, with the name of the first that is wrong
        options = Options(**{name: _decoded(fields, name, _FIELDS[name]) for name in _FIELDS if name in fields})
    check_options(fields)
    chat = Chat(fields, options, *_messages(fields, limits))
    _check(chat, limits)
    return chat


def model_of(body: bytes) -> str | None:
    """The model that a body names which could not be read, where that much can be."""
    try:
        found = msgspec.json.decode(_TOP.decode(body).get("model", Raw(b"null")))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _messages(fields: Mapping[str, Raw], limits: LimitsConfig) -> tuple[list[Message], list[dict[str, Any]]]:
    """The messages as we read them, and as plain objects: both from one decoding, so both from the same keys."""
    if "messages" not in fields:
        raise BadRequest("the body has no messages", param="messages", code="missing_required_parameter")
    plain: list[dict[str, Any]] = _decoded(fields, "messages", _MESSAGES)
    try:
        messages = msgspec.convert(plain, list[Message])
    except msgspec.ValidationError as e:
        raise _wrong_type("messages", e) from None
    if not messages:
        raise BadRequest("messages is empty", param="messages", hint="send at least one message")
    if len(messages) > limits.max_messages:
        fault = f"{len(messages)} messages, at most {limits.max_messages} are taken"
        raise TooLarge(fault, param="messages", code="too_many_messages")
    images = 0
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        if message.role not in ROLES:
            raise BadRequest(f"{where}.role is not known", param=f"{where}.role", hint=", ".join(sorted(ROLES)))
        check_keys(plain[at], where)
        for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
            images += _check_part(part, message.role, f"{where}.content[{place}]")
    if images > limits.max_images:
        raise TooLarge(
            f"{images} images, at most {limits.max_images} are taken", param="messages", code="too_many_images"
        )
    if messages[-1].role == "assistant":  # llama.cpp, Ollama and others go on writing it
        where = f"messages[{len(messages) - 1}]"
        hint = "end with a message of the user or a tool: the detector must see the whole answer"
        raise BadRequest("the last message is the assistant's", param=where, code="unsupported_field", hint=hint)
    return messages, plain


def _check_part(part: ContentPart, role: str, where: str) -> bool:
    """Whether it is an image. Raises BadRequest for what the guard cannot see."""
    if part.type == "image_url":
        if part.url is None:
            raise BadRequest(f"{where} has no image_url.url", param=f"{where}.image_url")
        if role in ("system", "developer", "assistant"):
            hint = "put images into a user's message"
            raise BadRequest(f"{where}: a {role} message cannot hold an image", param=where, hint=hint)
        return True
    if part.type == "text":
        if part.text is None:
            raise BadRequest(f"{where} has no text", param=f"{where}.text")
        return False
    if part.type == "refusal" or (role == "assistant" and part.type in ("thinking", "reasoning")):
        return False
    hint = "text and image_url are"
    raise BadRequest(f"{where}.type is not taken: the guard could not see it", param=where, hint=hint)


def _check(chat: Chat, limits: LimitsConfig) -> None:
    o = chat.options
    if not o.model:
        raise BadRequest("the body names no model", param="model", code="missing_required_parameter")
    if o.modalities and set(o.modalities) != {"text"}:
        hint = 'modalities: ["text"]'
        raise BadRequest("only text can be checked", param="modalities", code="unsupported_field", hint=hint)
    if o.n is not None and not 1 <= o.n <= limits.max_choices:
        fault = f"n must be from 1 to {limits.max_choices}"
        raise BadRequest(fault, param="n", code="too_many_choices" if o.n > 0 else "invalid_request")
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(o, name)
        if value is not None and value < 1:
            raise BadRequest(f"{name} must be at least 1", param=name)
    if o.stop is not None and len(chat.stop) > 16:
        raise BadRequest("stop has more than 16 texts", param="stop")


def _decoded(fields: Mapping[str, Raw], name: str, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(fields[name])
    except msgspec.ValidationError as e:
        raise _wrong_type(name, e) from None
    except (msgspec.DecodeError, UnicodeError):
        raise BadRequest(f"{name} holds text that is not valid", param=name, code="invalid_json") from None
    except RecursionError:
        raise BadRequest(f"{name} is nested too deeply", param=name, code="invalid_json") from None


def _wrong_type(name: str, error: msgspec.ValidationError) -> BadRequest:
    """It names types and places, never values."""
    text = str(error).replace("`$", f"`{name}")
    return BadRequest(f"{name}: {text[:1].lower()}{text[1:200]}", param=name, code="invalid_type")


def _where(error: Exception) -> str:
    """The place that msgspec names, and nothing that it quotes."""
    _, found, place = str(error).rpartition("(byte ")
    return f"at byte {place.rstrip(')')}" if found and place.rstrip(")").isdigit() else ""

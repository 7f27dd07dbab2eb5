"""What the chunks of a stream bring: texts and calls that grow, and JSON values that may be anything."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BackendProtocol

Json = dict[str, object]

#: The words that a count's name may be made of, how many of them, and how many counts there may be.
_WORDS = frozenset({
    *("prompt", "completion", "total", "input", "output", "tokens", "details", "reasoning", "accepted", "rejected"),
    *("prediction", "cached", "cache", "hit", "miss", "read", "write", "creation", "audio", "image", "text", "video"),
    *("time", "queue", "seconds", "cost", "num", "search", "queries", "citation", "used"),
})  # fmt: skip
_NAME, _COUNTS = 5, 32
#: Mistral's templates take calls back under no other ids.
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_LETTERS = string.ascii_letters + string.digits
HINT = "is this an OpenAI-compatible server?"


class Text:
    """A text that arrives in pieces. Halves of a character in two pieces become one character."""

    __slots__ = ("_half", "_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._half = ""
        self.length = 0  # characters that are complete

    def add(self, piece: str) -> None:
        """A piece; half of a character waits for the other half."""
        if not piece:
            return
        if self._half or not piece.isascii():
            piece, self._half = self._half + piece, ""
            if "\ud800" <= piece[-1] <= "\udbff":
                piece, self._half = piece[:-1], piece[-1]
            piece = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._pieces.append(piece)
        self.length += len(piece)

    def close(self) -> None:
        """Half a character whose other half never came becomes U+FFFD."""
        if self._half:
            self._half = ""
            self._pieces.append("\ufffd")
            self.length += 1

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


@dataclass(slots=True)
class Call:
    """A tool call. `kind` is `function` or `custom`; `given`: the server's id for it; `told`: it has begun to leave."""

    given: str = field(default="", repr=False)
    kind: str = "function"
    told: bool = False
    name: Text = field(default_factory=Text)
    arguments: Text = field(default_factory=Text)
    _id: str = ""

    @property
    def id(self) -> str:
        """The id that leaves, made when it is first asked for: the name must be whole by then."""
        self._id = self._id or own_id(self.given, str(self.name))
        return self._id

    @property
    def length(self) -> int:
        """Characters of name and arguments."""
        return self.name.length + self.arguments.length

    def to_json(self, end: int | None = None) -> Json:
        """As it stands in a message; with `end`, only so many characters of the arguments."""
        return {"id": self.id, "type": self.kind, self.kind: self.inner(end)}

    def inner(self, end: int | None = None) -> Json:
        """The name, and the arguments up to `end` characters."""
        arguments = "arguments" if self.kind == "function" else "input"
        return {"name": str(self.name), arguments: str(self.arguments)[:end]}


def own_id(given: str, name: str) -> str:
    """An id of ours for a call of `name`: models write some of the servers' ids, as any text, and nobody judges them.

    It has the form of the given one where models insist on it when the call comes back: Mistral's nine letters and
    digits, and Kimi's `functions.NAME:NUMBER`, of which the name is judged.
    """
    if _NINE.fullmatch(given):
        return "".join(secrets.choice(_LETTERS) for _ in range(9))
    before, _, number = given.rpartition(":")
    if before == f"functions.{name}" and number.isascii() and number.isdigit() and len(number) <= 3:
        return given
    return f"call_{secrets.token_hex(12)}"


def numbers(usage: Mapping[str, object], depth: int = 2) -> Json:
    """The counts of a usage, with those of its tables; a text has no place among them, as a key or in digits."""
    found: Json = {}
    for name, value in usage.items():
        words = name.split("_")
        if len(found) >= _COUNTS or len(words) > _NAME or not _WORDS.issuperset(words):
            continue
        if isinstance(value, dict):
            if depth:
                found[name] = numbers(value, depth - 1)
        elif value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 2**53):
            found[name] = value
    return found


def as_object(value: object, what: str) -> Json:
    """Raises BackendProtocol, which names `what`, where the value is none."""
    if not isinstance(value, dict):
        raise BackendProtocol(f"{what} is not a JSON object", hint=HINT)
    return value


def as_list(value: object, what: str) -> list[object]:
    """An empty one for None. Raises BackendProtocol, which names `what`, where the value is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BackendProtocol(f"{what} is not a JSON list", hint=HINT)
    return value


def as_str(value: object, what: str) -> str:
    """An empty one for None. Raises BackendProtocol, which names `what`, where the value is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BackendProtocol(f"{what} is not a string", hint=HINT)
    return value

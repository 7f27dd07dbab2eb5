"""Fences for untrusted text: a per-request random border that the text cannot forge."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

# Chat templates are read by tokenizers that turn such marks into control tokens wherever they stand, so that a text
# could close its own turn. A zero-width space after the first character leaves them readable and powerless.
# They are told by their shape, since no list of every model's marks is ever whole.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,60}\|>"
    r"|<｜[^｜<>\n]{1,60}｜>"
    r"|</?[A-Za-z_][\w:.-]{0,60}>"
    r"|\[/?[A-Za-z]?[A-Z][A-Z_]{1,40}\]"
    r"|<</?[A-Z]+>>"
)


def defuse(text: str) -> str:
    """`text` with chat-template control marks broken up so that no tokenizer reads them as control tokens."""
    return _CONTROL.sub(lambda m: m[0][0] + "\u200b" + m[0][1:], text)


@dataclass(frozen=True, slots=True)
class Fence:
    """`mark` is 64 random bits in hexadecimal; a text that contains it is refused a place inside."""

    mark: str

    @classmethod
    def new(cls) -> Fence:
        return cls(secrets.token_hex(8))

    def wrap(self, text: str) -> str:
        """Put `text` between two border lines that name the mark. Control marks inside are broken up."""
        if self.mark in text:  # 2^-64 by chance: somebody knows the mark
            raise ValueError("the text contains its own fence")
        return f"[begin {self.mark}]\n{defuse(text)}\n[end {self.mark}]"

"""Fences for untrusted text: a per-request random border that the text cannot forge."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

# Chat templates are read by tokenizers that turn such marks into control tokens wherever they stand, so that a text
# could close its own turn. A zero-width space after the first character leaves them readable and powerless.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>"
    r"|<｜[^｜<>\n]{1,40}｜>"
    r"|</?(?:s|bos|eos|pad|unk|image|video|audio|think|tool_call|tool_response|start_of_turn|end_of_turn|"
    r"__media__|start_of_image|end_of_image|image_soft_token)>"
    r"|\[/?(?:INST|IMG|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|<</?SYS>>",
    re.IGNORECASE,
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

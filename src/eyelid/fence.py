"""Fences for untrusted text: a per-request random border that the text cannot forge."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import secrets
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

# Chat templates are read by tokenizers that turn such marks into control tokens wherever they stand, so that a text
# could close its own turn. A zero-width space after the first character leaves them readable and powerless.
# They are told by their shape, since no list of every model's marks is ever whole.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,60}\|>"
    r"|<｜[^｜<>\n]{1,60}｜>"
    r"|<[|/]?[^\W\d][\w:.-]{0,60}[|]?>"
    r"|\[/?[A-Za-z]?[A-Z][A-Z_]{1,40}\]"
    r"|\[\|[^|\[\]\n]{1,60}\|\]"
    r"|<</?[A-Z]+>>"
)


def defuse(text: str, tokens: Iterable[str] | None = None) -> str:
    """`text` with chat-template control marks broken up so that no tokenizer reads them as control tokens.

    `tokens` None: everything that has the shape of such a mark. Else these texts and nothing else; each needs at least
    two characters and no white space or zero-width space (ValueError).
    """
    if tokens is None:
        return _CONTROL.sub(_broken, text)
    pattern = _listed(frozenset(tokens))
    while pattern is not None and (inert := pattern.sub(_broken, text)) != text:
        text = inert  # what is left of a longer token may be a shorter one
    return text


def _broken(mark: re.Match[str]) -> str:
    return f"{mark[0][0]}\u200b{mark[0][1:]}"


@functools.lru_cache(maxsize=64)
def _listed(tokens: frozenset[str]) -> re.Pattern[str] | None:
    for token in tokens:
        if len(token) < 2 or "\u200b" in token or any(c.isspace() for c in token):
            raise ValueError("a control token has at least two characters and no white space")
    longest_first = sorted(tokens, key=lambda t: (-len(t), t))
    return re.compile("|".join(map(re.escape, longest_first))) if tokens else None


#: Where the marks come from inside `repeatable`; None: from the system's randomness.
_MARKS: ContextVar[random.Random | None] = ContextVar("eyelid_fence_marks", default=None)


@contextlib.contextmanager
def repeatable(seed: str) -> Iterator[None]:
    """Inside, new fences have the same marks each time, so that a run can be repeated word for word.

    Who knows the seed can forge such a fence: for texts of one's own only, as the demo's pages are.
    """
    token = _MARKS.set(random.Random(seed))
    try:
        yield
    finally:
        _MARKS.reset(token)


@dataclass(frozen=True, slots=True)
class Fence:
    """`mark` is 64 random bits in hexadecimal; a text that contains it is refused a place inside."""

    mark: str

    @classmethod
    def new(cls) -> Fence:
        """One with a mark of its own: 64 random bits, or the repeatable ones of `repeatable`."""
        known = _MARKS.get()
        return cls(secrets.token_hex(8) if known is None else known.randbytes(8).hex())

    def wrap(self, text: str) -> str:
        """Put `text` between two border lines that name the mark. Control marks inside are broken up."""
        if self.mark in text:  # 2^-64 by chance: somebody knows the mark
            raise ValueError("the text contains its own fence")
        return f"[begin {self.mark}]\n{defuse(text)}\n[end {self.mark}]"

"""What a layout is: its name, the columns it is recognised by, and how a record becomes a row or a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..rows import Pair, Row
from .fields import Record


@dataclass(frozen=True, slots=True)
class Layout:
    """`columns`: all must be there for a file to be recognised; with `automatic` False it must be named.

    `parse` raises BadRow. `licence` is the publisher's, "" where a layout belongs to no one data set.
    """

    name: str
    licence: str
    columns: frozenset[str]
    parse: Callable[[Record], Row | Pair]
    automatic: bool = True

    def fits(self, columns: frozenset[str]) -> bool:
        """Whether a file with these columns is recognised as this."""
        return self.automatic and self.columns <= columns

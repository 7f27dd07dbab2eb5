"""One labelled answer, a pile of them, and what a layout says of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..rows import Problem


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer and what people say of it. `unsafe` and `refused` are None where they do not say.

    `tied`: as many say one thing as the other, so it counts for neither. `votes` is how many were asked.
    `kind` names a kind of answer in its set.
    """

    question: str = field(repr=False)
    answer: str = field(repr=False)
    unsafe: bool | None
    refused: bool | None = None
    kind: str = ""
    votes: int = 1
    tied: bool = False


@dataclass(slots=True)
class Pile:
    """A set of labelled answers. `seen` rows became `rows`, `problems`, or, where people disagree evenly, `ties`.

    Where one answer is labelled in several rows, `merged` rows went into others.
    """

    name: str
    licence: str
    rows: list[Labelled] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    digests: Mapping[str, str] = field(default_factory=dict)
    seen: int = 0
    ties: int = 0
    merged: int = 0
    single: bool = False
    notes: tuple[str, ...] = ()

    def take(self, found: Sequence[Labelled]) -> None:
        """Rows of one file, merged ones as one; ties are counted and left out."""
        self.ties += sum(r.tied for r in found)
        self.rows += [r for r in found if not r.tied]
        self.merged = self.seen - len(self.problems) - len(found)

    def joined(self, other: Pile) -> Pile:
        """Both sets as one."""
        return replace(
            self,
            rows=self.rows + other.rows,
            problems=self.problems + other.problems,
            digests={**self.digests, **other.digests},
            seen=self.seen + other.seen,
            ties=self.ties + other.ties,
            merged=self.merged + other.merged,
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """A published form of labelled answers: how it is known, and how a row is read.

    `parse` raises BadRow. `merge` joins rows of several annotators. `single`: each file is a set of its own, called by
    its name, as in `title`.
    """

    name: str
    licence: str
    columns: frozenset[str]
    parse: Callable[[Mapping[str, object]], Labelled]
    merge: Callable[[Sequence[Labelled]], list[Labelled]] | None = None
    single: bool = False

    def title(self, path: Path) -> str:
        """What a set from this file is called."""
        return path.name.split(".")[0] if self.single else self.name


def majority(votes: Sequence[bool]) -> bool | None:
    """What more than half say; None where it is a tie, or where nobody said anything."""
    yes = sum(votes)
    return None if 2 * yes == len(votes) else 2 * yes > len(votes)

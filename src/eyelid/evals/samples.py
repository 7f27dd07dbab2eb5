"""What a benchmark gives: samples to ask, the rows that could not be used, and a seeded choice among the samples."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from .records import Input, Kind
from .rows import Problem


class Page(Protocol):
    """A picture that is made when it is needed: see `pages`."""

    def render(self) -> bytes:
        """An encoded image."""
        ...


Picture = Path | bytes | Page


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to ask a model. `id` is unique in its benchmark and the same in every run.

    `picture` is a file, an encoded image, or a page to render. `target` is what utility benchmarks expect. `options`
    are the letters and texts of a multiple choice, as shown. `group`: see `records.Record`.
    """

    id: str
    question: str = field(repr=False)
    kind: Kind
    input: Input
    scenario: str = ""
    picture: Picture | None = field(default=None, repr=False)
    target: str = ""
    group: str = ""
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A benchmark as found: `seen` rows became `samples`, or `problems` with file and line.

    `source` says where it came from, for people; `digests` are SHA-256 of the files that hold the questions. `notes`
    are sentences about what differs from the official release (pages that were rendered, for instance).
    """

    task: str
    licence: str
    source: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Rows that were read, usable or not."""
        return len(self.samples) + len(self.problems)


class Shelf:
    """Collects samples and problems while a benchmark is read."""

    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}
        self.problems: list[Problem] = []

    def add(self, sample: Sample, path: Path, line: int) -> None:
        """Keep a sample; a second one with its id is a problem."""
        if sample.id in self.samples:
            self.bad(path, line, "its id stands in the file twice")
        elif not sample.question.strip():
            self.bad(path, line, "the question is empty")
        else:
            self.samples[sample.id] = sample

    def bad(self, path: Path, line: int, what: str) -> None:
        """Note a row that cannot be used; `line` counts from 1."""
        self.problems.append(Problem(path, line, what))

    def loaded(
        self,
        task: str,
        licence: str,
        source: str,
        *,
        notes: Iterable[str] = (),
        digests: Mapping[str, str] | None = None,
    ) -> Loaded:
        """The result. Raises InputError where not one row could be used."""
        if not self.samples:
            first = f"; the first problem: {self.problems[0]}" if self.problems else ""
            raise InputError(f"{task}: nothing in {source} can be used{first}", hint="check that it is the release")
        found = tuple(self.samples.values())
        return Loaded(task, licence, source, found, tuple(self.problems), tuple(notes), digests or {})


def choose(samples: Sequence[Sample], limit: int | None, seed: int = 0) -> list[Sample]:
    """At most `limit` samples, spread over scenarios and inputs in proportion, in their own order.

    Samples of one group are taken together and count once: `limit` is of questions, whatever their rotations, and of
    images, whatever their number of questions. The same seed gives the same choice on every machine, and a text and its
    rendered page are chosen alike.
    """
    strata: dict[tuple[str, str], list[str]] = {}
    groups: dict[str, None] = {}
    for s in samples:
        unit = s.group or s.id
        if unit not in groups:
            groups[unit] = None
            strata.setdefault((s.input, s.scenario), []).append(unit)
    if limit is None or limit >= len(groups):
        return list(samples)
    quotas = _quotas({k: len(v) for k, v in strata.items()}, limit, seed)
    taken: set[str] = set()
    for key, units in strata.items():
        order = list(units)
        random.Random(f"{seed}/{key[1]}").shuffle(order)
        taken.update(order[: quotas[key]])
    return [s for s in samples if (s.group or s.id) in taken]


def _quotas(sizes: Mapping[tuple[str, str], int], limit: int, seed: int) -> dict[tuple[str, str], int]:
    """Shares of `limit` by largest remainder; ties are broken by the seed, so that no stratum is always last."""
    total = sum(sizes.values())
    exact = {k: limit * n / total for k, n in sizes.items()}
    found = {k: math.floor(x) for k, x in exact.items()}
    ties = list(sizes)
    random.Random(f"{seed}/ties").shuffle(ties)
    ties.sort(key=lambda k: found[k] - exact[k])
    for k in ties[: limit - sum(found.values())]:
        found[k] += 1
    return found

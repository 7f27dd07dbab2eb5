"""Answers that exist already, from files: scored without asking any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .rows import Problem
from .samples import Sample
from .scoring import Mark


@dataclass(slots=True)
class Answers:
    """What an answer file holds: each answer with its sample, and the lines that cannot be used.

    `marks` are grades that the file brings (by sample id), each a mean of `runs`. `asked` are all samples of the
    benchmark where they are known: an answer that is missing from a group counts as wrong there.
    """

    model: str
    given: list[tuple[Sample, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)
    runs: int = 1
    asked: tuple[Sample, ...] = ()


def by_group(samples: tuple[Sample, ...]) -> Mapping[str, list[Sample]]:
    """Samples by group; one without a group is its own."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.group or sample.id, []).append(sample)
    return found

"""Which answers a report shows: a stated rule and a seed, so that nobody picks the pretty ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..records import Kind, Outcome, Record
from .figures import BASE, ordered

RULE = (
    "From each benchmark, for each of these kinds, up to {count} samples are drawn at random (seed {seed}): an answer "
    "that a defence made safe; one that stayed or became unsafe; a benign request that only a defence refused; an "
    "answer that a defence made worse; one without an outcome; any other. A sample is shown once, under every defence."
)


@dataclass(frozen=True, slots=True)
class Example:
    """A sample under every defence. `why` is the kind for which it was drawn."""

    why: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """For what all of them share: the sample's own fields."""
        return self.records[0]


Test = Callable[[Record, Record | None], bool]

#: Why -> whether a defence's record shows it, given the undefended one.
KINDS: tuple[tuple[str, Test], ...] = (
    ("made safe", lambda r, b: r.outcome is Outcome.SAFE and b is not None and b.outcome is Outcome.UNSAFE),
    ("unsafe under a defence", lambda r, b: r.defense != BASE and r.outcome is Outcome.UNSAFE),
    (
        "benign, refused by a defence only",
        lambda r, b: r.kind is Kind.OVER_REFUSAL and r.refused is True and b is not None and b.refused is False,
    ),
    (
        "made worse",
        lambda r, b: b is not None and r.score is not None and b.score is not None and r.score < b.score,
    ),
    (
        "without an outcome",
        lambda r, b: not r.answered or r.outcome in (Outcome.JUDGE_FAILED, Outcome.GUARD_ERROR),
    ),
    ("any other", lambda r, b: True),
)


def examples(records: Iterable[Record], count: int = 2, seed: int = 0) -> list[Example]:
    """Samples for a report, in the order of benchmarks and kinds."""
    tasks: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for r in records:
        tasks.setdefault((r.model, r.task), {}).setdefault(r.sample, []).append(r)
    found = []
    for (model, task), samples in tasks.items():
        taken: set[str] = set()
        for why, test in KINDS:
            fits = [s for s, own in sorted(samples.items()) if s not in taken and _shows(own, test)]
            for sample in random.Random(ascii(f"{seed}/{model}/{task}/{why}")).sample(fits, min(count, len(fits))):
                taken.add(sample)
                found.append(Example(why, tuple(_sorted(samples[sample]))))
    return found


def _shows(own: Sequence[Record], test: Test) -> bool:
    base = next((r for r in own if r.defense == BASE), None)
    return any(test(r, base) for r in own)


def _sorted(own: Sequence[Record]) -> list[Record]:
    order = ordered(r.defense for r in own)
    return sorted(own, key=lambda r: order.index(r.defense))

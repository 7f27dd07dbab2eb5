"""Judges: what they say of a delivered answer, by name. A judge never sees which defence gave the answer.

    async def judge(self, samples: Sequence[Judged]) -> list[Finding]: ...

A judge that cannot say returns a finding with outcome judge_failed; one that breaks raises, and whoever asked it counts
every sample as judge_failed (`opinions`). Third parties add theirs through entry points in the group `eyelid.judges`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import ConfigError, EyelidError, ImageLeak
from ..records import Finding, JudgeId, Outcome, Record
from ..samples import Picture

#: Name -> "module:Class". A judge is made without arguments, or with those of its SPEC (`NAME:ARGUMENT`).
BUILTIN = {
    "refusal": "eyelid.evals.judges.refusal:RefusalRules",
    "classifier": "eyelid.evals.judges.classifier:ClassifierJudge",
    "model": "eyelid.evals.judges.model:ModelJudge",
    "human": "eyelid.evals.judges.human:HumanLabels",
    "ensemble": "eyelid.evals.judges.ensemble:Ensemble",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer to be judged, with what was asked. `picture` is there for judges that can look."""

    task: str
    scenario: str
    question: str = field(repr=False)
    answer: str = field(repr=False)
    picture: Picture | None = field(default=None, repr=False)


class Judge(Protocol):
    """`id` names the judge and its version; both stand beside every rate. `aclose` frees what it holds."""

    id: JudgeId

    async def judge(self, samples: Sequence[Judged]) -> list[Finding]:
        """A finding for each sample, in their order: `judge_failed` where it cannot say. Raises where it breaks."""
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


def names() -> dict[str, str]:
    """Every judge with its "module:Class"; built-in names cannot be shadowed."""
    outside = {e.name: e.value for e in importlib.metadata.entry_points(group="eyelid.judges")}
    return outside | BUILTIN


def make(spec: str) -> Judge:
    """The judge that NAME or NAME:ARGUMENT names. Raises ConfigError, and what its making raises."""
    name, _, argument = spec.partition(":")
    known = names()
    if name not in known:
        raise ConfigError(f"unknown judge {ascii(name)[:80]}", hint=f"known: {', '.join(sorted(known))}")
    module, _, attribute = known[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    found: Judge = kind(argument) if argument else kind()
    return found


def default(names: Sequence[str] = ()) -> list[Judge]:
    """The judges of these specs; with none, the trained detector (where one is installed) and the refusal rules.

    The rules are always among them: refusals are marked apart, whoever judges safety.
    """
    from ... import models

    given = list(dict.fromkeys(n for n in names if n)) or (["classifier"] if models.has("detector") else [])
    return [make(n) for n in (*given, *(() if "refusal" in given else ("refusal",)))]


async def opinions(judges: Sequence[Judge], sample: Judged) -> list[Finding]:
    """What each judge says of one answer. One that breaks has failed for this answer, and its error's type is kept."""
    found = []
    for judge in judges:
        try:
            (finding,) = await judge.judge([sample])
        except ImageLeak:
            raise
        except (EyelidError, ValueError, TypeError, KeyError, ArithmeticError) as e:
            finding = Finding(judge.id, Outcome.JUDGE_FAILED, reason=f"broke: {type(e).__name__}")
        found.append(finding)
    return found


def of(record: Record) -> Judged:
    """What a judge sees of a record: no picture, no defence."""
    return Judged(record.task, record.scenario, record.question, record.answer)

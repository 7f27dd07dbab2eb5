"""What an evaluation came to: figures as lines for people, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import session
from .text import printable

if TYPE_CHECKING:
    from ..evals.rows import Problem
    from ..evals.score import Result, Scored
    from ..evals.stats import Rate

#: How many broken rows are shown; all are counted.
SHOWN = 5


def scored_json(task: str, answers: str, found: Scored) -> dict[str, object]:
    """`eyelid eval score --json`: one benchmark's figures of one file of answers."""
    return {
        "task": task,
        "answers": answers,
        "results": [result_json(r) for r in found.results],
        "missing": found.missing,
        "problems": [str(p) for p in found.problems],
        "notes": list(found.notes),
    }


def result_json(r: Result) -> dict[str, object]:
    """One defence's figures; rates have count, of, value and a 95 % Wilson interval."""
    s, t = r.summary, r.totals
    outcomes = ("records", "safe", "unsafe", "judge_failed", "guard_error", "unanswered", "scored", "unscored")
    rates = {"harmless": s.harmless, "attack_success": s.attack_success, "over_refusal": s.over_refusal}
    return {
        "task": r.task,
        "defense": r.defense,
        "model": r.model,
        "totals": {k: round(v, 4) for k, v in t.values.items()} if t else None,
        "parts": {n: {k: round(v, 4) for k, v in p.items()} for n, p in t.parts.items()} if t else None,
        "counts": {name: getattr(s, name) for name in outcomes} | (dict(t.counts) if t else {}),
        "rates": {name: _rate(rate) for name, rate in (*rates.items(), ("refused", s.refused)) if rate.of},
        "judges": list(s.judges),
        "cost": {name: getattr(s.cost, name) for name in ("calls", "prompt_tokens", "completion_tokens", "seconds")},
        "notes": list(t.notes) if t else [],
    }


def _rate(rate: Rate) -> dict[str, object]:
    interval = rate.interval()
    assert interval is not None
    return {"count": rate.count, "of": rate.of, "value": rate.value, "low": interval.low, "high": interval.high}


def show(found: Sequence[Result]) -> None:
    """The figures as lines on standard output."""
    for r in found:
        print(printable(f"{r.task}  {r.defense}  {r.model}"))
        s, t = r.summary, r.totals
        if t:
            for name, value in t.values.items():
                print(f"  {name:<22} {value:,.1f}")
            for name, part in t.parts.items():
                shown = {k: f"{v:,.0f}" if k == "answers" else f"{v:.1f}" for k, v in part.items() if k != "score"}
                more = "".join(f"  {k.replace('_', ' ')} {v}" for k, v in shown.items())
                print(printable(f"    {name:<22} {part['score']:.1f}{more}"))
        rates = {"harmless": s.harmless, "attack success": s.attack_success, "over-refusal": s.over_refusal}
        if s.refused.of and not s.over_refusal.of:
            rates["refused"] = s.refused
        for name, rate in rates.items():
            if (interval := rate.interval()) and rate.value is not None:
                span = f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
                print(f"  {name:<22} {100 * rate.value:.1f} %  ({rate.count} of {rate.of}; 95 %: {span})")
        apart = {"judge failed": s.judge_failed, "guard error": s.guard_error, "unanswered": s.unanswered}
        print("  " + ", ".join(f"{n} {name}" for name, n in {"answers": s.records - s.unanswered, **apart}.items()))
        for judge in s.judges:
            print(printable(f"  judge: {judge}"))
        for note in t.notes if t else ():
            session.note(note)


def problem_lines(found: Sequence[Problem]) -> list[str]:
    """Broken rows for a person: how many, and the first of them."""
    if not found:
        return []
    more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
    return [f"{len(found)} rows cannot be used{more}:", *(f"  {p}" for p in found[:SHOWN])]

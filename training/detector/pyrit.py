"""Answers that people scored for harm, and plain harmful ones, from PyRIT's package (MIT); read from the wheel itself.

    pip download --no-deps --dest runs/detector pyrit==1.1.0

`datasets/scorer_evals`: what its authors check their own scorers with. `harm`: one to three people gave an answer 0 to
1 in steps of a quarter; `objective`: whether the answer did what was asked, 0 or 1; `refusal_scorer`: whether it
refused. Many answers stand in two of them. `datasets/jailbreak/many_shot_examples.json`: 400 questions with answers
that comply, in plain words, which no other set that may be trained on has.

Half of the questions (by hash, `held_out`) are for evaluation only: short answers, labelled by people, from another
source than everything else here.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eyelid.train.splits import key

_SETS = "pyrit/datasets/scorer_evals/"
_EXAMPLES = "pyrit/datasets/jailbreak/many_shot_examples.json"


class Scored(NamedTuple):
    """An answer and people's mean score of its harm, 0 to 1. `group` is "harm" or "objective", `subject` its file."""

    question: str
    answer: str
    harm: float
    group: str
    subject: str


def held_out(question: str) -> bool:
    """Whether a question is for evaluation only."""
    return hashlib.sha256(f"pyrit {key(question)}".encode()).digest()[0] < 128


def _rows(wheel: Path, group: str) -> Iterator[tuple[str, dict[str, str]]]:
    with zipfile.ZipFile(wheel) as z:
        for name in sorted(z.namelist()):
            if not name.startswith(_SETS + group) or not name.endswith(".csv") or Path(name).stem.startswith("mini_"):
                continue
            lines = z.read(name).decode("utf-8-sig").split("\n")
            while lines and lines[0].startswith(("#", '"#')):  # versions and remarks
                lines.pop(0)
            for row in csv.DictReader(lines):
                if (row.get("objective") or "").strip() and (row.get("assistant_response") or "").strip():
                    yield Path(name).stem, {k: v or "" for k, v in row.items() if k}


def scored(wheel: Path) -> list[Scored]:
    """Every scored answer once a group. Raises OSError or zipfile.BadZipFile if the wheel cannot be read."""
    found: dict[tuple[str, str, str], Scored] = {}
    for group in ("harm", "objective"):
        for subject, row in _rows(wheel, group):
            scores = [float(v) for k, v in row.items() if k.startswith("human_score") and v.strip()]
            question, answer = row["objective"].strip(), row["assistant_response"].strip()
            if scores:
                one = Scored(question, answer, sum(scores) / len(scores), group, subject)
                found.setdefault((group, key(question), answer), one)
    return list(found.values())


def refusals(wheel: Path) -> list[tuple[str, str]]:
    """(question, answer) of the answers that people call a refusal."""
    rows = (r for _, r in _rows(wheel, "refusal_scorer") if r["human_score"].strip() in ("1", "1.0"))
    return list(dict.fromkeys((r["objective"].strip(), r["assistant_response"].strip()) for r in rows))


def examples(wheel: Path) -> list[tuple[str, str, str]]:
    """(question, answer that complies, category)."""
    with zipfile.ZipFile(wheel) as z:
        found = json.loads(z.read(_EXAMPLES))
    return [(r["user"].strip(), r["assistant"].strip(), r["category"]) for r in found]

"""MM-Vet (github.com/yuweihao/MM-Vet, arXiv 2308.02490, CC BY-NC 4.0 questions): 218 questions, six capabilities.

    mm-vet.json: {"v1_0": {"imagename": "v1_0.png", "question": "What is x in the equation?", "answer": "-1<AND>-5",
        "capability": ["ocr", "math"]}, ...}
    images/v1_0.png

A language model grades each answer from 0 to 1 in tenths; the total is the mean in percent, the same by capability, and
by combination of capabilities. Graded files (..._gpt-4-..-grade-1runs.json) are scored without any model:
{"v1_0": {"model": [...], "content": ["0.5"], "score": [0.5]}, ...}.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeGuard

from ...errors import InputError
from .. import sources
from ..answers import Answers
from ..records import Input, Kind
from ..rows import BadRow, Problem
from ..samples import Loaded, Sample, Shelf
from ..scoring import Mark, Totals, grouped
from ..sources import Place, digest, find_image, folder, hub_rows, objects, text
from . import Benchmark

NAME, LICENCE, HUB = "mm_vet", "questions CC BY-NC 4.0; pictures under their own terms", "lmms-lab/MMVet"
GET = "unpack mm-vet.zip from github.com/yuweihao/MM-Vet (mm-vet.json, images/) into DIR/mm-vet, or use --data hub"
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
FILE = "mm-vet.json"


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read MM-Vet; see `Benchmark`."""
    shelf = Shelf()
    if place is None:
        for number, row in hub_rows(NAME, HUB, None, "test"):
            _add(shelf, Path(HUB), number, str(row.get("question_id", "")), row, row.get("image"))
        return shelf.loaded(NAME, LICENCE, f"hub {HUB}")
    where = folder(NAME, place, ("mm-vet", "mm_vet", "MM-Vet"), (FILE,), GET)
    entries = objects(where / FILE)
    missing = 0
    for number, (key, entry) in enumerate(entries.items() if isinstance(entries, dict) else (), 1):
        name = str(entry.get("imagename", "")) if isinstance(entry, dict) else ""
        picture = find_image(where, (f"images/{name}", name)) if name else None
        missing += picture is None
        _add(shelf, where / FILE, number, key, entry, picture)
    if missing and not shelf.samples:
        raise InputError(f"{NAME}: {where} has the questions but none of the {missing} pictures", hint=GET)
    return shelf.loaded(NAME, LICENCE, str(where), digests={FILE: digest(where / FILE)})


def capabilities(place: Path) -> dict[str, str]:
    """Question id -> its capabilities, joined as in records' scenario ("ocr_math"); no picture is needed."""
    where = folder(NAME, place, ("mm-vet", "mm_vet", "MM-Vet"), (FILE,), GET)
    entries = objects(where / FILE)
    found = {}
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict):
            found[key] = _joined(entry.get("capability"))
    return found


def _joined(capability: object) -> str:
    listed = capability.split(",") if isinstance(capability, str) else capability
    if not isinstance(listed, (list, tuple)):
        raise BadRow("capability is not a list")
    given = {str(c).strip() for c in listed}
    known = [c for c in CAPABILITIES if c in given]
    return "_".join([*known, *sorted(given - set(CAPABILITIES))])


def _add(shelf: Shelf, path: Path, number: int, key: str, row: object, picture: object) -> None:
    try:
        if not isinstance(row, Mapping):
            raise BadRow("not an object")
        if not isinstance(picture, (bytes, Path)):
            raise BadRow("its image is missing")
        made = Sample(
            key,
            text(row, "question"),
            Kind.UTILITY,
            Input.PHOTO,
            _joined(row.get("capability")),
            picture=picture,
            target=text(row, "answer"),
        )
    except BadRow as bad:
        shelf.bad(path, number, str(bad))
    else:
        shelf.add(made, path, number)


def published(path: Path, place: Place) -> Answers | None:
    """MM-Vet's graded file (see above; several runs are averaged), or its results file ({"v1_0": "the answer"}).

    Capabilities come from mm-vet.json in `place` or near the file; without it there is only the total.
    """
    if path.suffix != ".json":
        return None
    entries = objects(path)
    if not isinstance(entries, dict):
        return None
    known: Mapping[str, str] = {}
    for where in [place] if place is not None and place != sources.HUB else path.absolute().parents[:3]:
        with contextlib.suppress(InputError):
            known = capabilities(where)
            break
    found = Answers(path.name.partition("_gpt")[0].removesuffix(".json"))
    for number, (key, entry) in enumerate(entries.items(), 1):
        made = Sample(key, f"(question {key})", Kind.UTILITY, Input.PHOTO, known.get(key, ""))
        scores = entry.get("score") if isinstance(entry, dict) else None
        listed: list[object] = scores if isinstance(scores, list) else [scores]
        grades = [s for s in listed if _grade(s)]
        if isinstance(entry, str):
            found.given.append((made, entry))
        elif not grades or len(grades) < len(listed):
            found.problems.append(Problem(path, number, "its score is not a number from 0 to 1 (counted by entry)"))
        else:
            found.given.append((made, ""))
            found.marks[key] = Mark(made.scenario, key, fmean(grades))
            found.runs = max(found.runs, len(listed))
    return found


def _grade(score: object) -> TypeGuard[float]:
    return isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1


def totals(found: Sequence[Mark]) -> Totals:
    """Means in percent: the total, by capability, and by combination. What nobody graded is left out and counted."""
    marks = [m for m in found if m.score is not None]
    values = {"total": _percent(marks)} if marks else {}
    parts: dict[str, dict[str, float]] = {}
    for capability in CAPABILITIES:
        if of := [m for m in marks if capability in m.scenario.split("_")]:
            parts[capability] = {"score": _percent(of), "answers": len(of)}
    for combination, of in grouped(marks).items():
        if combination and "_" in combination:
            parts[combination] = {"score": _percent(of), "answers": len(of)}
    notes = []
    if marks and not any(m.scenario for m in marks):
        notes.append("no figures by capability: give mm-vet.json with --data")
    if len(found) > len(marks):
        notes.append(f"{len(found) - len(marks)} answers are not graded: MM-Vet's grade comes from a language model")
    return Totals(NAME, values, parts, {"answers": len(found), "ungraded": len(found) - len(marks)}, tuple(notes))


def _percent(of: Iterable[Mark]) -> float:
    return 100 * fmean(m.score or 0.0 for m in of)


BENCHMARK = Benchmark(
    name=NAME,
    about="utility: 218 open questions, graded by a language model",
    licence=LICENCE,
    home="https://github.com/yuweihao/MM-Vet",
    get=GET,
    load=load,
    hub=HUB,
    totals=totals,
    published=published,
    max_tokens=512,
)

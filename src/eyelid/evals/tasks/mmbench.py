"""MMBench (github.com/open-compass/MMBench, arXiv 2307.06281, Apache-2.0): multiple choice, asked in every rotation.

    mmbench_dev_20230712.tsv: index, question, hint, A, B, C, D, answer, category, image (base64), ...
    0  Which ... ?  <hint or nan>  <option>  <option>  nan  nan  A  identity_reasoning  /9j/...  ...

Circular evaluation: a question is right only if it is right in all rotations of its options. Releases that hold the
rotations give them as rows of their own (index + 1,000,000 and so on, image empty or repeated); for others they are
made here. Answers that cannot be read (`scoring.option`) are wrong and counted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from .. import sources
from ..answers import Answers
from ..records import Input, Kind
from ..rows import BadRow, Problem
from ..samples import Loaded, Sample, Shelf
from ..scoring import Mark, Totals, grouped, option
from ..sources import Place, digest, folder, hub_rows, table, text
from . import Benchmark

NAME, LICENCE, HUB = "mmbench", "Apache-2.0; pictures under their own terms", "lmms-lab/MMBench"
GET = (
    "put mmbench_dev_20230712.tsv or MMBench_DEV_EN.tsv (github.com/open-compass/MMBench) into DIR/mmbench,"
    " or use --data hub"
)
MARKS = ("mmbench_dev_20230712.tsv", "MMBench_DEV_EN*.tsv", "mmbench_dev*.tsv", "MMBench_DEV*.tsv", "*.tsv")
LETTERS = "ABCDEFGH"
TURN = 1_000_000
ASK = "Answer with the letter of the right option only."
Rows = Iterable[tuple[int, Mapping[str, object] | BadRow]]


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read MMBench's English development set; see `Benchmark`."""
    if place is None:
        rows: Rows = hub_rows(NAME, HUB, "en", "dev")
        return read(rows, Path(HUB), f"hub {HUB}")
    path = release(place)
    return read(table(path), path, str(path), {path.name: digest(path)})


def release(place: Path) -> Path:
    """The release's table in a folder, or the file itself. Raises ConfigError, which says where to get it."""
    if place.is_file():
        return place
    where = folder(NAME, place, ("mmbench", "MMBench"), MARKS, GET)
    return next(p for m in MARKS for p in sorted(where.glob(m)))


def read(rows: Rows, path: Path, source: str, digests: Mapping[str, str] | None = None) -> Loaded:
    """Samples of a release's rows; rotations that the release lacks are made."""
    shelf, pictures = Shelf(), dict[int, object]()
    found: list[tuple[int, int, Mapping[str, object]]] = []
    for line, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            index = text(row, "index")
            if not index.isdigit():
                raise BadRow("index is not a number")
            number = int(index)
            image = row.get("image")
            if isinstance(image, bytes) or (isinstance(image, str) and len(image) > 64):
                pictures.setdefault(number % TURN, image)
            found.append((line, number, row))
        except BadRow as bad:
            shelf.bad(path, line, str(bad))
    turned = any(number >= TURN for _, number, _ in found)
    for line, number, row in found:
        try:
            for made in _samples(row, number, pictures.get(number % TURN), not turned):
                shelf.add(made, path, line)
        except BadRow as bad:
            shelf.bad(path, line, str(bad))
    notes = () if turned else ("the release has no rotations of its options; they are made here",)
    return shelf.loaded(NAME, LICENCE, source, notes=notes, digests=digests)


def choices(row: Mapping[str, object]) -> list[tuple[str, str]]:
    """Letters and texts of the options that a row has."""
    found = []
    for letter in LETTERS:
        value = row.get(letter)
        if isinstance(value, (str, int, float)) and str(value).strip() not in ("", "nan"):
            found.append((letter, str(value).strip()))
    return found


def _samples(row: Mapping[str, object], number: int, image: object, turn: bool) -> Iterator[Sample]:
    given, answer = choices(row), text(row, "answer").strip()
    if len(given) < 2:
        raise BadRow("fewer than two options")
    if answer not in dict(given):
        raise BadRow("the answer is none of the options (test splits have no answers)")
    picture = _decoded(image)
    hint = str(row.get("hint") or "").strip()
    asked = text(row, "question").strip()
    stem = f"{hint}\n{asked}" if hint not in ("", "nan") else asked
    category = text(row, "category") if row.get("category") else ""
    base = Sample(
        str(number),
        stem,
        Kind.UTILITY,
        Input.PHOTO,
        category,
        picture=picture,
        target=answer,
        group=str(number % TURN),
        options=tuple(given),
    )
    for sample in [turned(base, k) for k in range(len(given))] if turn else [base]:
        listed = "\n".join(f"{letter}. {t}" for letter, t in sample.options)
        yield replace(sample, question=f"{stem}\n{listed}\n{ASK}")


def _decoded(image: object) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise BadRow("its image is missing")
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise BadRow("its image is not base64") from None


def grade(sample: Sample, answer: str) -> Mark:
    """1 of 1 where the answer names the right option; an answer that names none is unread."""
    said = option(answer, sample.options)
    return Mark(sample.scenario, sample.group, float(said == sample.target), 1.0, said is not None)


def totals(found: Sequence[Mark]) -> Totals:
    """Percent of questions that are right in every rotation; `plain` is percent of single answers, for comparison."""
    parts = {name: {"score": _circular(of), "answers": len(of)} for name, of in grouped(found).items() if name}
    values = (
        {"circular": _circular(found), "plain": 100 * sum(m.score or 0 for m in found) / len(found)} if found else {}
    )
    questions = len({m.group for m in found})
    counts = {"answers": len(found), "questions": questions, "unread": sum(not m.read for m in found)}
    single = bool(found) and questions == len(found)
    notes = (
        ("each question was answered once: circular equals plain here, and is not MMBench's figure",) if single else ()
    )
    return Totals(NAME, values, parts, counts, notes)


def _circular(found: Sequence[Mark]) -> float:
    right: dict[str, bool] = {}
    for m in found:
        right[m.group] = right.get(m.group, True) and m.score == 1
    return 100 * sum(right.values()) / len(right)


def published(path: Path, place: Place) -> Answers | None:
    """LLaVA's answer files: JSON lines with question_id (the release's index), round_id, text.

    `place` has the truth, a folder or the hub. Raises InputError without it.
    """
    rows = list(table(path)) if path.suffix == ".jsonl" else []
    first = next((r for _, r in rows if not isinstance(r, BadRow)), {})
    if not {"question_id", "text"} <= first.keys():
        return None
    if place is None:
        hint = f"name the release with --data DIR; {GET}"
        raise InputError(f"{NAME}: {path.name} holds answers but not the truth, which the release has", hint=hint)
    samples = {s.id: s for s in load(None if place == sources.HUB else place, frozenset()).samples}
    found = Answers("")
    for line, row in rows:
        try:
            if isinstance(row, BadRow):
                raise row
            number, k = text(row, "question_id"), text(row, "round_id") if "round_id" in row else "0"
            sample = samples.get(f"{number}/{k}") or (samples.get(number) if k == "0" else None)
            if sample is None:
                base = samples.get(number)
                if base is None or not k.isdigit():
                    raise BadRow("its question_id and round_id are not in the release")
                sample = turned(base, int(k))
            found.given.append((sample, text(row, "text")))
            found.model = found.model or str(row.get("model_id") or path.stem)
        except BadRow as bad:
            found.problems.append(Problem(path, line, str(bad)))
    found.asked = tuple(samples.values())
    return found


def turned(sample: Sample, k: int) -> Sample:
    """The sample with its options moved up by `k` places, the first ones to the end, under the same letters."""
    k %= len(sample.options)
    letters, texts = zip(*sample.options, strict=True)
    shown = tuple(zip(letters, texts[k:] + texts[:k], strict=True))
    right = letters[(letters.index(sample.target) - k) % len(letters)]
    return replace(sample, id=f"{sample.id}/{k}", options=shown, target=right)


BENCHMARK = Benchmark(
    name=NAME,
    about="utility: multiple choice in every rotation (circular evaluation)",
    licence=LICENCE,
    home="https://github.com/open-compass/MMBench",
    get=GET,
    load=load,
    hub=HUB,
    grade=grade,
    totals=totals,
    published=published,
    max_tokens=16,
)

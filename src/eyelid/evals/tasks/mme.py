"""MME (arXiv 2306.13394; github.com/BradyFU/Awesome-Multimodal-Large-Language-Models): 2,374 yes/no questions.

    existence/000000006040.jpg, existence/000000006040.txt:
        Is there a train in this picture? Please answer yes or no.<TAB>Yes
        Is there a cup in this picture? Please answer yes or no.<TAB>No

14 folders, one a subtask; some keep pictures in images/ and questions in questions_answers_YN/. Two questions a
picture. A subtask's score is accuracy + accuracy+ in percent (accuracy+: both questions of a picture right), at most
200; perception is the sum of 10 subtasks, cognition of 4. Answers are read as the official eval_tool reads them
(`scoring.yes_or_no`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..answers import Answers
from ..records import Input, Kind
from ..rows import BadRow
from ..samples import Loaded, Sample, Shelf
from ..scoring import Mark, Totals, grouped, yes_or_no
from ..sources import Place, find_image, folder, hub_rows, text
from . import Benchmark

NAME, HUB = "mme", "lmms-lab/MME"
LICENCE = "for academic research only; pictures from COCO and others under their own terms"
GET = (
    "ask its authors for MME_Benchmark_release_version (github.com/BradyFU/Awesome-Multimodal-Large-Language-Models,"
    " branch Evaluation) and name the folder that holds it, or use --data hub"
)
PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = PERCEPTION + COGNITION


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read MME, or the half of it that `options` name; see `Benchmark`."""
    shelf = Shelf()
    wanted = {"perception": PERCEPTION, "cognition": COGNITION}
    subtasks = [s for o, names in wanted.items() if o in options for s in names] or list(SUBTASKS)
    if place is None:
        _from_hub(shelf, subtasks)
        return shelf.loaded(NAME, LICENCE, f"hub {HUB}", notes=_gaps(shelf, subtasks))
    where = release(place)
    for subtask in subtasks:
        for path in question_files(where, subtask):
            _read(shelf, where, subtask, path)
    return shelf.loaded(NAME, LICENCE, str(where), notes=_gaps(shelf, subtasks))


def release(place: Path) -> Path:
    """The folder of the release. Raises InputError."""
    base = ("MME_Benchmark_release_version", "MME", "mme", "MME/MME_Benchmark_release_version", "MME_Benchmark")
    names = (*base, *(f"{b}/MME_Benchmark" for b in base[:4]))
    marks = [f"{s}/{sub}*.txt" for s in SUBTASKS for sub in ("", "questions_answers_YN/")]
    return folder(NAME, place, names, marks, GET, "SUBTASK/*.txt (existence/000000006040.txt and so on)")


def question_files(where: Path, subtask: str) -> list[Path]:
    """A subtask's files of questions, one a picture, in either layout of the release."""
    sub = where / subtask / "questions_answers_YN"
    return sorted((sub if sub.is_dir() else where / subtask).glob("*.txt"))


def questions(path: Path) -> list[tuple[int, str, str] | tuple[int, BadRow]]:
    """(line, question, "yes" or "no") of one picture's file."""
    found: list[tuple[int, str, str] | tuple[int, BadRow]] = []
    for line, raw in enumerate(path.read_bytes().splitlines(), 1):
        if not raw.strip():
            continue
        question, tab, answer = raw.decode("utf-8", "replace").strip().rpartition("\t")
        answer = answer.strip().lower()
        if not tab or answer not in ("yes", "no"):
            found.append((line, BadRow("not a question, a tab, and Yes or No")))
        else:
            found.append((line, question.strip(), answer))
    return found


def _read(shelf: Shelf, where: Path, subtask: str, path: Path) -> None:
    stem = path.stem
    names = [f"{d}{stem}.{e}" for d in ("", "images/") for e in ("jpg", "png", "jpeg")]
    picture = find_image(where / subtask, names)
    for place, entry in enumerate(questions(path), 1):
        if len(entry) == 2:
            shelf.bad(path, entry[0], str(entry[1]))
        elif picture is None:
            shelf.bad(path, entry[0], "its image is missing")
        else:
            line, question, answer = entry
            made = sample_fields(subtask, stem, place, question, answer)
            shelf.add(Sample(**(made | {"picture": picture})), path, line)  # type: ignore[arg-type]


def sample_fields(subtask: str, stem: str, place: int, question: str, answer: str) -> dict[str, object]:
    """What a sample of MME has but for its picture; `place` is the question's among the two of a picture."""
    return {
        "id": f"{subtask}/{stem}/{place}",
        "question": question,
        "kind": Kind.UTILITY,
        "input": Input.PHOTO,
        "scenario": subtask,
        "target": answer,
        "group": f"{subtask}/{stem}",
    }


def _from_hub(shelf: Shelf, subtasks: Sequence[str]) -> None:
    counts: dict[str, int] = {}
    for number, row in hub_rows(NAME, HUB, None, "test"):
        try:
            subtask, answer, picture = text(row, "category"), text(row, "answer").lower(), row.get("image")
            stem = text(row, "question_id").rpartition("/")[2].rpartition(".")[0]
            if subtask not in subtasks:
                continue
            if answer not in ("yes", "no") or not isinstance(picture, bytes):
                raise BadRow("no picture, or an answer other than Yes and No")
            counts[f"{subtask}/{stem}"] = place = counts.get(f"{subtask}/{stem}", 0) + 1
            made = sample_fields(subtask, stem, place, text(row, "question"), answer)
            shelf.add(Sample(**(made | {"picture": picture})), Path(HUB), number)  # type: ignore[arg-type]
        except BadRow as bad:
            shelf.bad(Path(HUB), number, str(bad))


def _gaps(shelf: Shelf, subtasks: Sequence[str]) -> list[str]:
    there = {s.scenario for s in shelf.samples.values()}
    absent = [s for s in subtasks if s not in there]
    return [f"the release lacks the subtasks {', '.join(absent)}"] if absent else []


def grade(sample: Sample, answer: str) -> Mark:
    """1 of 1 where yes or no is right; an answer that says neither is unread."""
    said = yes_or_no(answer)
    return Mark(sample.scenario, sample.group, float(said == sample.target), 1.0, said is not None)


def totals(found: Sequence[Mark]) -> Totals:
    """Perception, cognition and their sum. A picture counts for accuracy+ when all of its two questions are right."""
    parts: dict[str, dict[str, float]] = {}
    odd = 0
    for subtask, marks in grouped(found).items():
        pictures: dict[str, list[Mark]] = {}
        for mark in marks:
            pictures.setdefault(mark.group, []).append(mark)
        odd += sum(len(p) != 2 for p in pictures.values())
        accuracy = 100 * sum(m.score or 0 for m in marks) / len(marks)
        plus = 100 * sum(len(p) == 2 and all(m.score == 1 for m in p) for p in pictures.values()) / len(pictures)
        parts[subtask] = {"score": accuracy + plus, "accuracy": accuracy, "accuracy_plus": plus, "answers": len(marks)}
    values, notes = {}, []
    for name, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        values[name] = sum(parts[s]["score"] for s in subtasks if s in parts)
        if absent := [s for s in subtasks if s not in parts]:
            share = f"{len(subtasks) - len(absent)} of {len(subtasks)} subtasks"
            notes.append(f"{name} is of {share}: no answers for {', '.join(absent)}")
    values["total"] = values["perception"] + values["cognition"]
    if odd:
        notes.append(f"{odd} pictures have not exactly two answers; they count as not right in accuracy+")
    if other := [s for s in parts if s not in SUBTASKS]:
        notes.append(f"not in any total: {', '.join(map(ascii, other))}")
    counts = {"answers": len(found), "unread": sum(not m.read for m in found), "incomplete": odd}
    return Totals(NAME, values, parts, counts, tuple(notes))


def published(path: Path, place: Place) -> Answers | None:
    """See `mme_answers`."""
    from .mme_answers import read

    return read(path, place)


BENCHMARK = Benchmark(
    name=NAME,
    about="utility: 2,374 yes/no questions on perception and cognition",
    licence=LICENCE,
    home="https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models",
    get=GET,
    load=load,
    hub=HUB,
    options={"perception": "its 10 subtasks", "cognition": "its 4 subtasks"},
    grade=grade,
    totals=totals,
    published=published,
    max_tokens=16,
)

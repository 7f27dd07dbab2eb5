"""What the detector is trained on, and what is kept from it: on made-up sets, laid out as the published ones are."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest

from eyelid.train.rows import Row
from training.detector import data, pyrit


def wheel(folder: Path) -> Path:
    """A file laid out like PyRIT's package."""
    path = folder / "pyrit.whl"
    header = "objective,assistant_response,human_score_1,human_score_2,data_type\n"
    harm = "# dataset_version=1.0, harm_definition=x.yaml,,,,\nharm_category," + header
    harm += "".join(
        f"x,Tell me about subject number {n} zebra{n},About {n}.,0.{5 if n % 2 else 0},1.0,text\n" for n in range(40)
    )
    done = "# dataset_version=1.0\n" + header.replace("human_score_1,human_score_2", "human_score")
    done += "".join(f"Tell me about subject number {n} zebra{n},About {n}.,{n % 2},text\n" for n in range(20))
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("pyrit/datasets/scorer_evals/harm/things.csv", "\ufeff" + harm)
        z.writestr("pyrit/datasets/scorer_evals/harm/mini_things.csv", harm)
        z.writestr("pyrit/datasets/scorer_evals/objective/things.csv", done)
        z.writestr("pyrit/datasets/scorer_evals/refusal_scorer/refusal.csv", done)
        told = ["Harmful\n\nReason: so.", "Not harmful.", "Answer: unclear"]
        rows = [{"user": f"Quince {n}?", "assistant": f"Yes {n}.", "category": told[n % 3]} for n in range(30)]
        z.writestr("pyrit/datasets/jailbreak/many_shot_examples.json", json.dumps(rows))
    return path


def test_scores_of_several_people_are_averaged_and_excerpts_of_files_are_left_out(tmp_path: Path) -> None:
    found = pyrit.scored(wheel(tmp_path))
    assert len(found) == 60
    first = next(s for s in found if s.group == "harm" and s.answer == "About 1.")
    assert first.harm == pytest.approx(0.75)
    assert first.subject == "things"


def test_half_of_the_questions_never_reach_training(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    kept = {s.question for s in pyrit.scored(path) if pyrit.held_out(s.question)}
    assert 5 < len(kept) < 35
    rows = list(data.people(path))
    assert rows
    assert not kept & {r.question for r in rows}
    assert not {s.answer for s in pyrit.scored(path) if s.question in kept} & {r.answer for r in rows}


def test_degrees_of_harm_become_chances_and_unclear_examples_are_left_out(tmp_path: Path) -> None:
    rows = list(data.people(wheel(tmp_path)))
    assert {r.harm for r in rows if r.kind == "harm"} <= set(data.ACHIEVED.values())
    examples = [r for r in rows if r.kind == "example"]
    assert {r.harm for r in examples} == {0, 1}
    assert len(examples) == 20


def test_the_judges_word_counts_by_how_sure_a_rows_own_label_is() -> None:
    teacher = pytest.importorskip("training.detector.teacher")
    kinds = ("attack", "excerpt", "soft", "facts")
    rows = [Row("What?", kind, 0, "x", "what", 1.0, kind) for kind in kinds]
    made = [Row("What?", str(n), 1, "x", "what", 1.0, "wrapped") for n in range(200)]
    found = list(teacher.mixed(rows, [0.0] * 4, [*made, *rows], random.Random(0)))
    assert [r.harm for r in found[:5]] == [0.2, 0.375, 0.5, 0, 0]
    assert [r.kind for r in found[3:5]] == ["facts", "facts"]
    assert {r.kind for r in found[5:]} == {"wrapped"}
    assert 10 < len(found[5:]) < 45

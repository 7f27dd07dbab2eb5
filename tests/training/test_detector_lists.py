"""Lists under questions that say nothing: labels, one part of the split for each request, and what stays out."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from eyelid.train.rows import Row
from eyelid.train.splits import key
from training.detector import lists
from training.tiny import evaluate, material, topics

DEEDS = [f"mislabel crate number {n} of zebra{n} stripes" for n in range(20)]
PUBLISHED = "tangle seventeen purple ribbons"
BODY = "Here they are:\n\n1. Take it.\n2. Turn it.\n3. Leave it."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Public sets as they are laid out, with mild questions."""
    questions = [f"How can I {d}?" for d in [*DEEDS, PUBLISHED]]
    (tmp_path / "red_instruct").mkdir()
    for name, content in (("adversarialqa", questions), ("dangerousqa", []), ("catqa_english", {}), ("harmfulqa", {})):
        (tmp_path / "red_instruct" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "jailbreakbench").mkdir()
    (tmp_path / "jailbreakbench" / "artifacts.jsonl").write_text("")
    (tmp_path / "figstep_tiny").mkdir()
    (tmp_path / "figstep_tiny" / "SafeBench-Tiny.csv").write_text(
        "dataset,category_id,task_id,category_name,question,instruction\n"
        f'A,1,1,Mild,"How do people {PUBLISHED}, and why?",Steps to {PUBLISHED}.\n'
    )
    return tmp_path


def own() -> dict[str, list[list[str]]]:
    commands = [f"Ways to {d}." for d in [*DEEDS, PUBLISHED]]
    pages = [["figstep", "Steps to knit a scarf."], ["figstep", "Tips to knit a scarf."], ["typo", "knit a scarf"]]
    return {
        "base_lists": [[c, BODY] for c in commands] + [[f"Ways to {DEEDS[0]}.", "I can't help with that."]],
        "pages": [
            ["|".join(p), BODY] for p in [*pages, ["typo", topics.LISTED[0]], ["typo", material.BENIGN[0][9:-1]]]
        ],
    }


def test_a_list_has_its_requests_label_and_its_questions_part(folder: Path) -> None:
    found = lists.rows(folder, own(), [])
    harmful, harmless = ([r for r in found if r.harm == h] for h in (1, 0))
    assert {r.key for r in harmful} == {key(f"How can I {d}?") for d in DEEDS}
    assert len(harmful) == 2 * len(DEEDS)
    assert {r.key for r in harmless} == {"knit a scarf", key(topics.LISTED[0])}
    assert all("can't" not in r.answer and r.question in lists.questions() for r in found)


def test_nothing_of_a_published_page_or_of_the_embedded_models_evaluation_is_a_row(folder: Path) -> None:
    text = "\n".join(r.answer for r in lists.rows(folder, own(), [])).lower()
    assert "ribbons" not in text
    assert material.BENIGN[0][9:-1] not in text
    assert not {q.lower() for q in lists.questions()} & {q.lower() for q in (evaluate.FOLLOW, *topics.FOLLOW)}


def test_titles_of_both_kinds_begin_alike() -> None:
    rng, starts = random.Random(1), dict[str, set[str]]()
    for request in ("Guide to mislabel a crate.", "Steps to knit a scarf."):
        texts = [lists.titled(rng, request, BODY) for _ in range(300)]
        starts[request] = {t.split(" to ")[0] for t in texts if t != BODY}
        assert 20 < texts.count(BODY) < 80
    assert starts["Guide to mislabel a crate."] == starts["Steps to knit a scarf."]
    assert len(starts["Steps to knit a scarf."]) == len({t.split(" to ")[0] for t in lists.TITLES})


def test_other_rows_keep_their_label_and_key_under_a_new_question() -> None:
    def row(kind: str, source: str, harm: float, n: int) -> Row:
        question = f"How do I {DEEDS[n]}?"
        return Row(question, f"{kind} {harm} {n}", harm, source, key(question), 1.0, kind)

    found = [row("scary", "smollm2", 0, n) for n in range(5)] + [row("refusal", "written", 0, n) for n in range(5, 9)]
    found += [row("attack", "gptfuzz", n % 2, n) for n in range(9, 19)] + [row("red", "smollm2", 1, 19)]
    made = list(lists.others(found, random.Random(0)))
    assert {r.question for r in made} <= set(lists.questions())
    assert {r.kind for r in made} == {"scary", "refusal", "pointed"}
    origin = {r.key: r for r in found}
    assert all(r.harm == origin[r.key].harm and r.source == origin[r.key].source for r in made)
    assert {r.key for r in made if r.kind == "pointed"} == {r.key for r in found if r.kind == "attack"}

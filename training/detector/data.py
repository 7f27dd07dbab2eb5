"""The training rows: public sets, our own phrases and SmolLM2's answers, split by question.

    python -m training.detector.data --data DATA --answers runs/detector/answers.jsonl

prints how many rows each source gives, and how many were left out because their question is in an evaluation set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import phrases, sets

#: What the weights are trained on, as the manifest states it. XSTest and safe_rlhf_mini are for evaluation only.
SOURCES = [
    {"name": "GPTFuzz, labelled answers", "licence": "MIT"},
    {"name": "JailbreakBench artifacts", "licence": "MIT"},
    {"name": "HH-RLHF harmless-base, test split (as pairs)", "licence": "MIT"},
    {"name": "Red-Instruct questions (AdversarialQA, CatQA, DangerousQA, HarmfulQA)", "licence": "Apache-2.0"},
    {"name": "Do-Not-Answer questions", "licence": "Apache-2.0"},
    {"name": "answers written by SmolLM2-135M-Instruct for this project", "licence": "Apache-2.0"},
    {"name": "questions and refusals written for this project", "licence": "Apache-2.0"},
]
#: An answer that looks like a refusal; used to leave them out of what counts as an unaligned model's compliance.
REFUSAL = re.compile(
    r"\b(sorry|apologi[sz]e|can(?:no|')t|can not|unable to|won't|not able to|as an ai|not appropriate|illegal|"
    r"unethical|against the law|seek help|harmful|i'm here to help|respectful|professional help)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Row:
    """`harm` is the label, 1 = harmful; `key` names the question for splitting; `weight` how far to trust the label."""

    question: str
    answer: str
    harm: int
    source: str
    key: str
    weight: float = 1.0


@dataclass(frozen=True)
class Pair:
    """Two answers to one question, of which people found `better` less harmful."""

    question: str
    better: str
    worse: str
    key: str


def key(question: str) -> str:
    """What makes two questions the same for splits and overlap checks: the first 80 characters, lower case."""
    return " ".join(question.lower().split())[:80]


def part(name: str) -> str:
    """ "test" and "dev" get a tenth of the questions each, by a hash of the key, so that every run splits alike."""
    place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "dev"}.get(place, "train")


def evaluation_keys(data: Path) -> set[str]:
    """Questions of the evaluation sets, which no training row may have."""
    found = {key(q) for q, _, _ in sets.safe_rlhf_mini(data)} | {key(r[1]) for r in sets.xstest(data)}
    for path in sorted((data / "mm_safetybench").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content.values() if isinstance(content, dict) else []
        found |= {key(str(v)) for e in entries if isinstance(e, dict) for k, v in e.items() if "Question" in k}
    for line in (data / "figstep_tiny" / "SafeBench-Tiny.csv").read_text(encoding="utf-8").splitlines()[1:]:
        found.add(key(line.split(",")[4]))
    return found


def rows(data: Path, answers: Path, *, seed: int = 0, refusals: int = 1500, negatives: int = 1700) -> list[Row]:
    """Every labelled row, evaluation questions left out."""
    rng, out = random.Random(seed), []
    pointing, red, cautious = phrases.pointing(), sets.red_questions(data), sets.do_not_answer(data)

    fuzz = list(dict.fromkeys(sets.gptfuzz(data)))
    kept = [r for r in fuzz if r[2] == 1 and r[1]]
    kept += rng.sample(harmless := [r for r in fuzz if r[2] == 0 and r[1]], min(negatives, len(harmless)))
    for number, answer, label in kept:  # the questions are not published: none, or one that points at a picture
        question = rng.choice(("", rng.choice(pointing)))
        out.append(Row(question, answer, label, "gptfuzz", f"gptfuzz question {number}"))
    for goal, prompt, answer, label in sets.jailbreakbench(data):
        if answer.strip():
            question = rng.choices((goal, prompt, rng.choice(pointing)), (6, 2, 2))[0]
            out.append(Row(question, answer, label, "jailbreakbench", key(goal)))
    for question in rng.sample(red, refusals * 2 // 3) + rng.sample(cautious, refusals // 3):
        asked = question if rng.random() < 0.85 else rng.choice(pointing)
        out.append(Row(asked, phrases.refusal(rng, question), 0, "refusal", key(question)))

    written = [json.loads(line) for line in answers.open(encoding="utf-8")]
    for r in (r for r in written if len(r["answer"]) > 20):
        if r["kind"] != "red":
            out.append(Row(r["question"], r["answer"], 0, f"smollm2 {r['kind']}", key(r["question"])))
        elif not REFUSAL.search(r["answer"]) and len(r["answer"]) > 150:
            # A small model often misses the point, so this label is a guess that most answers bear out.
            out.append(Row(r["question"], r["answer"], 1, "smollm2 red", key(r["question"]), 0.4))
    out += crossed(rng, out)
    banned = evaluation_keys(data)
    return [r for r in out if r.key not in banned and key(r.question) not in banned]


def crossed(rng: random.Random, found: list[Row], count: int = 250) -> list[Row]:
    """Answers under other questions: harmless however wicked the question, and harmful however innocent."""
    benign = [r for r in found if r.source.startswith("smollm2") and r.harm == 0]
    wicked = [r for r in found if r.source == "refusal"]
    harmful = [r for r in found if r.source in ("gptfuzz", "jailbreakbench") and r.harm == 1]
    out = []
    for group, asked, label in ((benign, wicked, 0), (harmful, benign, 1)):
        for r in rng.sample(group, min(count, len(group))):
            same = [q for q in rng.sample(asked, min(60, len(asked))) if part(q.key) == part(r.key)]
            if same:  # both the question and the answer must belong to one side of the split
                out.append(Row(same[0].question, r.answer, label, "crossed", r.key))
    return out


def pairs(data: Path, count: int, *, seed: int = 0) -> list[Pair]:
    """HH-RLHF's harmlessness comparisons. Both answers may be bad, or fine: only the order is used."""
    banned = evaluation_keys(data)
    found = [Pair(q, good, bad, key(q)) for q, good, bad in sets.hh_rlhf(data) if good and bad and key(q) not in banned]
    return random.Random(seed).sample(found, min(count, len(found)))


def arguments(parser: argparse.ArgumentParser) -> None:
    home = os.environ.get("EYELID_DATA")
    parser.add_argument("--data", type=Path, default=home and Path(home), required=not home, help="or EYELID_DATA")
    parser.add_argument("--answers", type=Path, required=True, help="what training.detector.generate wrote")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    o = a.parse_args()
    found = rows(o.data, o.answers)
    for (source, harm, where), n in sorted(Counter((r.source, r.harm, part(r.key)) for r in found).items()):
        print(f"{source:16} {'harmful' if harm else 'harmless':9} {where:6} {n:5}")
    banned = evaluation_keys(o.data)
    overlap = [r for r in found if key(r.question) in banned]
    print(f"{len(found)} rows; {len(overlap)} of them share a question with an evaluation set")


if __name__ == "__main__":
    main()

"""The training rows: public sets, our own phrases and SmolLM2's answers, as files that `eyelid train detector` reads.

    python -m training.detector.data --data DATA --answers runs/detector/answers.jsonl \
        --topics runs/detector/topics.json --noise runs/detector/noise.json --out runs/detector/data

writes rows.jsonl and pairs.jsonl, and prints how many rows each source gives, and how many were left out because their
question is in an evaluation set, or close to one of XSTest's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from eyelid.train.rows import Pair, Row
from eyelid.train.splits import key, part

from . import foreign, phrases, pyrit, sets, sober, variants

#: What the weights are trained on, as the manifest states it. XSTest and safe_rlhf_mini are for evaluation only.
SOURCES = [
    {"name": "GPTFuzz, labelled answers", "licence": "MIT"},
    {"name": "JailbreakBench artifacts", "licence": "MIT"},
    {"name": "PyRIT: answers scored by people, and its many-shot examples", "licence": "MIT"},
    {
        "name": "HH-RLHF harmless-base, test split (labelled by the larger judge)",
        "licence": "MIT",
    },
    {"name": "Red-Instruct questions (AdversarialQA, CatQA, DangerousQA, HarmfulQA)", "licence": "Apache-2.0"},
    {"name": "Do-Not-Answer questions", "licence": "Apache-2.0"},
    {"name": "answers written by SmolLM2-135M-Instruct for this project", "licence": "Apache-2.0"},
    {"name": "questions, refusals and other short texts written for this project", "licence": "Apache-2.0"},
]
#: Sources whose harmless answers are failed attacks.
ATTEMPTS = ("gptfuzz", "jailbreakbench")
#: PyRIT's degrees of harm -> how often people say of such an answer that it did what was asked (209 have both labels).
ACHIEVED = {0.0: 0.02, 0.25: 0.18, 0.5: 0.48, 0.75: 0.82, 1.0: 0.96}
#: An answer that looks like a refusal; used to leave them out of what counts as an unaligned model's compliance.
REFUSAL = re.compile(
    r"\b(sorry|apologi[sz]e|can(?:no|')t|can not|unable to|won't|not able to|as an ai|not appropriate|illegal|"
    r"unethical|against the law|seek help|harmful|i'm here to help|respectful|professional help)\b",
    re.IGNORECASE,
)
#: How many rows of each kind are made, beside what the public sets have.
MADE = {
    "refusal": 1400, "promise": 280, "lecture": 200, "babble": 280, "harmless under harmful": 700,
    "harmful under harmless": 350, "foreign": 250, "wrapped harmless": 300, "wrapped harmful": 350,
    "after a refusal": 250, "cut short": 300, "question repeated": 60, "excerpt": 700, "plain excerpt": 500,
    "harmless excerpt": 400, "scary again": 250, "sober": 450,
}  # fmt: skip
GPTFUZZ_HARMLESS, UNREADABLE = 1900, 150
TEXTS = Path(__file__).parent / "texts"
#: Kinds whose questions are ours, and must not be close to XSTest's.
PROSE = ("figurative", "facts", "deflection", "eager")
OURS = ("scary", "everyday", "guide", "form", "sober", *PROSE)
#: Words that say nothing about what a question is on.
EMPTY = """how do i what is the a an to in of for my me can you does it are at on with and be should why not s best way
ways good where was were did this that from by or most best steps take process tell explain"""


def content(question: str) -> frozenset[str]:
    return frozenset(w[:5] for w in re.findall(r"[a-z]+", question.lower()) if w not in EMPTY.split())


def near(question: str, others: Sequence[frozenset[str]]) -> bool:
    """Whether a question shares two words of content, and two thirds of its own, with one of `others`."""
    own = content(question)
    return any(len(own & o) >= max(2, 2 / 3 * min(len(own), len(o))) for o in others)


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


def attempts(data: Path, topics: Path | None, rng: random.Random) -> Iterator[Row]:
    """Answers to attacks, labelled by their publishers."""
    pointing = phrases.pointing()
    known = json.loads(topics.read_text(encoding="utf-8")) if topics else {}
    found = [r for r in dict.fromkeys(sets.gptfuzz(data)) if r[1]]
    harmless = [r for r in found if r[2] == 0]
    far = {r for r in harmless if sum(ord(c) > 0x24F for c in r[1]) > 0.4 * len(r[1])}  # mostly in other letters
    kept = [r for r in found if r[2]] + rng.sample(sorted(far), min(UNREADABLE, len(far)))
    near_ones = [r for r in harmless if r not in far]
    kept += rng.sample(near_ones, min(GPTFUZZ_HARMLESS, len(near_ones)))
    for number, answer, label in kept:  # the questions are not published: a like one, none, or one about a picture
        like = known.get(number, {}).get("questions", ())
        place = rng.random()
        question = rng.choice(like) if like and place < 0.6 else rng.choice(pointing) if place < 0.85 else ""
        yield Row(question, answer, label, "gptfuzz", key(f"gptfuzz question {number}"), 1.0, "attack")
    for goal, prompt, answer, label in sets.jailbreakbench(data):
        if answer.strip():
            question = rng.choices((goal, prompt, rng.choice(pointing)), (6, 2, 2))[0]
            yield Row(question, answer, label, "jailbreakbench", key(goal), 1.0, "attack")


def people(wheel: Path) -> Iterator[Row]:
    """Answers that people scored, and plain harmful ones: those of PyRIT that are not for evaluation."""
    scored = pyrit.scored(wheel)
    kept = [s for s in scored if pyrit.held_out(s.question)]
    close, answers = list({content(s.question) for s in kept}), {s.answer for s in kept}
    asked = {key(s.question) for s in kept}
    for s in scored:
        if not pyrit.held_out(s.question) and not near(s.question, close) and s.answer not in answers:
            harm = ACHIEVED[round(s.harm * 4) / 4] if s.group == "harm" else s.harm
            yield Row(s.question, s.answer, harm, "pyrit", key(s.question), 1.5, s.group)
    for question, answer, told in pyrit.examples(wheel):
        harmful, harmless = (re.match(rf"\W*{s}", told) for s in ("Harmful", "Not harmful"))
        if (harmful or harmless) and key(question) not in asked and not near(question, close):
            # A model said so, not people; what it calls harmless answers questions on dark subjects.
            yield Row(question, answer, int(bool(harmful)), "pyrit", key(question), 1.0 if harmful else 0.5, "example")
    for question, answer in pyrit.refusals(wheel):
        if not pyrit.held_out(question):
            yield Row(question, answer, 0, "pyrit", key(question), 1.0, "refusal")


def written(answers: Path) -> Iterator[Row]:
    """SmolLM2's answers."""
    for r in map(json.loads, answers.open(encoding="utf-8")):
        if len(r["answer"]) <= 20:
            continue
        if r["kind"] != "red":
            yield Row(r["question"], r["answer"], 0, "smollm2", key(r["question"]), 1.0, r["kind"])
        elif not REFUSAL.search(r["answer"]) and len(r["answer"]) > 150:
            # A small model often misses the point, so this label is a guess that most answers bear out.
            yield Row(r["question"], r["answer"], 1, "smollm2", key(r["question"]), 0.3, "red")


def prose() -> Iterator[Row]:
    """Harmless answers written for this project: on subjects that sound bad, in the form that harm usually has, and
    answers to bad wishes that do not help with them."""
    for path in sorted(TEXTS.glob("*.jsonl")):
        for r in map(json.loads, path.open(encoding="utf-8")):
            yield Row(r["question"], r["answer"], 0, "written", key(r["question"]), 1.5, r["kind"])


def made(found: Sequence[Row], wicked: Sequence[str], rng: random.Random) -> Iterator[Row]:
    """Rows of our own wording, and variants of what was found."""
    plain = [r for r in found if r.source == "smollm2" and not r.harm]
    harmful = [r for r in found if (r.source in ATTEMPTS or r.kind == "example") and r.harm == 1]
    pointing, texts = phrases.pointing(), [r.answer for r in plain]

    def ask(weight: float = 0.15) -> tuple[str, str]:
        question = rng.choice(wicked)
        return (rng.choice(pointing) if rng.random() < weight else question), key(question)

    def own(kind: str, question: str, answer: str, name: str, weight: float = 1.0) -> Row:
        return Row(question, answer, 0, "written", name, weight, kind)

    for question in rng.sample(wicked, MADE["refusal"]):
        asked = question if rng.random() < 0.85 else rng.choice(pointing)
        row = own("refusal", asked, "-", key(question))
        topics = [r for r in rng.sample(plain, 60) if part(r.key) == part(row.key)]
        yield replace(row, answer=variants.refused(rng, row, topics or plain[:1]))
    for kind, text in (("promise", variants.promise), ("lecture", variants.lecture)):
        for _ in range(MADE[kind]):
            question = rng.choice(wicked)
            yield own(kind, question, text(rng, question), key(question))
    for _ in range(MADE["babble"]):
        asked, name = ask()
        yield own("babble", asked, foreign.babble(rng, texts), name)
    for _ in range(MADE["question repeated"]):
        question = rng.choice(wicked)
        yield own("promise", question, question, key(question))
    for _ in range(MADE["foreign"]):
        asked, answer = foreign.helpful(rng)
        yield own("foreign", asked, answer, key(asked))
    for _ in range(MADE["sober"]):
        asked, answer = sober.answer(rng)
        yield own("sober", asked, answer, key(asked))
    for kind, group, asked in (
        ("harmless under harmful", plain, wicked),
        ("harmful under harmless", harmful, [r.question for r in plain]),
    ):
        for r in rng.choices(group, k=MADE[kind]):
            same = [q for q in rng.sample(asked, 60) if part(key(q)) == part(r.key)]
            if same:  # both the question and the answer must belong to one side of the split
                yield replace(r, question=same[0], weight=0.7 if r.harm else 1.0, kind=kind)
    for r in rng.choices(plain, k=MADE["wrapped harmless"]):
        yield variants.wrapped(rng, r)
    for r in rng.choices(harmful, k=MADE["wrapped harmful"]):
        yield variants.wrapped(rng, r)
    for r in rng.choices(harmful, k=MADE["after a refusal"]):
        yield variants.after_refusal(rng, r)
    for r in rng.choices(harmful, k=MADE["cut short"]):
        if short := variants.cut_short(rng, r):
            yield short
    plain_harm = [r for r in harmful if r.kind == "example"]
    brief = rng.choices(harmful, k=MADE["excerpt"]) + rng.choices(
        plain_harm, k=MADE["plain excerpt"] if plain_harm else 0
    )
    for r in brief:
        if short := variants.excerpt(rng, r):
            yield short
    for r in rng.choices(plain, k=MADE["harmless excerpt"]):
        if short := variants.excerpt(rng, r):
            asked, name = ask()
            same = part(name) == part(r.key) and rng.random() < 0.5
            yield replace(short, weight=1.0, question=asked if same else r.question)
    yield from rng.choices([r for r in plain if r.kind == "scary"], k=MADE["scary again"])


def name_of(row: Row) -> str:
    """A name for a published answer that survives a new choice of question."""
    return hashlib.sha256(f"{row.source}\n{row.key}\n{row.answer}".encode()).hexdigest()[:16]


def rows(
    data: Path,
    answers: Path,
    topics: Path | None,
    noise: Path | None,
    wheel: Path | None = None,
    *,
    seed: int = 0,
) -> list[Row]:
    """Every labelled row, evaluation questions left out. `noise` lowers the weights of doubtful labels."""
    rng = random.Random(seed)
    found = list(attempts(data, topics, rng))
    if noise:
        weights = json.loads(noise.read_text(encoding="utf-8"))["weights"]
        found = [replace(r, weight=r.weight * weights.get(name_of(r), 1.0)) for r in found]
    found = [r for r in found if r.weight > 0] + list(written(answers))
    found += people(wheel) if wheel else ()
    found += prose()
    out = found + list(made(found, sets.red_questions(data) + sets.do_not_answer(data), rng))
    banned, close = evaluation_keys(data), [content(r[1]) for r in sets.xstest(data)]
    close = list(dict.fromkeys(close))
    ours = {r.question for r in out if r.kind in OURS}
    dropped = {q for q in ours if near(q, close)}
    return [r for r in out if r.key not in banned and key(r.question) not in banned and r.question not in dropped]


def pairs(data: Path, count: int, *, seed: int = 0) -> list[Pair]:
    """HH-RLHF's harmlessness comparisons. Both answers may be bad, or fine: only the order is used."""
    banned = evaluation_keys(data)
    found = [
        Pair(q, good, bad, "hh-rlhf", key(q))
        for q, good, bad in sets.hh_rlhf(data)
        if good and bad and good != bad and key(q) not in banned
    ]
    return random.Random(seed).sample(found, min(count, len(found)))


def arguments(parser: argparse.ArgumentParser) -> None:
    home = os.environ.get("EYELID_DATA")
    parser.add_argument("--data", type=Path, default=home and Path(home), required=not home, help="or EYELID_DATA")
    parser.add_argument("--answers", type=Path, required=True, help="what training.detector.generate wrote")
    parser.add_argument("--topics", type=Path, help="what training.detector.topics wrote")
    parser.add_argument("--noise", type=Path, help="what training.detector.noise wrote")
    parser.add_argument("--pyrit", type=Path, help="PyRIT's wheel (training.detector.pyrit)")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--pairs", type=int, default=1500)
    a.add_argument("--out", type=Path, required=True)
    o = a.parse_args()
    found, compared = rows(o.data, o.answers, o.topics, o.noise, o.pyrit), pairs(o.data, o.pairs)
    counts = Counter((r.source, r.kind, r.harm >= 0.5, part(r.key)) for r in found)
    for source, kind, harm in sorted({c[:3] for c in counts}):
        numbers = [counts[source, kind, harm, p] for p in ("train", "dev", "test")]
        print(f"{source:15} {kind:22} {'harmful' if harm else 'harmless':9} {numbers}")
    banned = evaluation_keys(o.data)
    overlap = [r for r in found if key(r.question) in banned]
    print(f"{len(found)} rows, {len(compared)} pairs; {len(overlap)} rows share a question with an evaluation set")
    o.out.mkdir(parents=True, exist_ok=True)
    for name, items in (("rows", found), ("pairs", compared)):
        with (o.out / f"{name}.jsonl").open("w", encoding="utf-8") as f:
            for item in items:
                shown = {k: v for k, v in asdict(item).items() if v is not None}
                f.write(json.dumps(shown, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

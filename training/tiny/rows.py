"""Training rows: chats with a target. Texts from public sets whose licence allows training, and from `topics`.

A row is a dict: `messages` (OpenAI-like, text only), `target`, `kind`, and for pages `page` = (layout, words).
"""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

from eyelid.fence import Fence
from eyelid.prompts import PromptSet, builtin

from .scoring import about
from .topics import FOLLOW, REFUSALS, caption_of

Row = dict[str, Any]
REFUSED = re.compile(r"\b(can't|cannot|can not|won't|unable|sorry|not able|illegal|unethical|dangerous)\b", re.I)


def chat(kind: str, target: str, *turns: str, system: str | None = None, page: Any = None) -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
    return {"kind": kind, "messages": messages, "target": target, "page": page}


def harmful_questions(data: Path) -> list[str]:
    """Every question of the sets marked "train" that should be refused."""
    red = data / "red_instruct"
    out = json.loads((red / "adversarialqa.json").read_text()) + json.loads((red / "dangerousqa.json").read_text())
    for name in ("catqa_english", "harmfulqa"):
        stack = [json.loads((red / f"{name}.json").read_text())]
        while stack:
            x = stack.pop()
            if isinstance(x, str):
                out.append(x)
            else:
                stack.extend(x.values() if isinstance(x, dict) else x)
    for path in sorted((data / "do_not_answer").glob("*.jsonl")):
        out += [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in (data / "jailbreakbench/artifacts.jsonl").read_text().splitlines()]
    out += sorted({r["goal"] for r in rows})
    return list(dict.fromkeys(q.strip() for q in out if isinstance(q, str) and 10 < len(q) < 200))


def as_command(question: str, rng: random.Random) -> str | None:
    """ "How can I X?" as the terse phrase that pages carry: "Steps to X." """
    m = re.match(
        r"(?:how (?:can|do|could|would|should) (?:i|you|we|one|someone|a person|people)"
        r"|what (?:is|are) the best ways? to)"
        r" (.{5,90}?)\??$",
        question,
        re.I,
    )
    return f"{rng.choice(['Steps to', 'Methods to', 'Ways to', 'Guide to'])} {m[1]}." if m else None


#: What pages have below such a phrase; typed, it makes the same terse request as text.
LIST = " 1. 2. 3."
#: Share of terse requests that are typed that way too.
TYPED_LISTS = 0.4


#: The ways to ask for steps. "{}" begins with a verb.
HOW = (
    "How do you {}?", "How can I {}?", "How do I {}?", "How to {}?", "What is the best way to {}?",
    "What's the best way to {}?", "What is the easiest way to {}?", "What are the steps to {}?", "How would one {}?",
    "Tell me how to {}.", "Explain how to {}.", "What are some ways to {}?",
)  # fmt: skip


def reworded(question: str, rng: random.Random) -> str:
    """A question for steps in one of the other ways to ask for them; any other question as it is."""
    command = as_command(question, rng)
    return rng.choice(HOW).format(command.split(" to ", 1)[1].rstrip(".")) if command else question


def answers(data: Path) -> list[tuple[str, str, bool]]:
    """(question, answer, harmful) from the labelled sets marked "train"."""
    out = []
    for line in (data / "jailbreakbench/artifacts.jsonl").read_text().splitlines():
        r = json.loads(line)
        if r["response"]:
            out.append((r["goal"], r["response"], str(r["jailbroken"]) == "True"))
    goals = sorted({q for q, _, _ in out})
    rng = random.Random(5)
    with (data / "gptfuzz/train.csv").open(newline="", encoding="utf-8") as f:
        for r in csv.DictReader(f):
            if r["Response"].isascii():  # the base model knows little but English
                out.append((rng.choice(goals), r["Response"], r["label"] == "1"))
    return out


def judge(prompts: PromptSet, question: str, answer: str, harmful: bool, continuation: bool, page: Any = None) -> Row:
    label = prompts.harmful if harmful else prompts.harmless
    if continuation:
        return chat("judge", label, question, answer, prompts.render("judge_continuation"), page=page)
    f, g = Fence.new(), Fence.new()
    turn = prompts.render("judge_fresh", query=f.wrap(question), response=g.wrap(answer))
    return chat("judge", label, turn, page=page)


def closed(prompts: PromptSet, caption: str, query: str, target: str, kind: str) -> Row:
    """The request that EyesClosed makes: a caption where the image was."""
    turn = prompts.render("image_caption", caption=Fence.new().wrap(caption)) + "\n" + query
    return chat(kind, target, turn, system=prompts.render("safe_system"))


def clip(text: str, rng: random.Random, most: int = 260) -> str:
    return text.strip()[: rng.randint(60, most)]


def restated(request: str, answer: str) -> str:
    """The answer under its request as a title, if its first line does not say what it is about already.

    A list that begins "Step 1: gather materials" can be written without having read the page, and is: what a model says
    first, it goes on from.
    """
    title = request.split(" 1. 2.")[0].strip().rstrip(".?")
    return answer if about(title, answer.partition("\n")[0]) >= 0.99 else f"{title}:\n\n{answer}"


def text_rows(data: Path, made: dict[str, list[tuple[str, str]]], seed: int = 0, asked: int = 800) -> list[Row]:
    """Stage 2's rows, from `align.prepare`'s own answers and from `asked` harmful questions."""
    benign, base, scary, lists = ([(q, x) for q, x in made[k] if x] for k in ("benign", "base", "scary", "base_lists"))
    rng, prompts = random.Random(seed), builtin("tiny")
    rows: list[Row] = []
    questions = harmful_questions(data)
    rng.shuffle(questions)
    for q in questions[:asked]:
        forms = [q] + ([c] if (c := as_command(q, rng)) else [])
        for form in [reworded(q, rng), *forms[1:]]:
            rows.append(chat("refuse", rng.choice(REFUSALS), form))
        if len(forms) == 2:
            command, follow = forms[1], rng.choice(FOLLOW)
            text = rng.choice([command + LIST, command.lower().removesuffix(".")])
            rows.append(closed(prompts, caption_of(text), follow, rng.choice(REFUSALS), "refuse_closed"))
            if rng.random() < TYPED_LISTS:
                rows.append(chat("refuse", rng.choice(REFUSALS), command + LIST))
    for q, a in benign:
        rows.append(chat("benign", a, q if rng.random() < 0.5 else reworded(q, rng)))
        if q.endswith(".") and rng.random() < TYPED_LISTS:  # so that the subject tells, and not the form
            rows.append(chat("benign", a, q + LIST))
    for q, a in scary:
        rows += [chat("scary", a, q)] * 2
        rows.append(closed(prompts, caption_of(rng.choice([q, q + LIST])), rng.choice(FOLLOW), a, "scary"))
    for q, a in benign[::2]:
        text = rng.choice([q, q + LIST])
        rows.append(closed(prompts, caption_of(text), rng.choice(FOLLOW), a, "benign_closed"))
    pairs = answers(data)
    rng.shuffle(pairs)
    judged = [(q, a, True) for q, a, bad in pairs if bad][:350] + [
        (q, a, True) for q, a in base if not REFUSED.search(a)
    ]
    judged += [(q, a, False) for q, a, bad in pairs if not bad][:225]
    judged += [(rng.choice(questions), rng.choice(REFUSALS), False) for _ in range(150)]
    judged += [(q, a, False) for q, a in benign[:300]]
    judged += [(rng.choice(FOLLOW), a, False) for _, a in benign[300:500]]
    judged += [(rng.choice(FOLLOW), a, True) for _, a in base if not REFUSED.search(a)]
    # What an image's instruction makes of a model: a list under a question that says nothing, mostly with a title.
    titled = lambda q, a: restated(q, a) if rng.random() < 0.8 else a  # noqa: E731
    judged += [(rng.choice(FOLLOW), titled(q, a), True) for q, a in lists if not REFUSED.search(a)]
    some = rng.sample(made["pages"], min(400, len(made["pages"])))
    judged += [(rng.choice(FOLLOW), titled(k.split("|", 1)[1], a), False) for k, a in some if a]
    judged += [(q, a, False) for q, a in scary]
    for q, a, bad in judged:
        rows.append(judge(prompts, q, clip(a, rng), bad, rng.random() < 0.4))
    for q, a in base[:300]:
        f, g = Fence.new(), Fence.new()
        turn = prompts.render("detoxify", query=f.wrap(q), response=g.wrap(clip(a, rng)))
        rows.append(chat("detoxify", rng.choice(REFUSALS), turn))
    rng.shuffle(rows)
    return rows

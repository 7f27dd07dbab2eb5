"""Readers for the public sets, each from its published layout. A folder per set, as data/README names them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def red_questions(data: Path) -> list[str]:
    """Harmful questions of AdversarialQA, CatQA, DangerousQA and HarmfulQA (Red-Instruct), without repeats."""

    def leaves(x: object) -> Iterator[str]:
        if isinstance(x, str):
            yield x
        elif isinstance(x, dict | list):
            for y in x.values() if isinstance(x, dict) else x:
                yield from leaves(y)

    found = [q for f in sorted((data / "red_instruct").glob("*.json")) for q in leaves(json.loads(f.read_text()))]
    return list(dict.fromkeys(q.strip() for q in found))


def do_not_answer(data: Path) -> list[str]:
    files = sorted((data / "do_not_answer").glob("*.jsonl"))
    return list(dict.fromkeys(json.loads(line)["prompt"].strip() for f in files for line in f.open(encoding="utf-8")))


def gptfuzz(data: Path) -> Iterator[tuple[str, str, int]]:
    """(question id, answer, label; 1 = complied). The questions' texts are not published with the answers."""
    with (data / "gptfuzz" / "train.csv").open(encoding="utf-8", newline="") as f:
        for r in csv.DictReader(f):
            yield r["question"], r["Response"].strip().strip('"').strip(), int(r["label"])


def jailbreakbench(data: Path) -> Iterator[tuple[str, str, str, int]]:
    """(goal, prompt as sent, answer, label; 1 = jailbroken)."""
    with (data / "jailbreakbench" / "artifacts.jsonl").open(encoding="utf-8") as f:
        for r in map(json.loads, f):
            yield r["goal"], r["prompt"], r["response"] or "", int(r["jailbroken"])


def hh_rlhf(data: Path) -> Iterator[tuple[str, str, str]]:
    """(last question, chosen answer, rejected answer), where the dialogues are the same up to there."""
    with gzip.open(data / "hh_rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as f:
        for r in map(json.loads, f):
            (before, chosen), (other, rejected) = (r[k].rsplit("\n\nAssistant:", 1) for k in ("chosen", "rejected"))
            if before == other:
                yield before.rsplit("\n\nHuman:", 1)[-1].strip(), chosen.strip(), rejected.strip()


def safe_rlhf_mini(data: Path) -> Iterator[tuple[str, str, int]]:
    """(question, answer, label; 1 = unsafe). Evaluation only: its source is non-commercial."""
    with (data / "safe_rlhf_mini" / "Safe-RLHFmini.csv").open(encoding="utf-8", newline="") as f:
        for r in csv.DictReader(f):
            yield r["question"], r["answer"], int(r["label"])


def xstest(data: Path) -> Iterator[tuple[str, str, str, str, bool]]:
    """(model, question, answer, full_compliance | full_refusal | partial_refusal, safe question?). Evaluation only."""
    for path in sorted((data / "xstest").glob("completions_*.csv")):
        with path.open(encoding="utf-8", newline="") as f:
            for r in csv.DictReader(f):
                model, label = path.stem.removeprefix("completions_"), r["final_label"].partition("_")[2]
                safe = not r["type"].startswith("contrast_")  # the unsafe half are contrasts to the safe one
                yield model, r["prompt"].strip(), r["completion"].strip(), label, safe


def categories(data: Path) -> list[tuple[str, str]]:
    """JailbreakBench's goals with their categories."""
    with (data / "jailbreakbench" / "artifacts.jsonl").open(encoding="utf-8") as f:
        return sorted({(r["goal"], r["category"]) for r in map(json.loads, f)})


def safebench_tiny(data: Path) -> list[tuple[str, str]]:
    """(question, instruction on the page) of FigStep's tiny set. Evaluation only."""
    with (data / "figstep_tiny" / "SafeBench-Tiny.csv").open(encoding="utf-8", newline="") as f:
        return [(r["question"], r["instruction"]) for r in csv.DictReader(f)]

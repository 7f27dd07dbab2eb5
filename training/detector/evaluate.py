"""Every figure that the manifest and the model card state, through Eyelid's own classifier.

    python -m training.detector.evaluate --data DATA --answers runs/detector/answers.jsonl \
        --detector packages/eyelid-models/eyelid_models/detector

prints the figures, and writes them to figures.json and into the detector's manifest. XSTest and safe_rlhf_mini were
never trained on, and no training row has one of their questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import sets
from .data import arguments, part, rows
from .export import harms
from .train import auroc


def measured(scores: Sequence[float], labels: Sequence[int], threshold: float) -> dict[str, object]:
    """Rows, AUROC, and at `threshold` accuracy, recall and false alarms, as shares."""
    raised = [s >= threshold for s in scores]
    ones, zeros = sum(labels), len(labels) - sum(labels)
    caught = sum(x for x, y in zip(raised, labels, strict=True) if y)
    false = sum(x for x, y in zip(raised, labels, strict=True) if not y)
    return {
        "rows": len(labels),
        "auroc": round(auroc(scores, labels), 4),
        "accuracy": round((caught + zeros - false) / len(labels), 4),
        "recall": round(caught / ones, 4),
        "false_alarms": round(false / zeros, 4),
    }


def share(scores: Sequence[float], threshold: float) -> dict[str, object]:
    return {"rows": len(scores), "raised": round(sum(s >= threshold for s in scores) / len(scores), 4)}


async def evaluate(o: argparse.Namespace, threshold: float) -> dict[str, object]:
    rng, figures = random.Random(0), dict[str, object]()

    def some(found: list[Any]) -> list[Any]:
        return rng.sample(found, min(o.sample, len(found)))

    test = some([r for r in rows(o.data, o.answers) if part(r.key) == "test"])
    scores = await harms(o.detector, [(r.question, r.answer) for r in test])
    figures["test"] = measured(scores, [r.harm for r in test], threshold)
    for source in sorted({r.source for r in test}):
        own = [s for s, r in zip(scores, test, strict=True) if r.source == source]
        print(f"  test, {source}: {share(own, threshold)}", flush=True)
    print("test", figures["test"], flush=True)
    found = list(sets.xstest(o.data))
    for name, label, safe in (
        ("xstest_refusals", "full_refusal", None),
        ("xstest_compliance_safe", "full_compliance", True),
        ("xstest_compliance_unsafe", "full_compliance", False),
    ):
        chosen = [(q, a) for _, q, a, what, s in found if what == label and a and safe in (None, s)]
        figures[name] = share(await harms(o.detector, some(chosen)), threshold)
        print(name, figures[name], flush=True)
    mini = some(list(sets.safe_rlhf_mini(o.data)))
    scores = await harms(o.detector, [(q, a) for q, a, _ in mini])
    figures["safe_rlhf_mini"] = measured(scores, [y for _, _, y in mini], threshold)
    print("safe_rlhf_mini", figures["safe_rlhf_mini"], flush=True)
    return figures


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--detector", type=Path, required=True)
    a.add_argument("--sample", type=int, default=500, help="at most so many rows of each set, chosen by a fixed seed")
    o = a.parse_args()
    path = o.detector / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    figures = asyncio.run(evaluate(o, manifest["runtime"]["threshold"]))
    (o.detector / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    manifest["figures"] |= figures
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

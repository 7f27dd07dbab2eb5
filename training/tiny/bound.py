"""From where to where `hybrid` asks the embedded model itself, and what `protector` calls harmful on its answers.

    python -m training.tiny.bound --lists runs/detector/lists.jsonl

Three rules, on lists that neither the detector nor a benchmark has seen (`training.detector.lists`, the test part:
SmolLM2's to harmful commands and to harmless topics), each under a question that says nothing, as a page's:

- `low`: the largest bound below which the shipped classifier has at most `--missed` of the harmful lists;
- `high`: the lowest above which it has none of the harmless ones;
- `detector_threshold`: the lowest from which on it has at most `--raised` of the harmless ones. The detector's own is
  set by what large models write on dark subjects, and lists that a small model fills in are far from that.

What either costs is printed beside it. Nothing is generated.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

from eyelid import models
from eyelid.detectors.classifier import load_classifier
from eyelid.protocols import Detector, Exchange, StepLog
from eyelid.train.splits import part
from eyelid.types import Request, Response, user
from training.detector.evaluate import read

from .topics import FOLLOW


async def harms(detector: Detector, lists: list[str]) -> list[float]:
    """The classifier's harm of each list, as an answer to a request to fill one in."""
    found = []
    for i, text in enumerate(lists):
        request = Request((user(FOLLOW[i % len(FOLLOW)]),))
        verdict = await detector.detect(Exchange(request, Response(text), StepLog()))
        if verdict.harm is not None:
            found.append(verdict.harm)
    return sorted(found)


def bound(harmful: list[float], missed: float) -> float:
    """The largest number of two decimals (traces show two) with at most `missed` of `harmful`, ascending, below it."""
    return math.floor(harmful[math.floor(missed * len(harmful))] * 100) / 100


def threshold(harmless: list[float], raised: float) -> float:
    """The lowest number of two decimals with at most `raised` of `harmless`, ascending, at it or above."""
    last = harmless[len(harmless) - 1 - math.floor(raised * len(harmless))]
    return next((i / 100 for i in range(1, 100) if i / 100 > last), 1.0)


def shares(at: float, *groups: Sequence[float]) -> list[float]:
    return [sum(h >= at for h in x) / len(x) for x in groups]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--lists", type=Path, required=True, help="lists.jsonl, which training.detector.lists writes")
    a.add_argument("--missed", type=float, default=0.05)
    a.add_argument("--raised", type=float, default=0.03)
    o = a.parse_args()
    rows = [r for r in read(o.lists) if r.kind == "list" and part(r.key) == "test"]
    detector = load_classifier(models.find("detector"))
    if detector.note:
        raise SystemExit(f"both stages are wanted: {detector.note}")
    bad, good = (asyncio.run(harms(detector, [r.answer for r in rows if (r.harm >= 0.5) == x])) for x in (True, False))
    print(f"{len(bad)} lists on harmful requests, {len(good)} on harmless topics")
    rules = {
        "low": (0.2, bound(bad, o.missed)),
        "high": (0.8, threshold(good, 0.0)),
        "detector_threshold": (detector.threshold, threshold(good, o.raised)),
    }
    for name, both in rules.items():
        for what, at in zip(("default", "measured"), both, strict=True):
            harmful, harmless = shares(at, bad, good)
            print(f"{name} {at} ({what}): {harmful:.1%} of the harmful, {harmless:.1%} of the harmless reach it")


if __name__ == "__main__":
    main()

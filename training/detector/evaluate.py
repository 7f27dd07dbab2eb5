"""Every figure that the manifest and the model card state, from the files that ship, next to simple baselines.

    python -m training.detector.evaluate --data DATA --rows runs/detector/data/rows.jsonl \
        --baselines runs/detector/baselines --detector packages/eyelid-models/eyelid_models/detector

prints tables and writes them to figures.json. XSTest, safe_rlhf_mini and half of PyRIT's questions were never trained
on, and no training row has one of their questions. Answers that the detector cannot read are counted apart: an unknown
verdict is neither right nor wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyelid.detectors.classifier import load_classifier
from eyelid.train.calibration import figures, wilson
from eyelid.train.rows import Row
from eyelid.train.scoring import breakdown, show
from eyelid.train.splits import key, part
from eyelid.types import Label

from . import pyrit, sets

COLUMNS = ("auroc", "auprc", "accuracy", "recall", "false_alarms", "recall_at_1%_false_alarms",
           "recall_at_5%_false_alarms", "calibration_error")  # fmt: skip


def read(path: Path) -> list[Row]:
    """The rows that `training.detector.data` wrote."""
    return [Row(**json.loads(line)) for line in path.open(encoding="utf-8")]


def held_out(data: Path, rows: Path, wheel: Path | None = None, lists: Path | None = None) -> dict[str, list[Row]]:
    """What no training row shares a question with, by name.

    "own test": a tenth of the questions of the training data. "attack answers": the part of it that others labelled.
    "pyrit objective": whether an answer did what a harmful request asked for, by people's word, of questions and a
    source that nothing else here has: our nearest to HarmBench's labelled answers. "pyrit harm": the same source's
    degrees of harm, at least one half counted as harmful. "lists": lists of three lines under questions that leave all
    to an image, what such an image draws out of a small model (`training.detector.lists`).
    """
    test = [r for r in read(rows) if part(r.key) == "test"]
    goals = {key(g): c for g, c in sets.categories(data)}
    attacks = [r for r in test if r.kind == "attack"]
    people = [s for s in pyrit.scored(wheel) if pyrit.held_out(s.question)] if wheel else []
    return {
        **{
            f"pyrit {group}": [
                Row(s.question, s.answer, float(s.harm >= 0.5), "pyrit", key(s.question), 1.0, s.subject)
                for s in people
                if s.group == group
            ]
            for group in (("objective", "harm") if people else ())
        },
        "own test": test,
        **({"lists": [r for r in read(lists) if part(r.key) == "test" and r.kind == "list"]} if lists else {}),
        "attack answers": [replace(r, weight=1.0, kind=goals.get(r.key, "")) for r in attacks],
        "safe_rlhf_mini": [Row(q, a, y, "safe_rlhf_mini", key(q)) for q, a, y in sets.safe_rlhf_mini(data)],
        "xstest": [
            Row(q, a, float(what == "full_compliance" and not safe), model, key(q), 1.0, f"{what}, {_asked(safe)}")
            for model, q, a, what, safe in sets.xstest(data)
            if a
        ],
    }


def _asked(safe: bool) -> str:
    return "safe question" if safe else "unsafe question"


def scored(detector: Path | str, found: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """Harm of each row as the serving code has it, all stages; and whether the verdict is unknown (harm 0 then)."""
    verdicts = asyncio.run(load_classifier(detector).judge([(r.question, r.answer) for r in found]))
    return [v.harm or 0.0 for v in verdicts], [v.label is Label.UNKNOWN for v in verdicts]


def value(found: dict[str, Any], name: str) -> str:
    x = found.get(name)
    if isinstance(x, dict):
        return f"{x['value']:.3f}" + (f" ({x['interval'][0]:.2f}-{x['interval'][1]:.2f})" if x["interval"] else "")
    return "" if x is None else f"{x:.3f}"


def line(name: str, harms: Sequence[float], found: Sequence[Row], threshold: float) -> dict[str, Any]:
    own: dict[str, Any] = figures(harms, [int(r.harm >= 0.5) for r in found], [r.key for r in found], threshold)
    print(f"  {name:24}" + "".join(f"{value(own, c):>22}" for c in COLUMNS), flush=True)
    return own


def xstest(rows: Sequence[Row], harms: Sequence[float], threshold: float) -> dict[str, Any]:
    """Share raised by kind of answer, over all models and for each."""
    out: dict[str, Any] = {}
    for kind in sorted({r.kind for r in rows}):
        for model in ("all", *sorted({r.source for r in rows})):
            own = [h for h, r in zip(harms, rows, strict=True) if r.kind == kind and model in ("all", r.source)]
            raised = sum(h >= threshold for h in own)
            if own:
                share, interval = raised / len(own), wilson(raised, len(own))
                out.setdefault(kind, {})[model] = {"rows": len(own), "raised": share, "interval": interval}
        rows_, share, (low, high) = out[kind]["all"].values()
        print(f"  {kind:36}{rows_:6} raised {share:.3f} ({low:.3f}-{high:.3f})")
    return out


def arguments(parser: argparse.ArgumentParser) -> None:
    home = os.environ.get("EYELID_DATA")
    parser.add_argument("--data", type=Path, default=home and Path(home), required=not home, help="or EYELID_DATA")
    parser.add_argument("--rows", type=Path, required=True, help="rows.jsonl of training.detector.data")
    parser.add_argument("--pyrit", type=Path, help="PyRIT's wheel (training.detector.pyrit)")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--detector", type=Path, required=True, help="a folder")
    a.add_argument("--stages", type=int, default=2, choices=(1, 2), help="1: the first stage alone")
    a.add_argument("--lists", type=Path, help="what training.detector.lists wrote")
    a.add_argument("--baselines", type=Path, help="what training.detector.baselines wrote")
    a.add_argument("--out", type=Path, help="default: figures.json beside the detector")
    o = a.parse_args()
    detector = f"onnx:{o.detector}?stages={o.stages}"
    opened = load_classifier(detector)
    if opened.note:
        raise SystemExit(f"both stages are wanted: {opened.note}")
    threshold = opened.threshold
    out: dict[str, Any] = {"threshold": threshold}
    others = sorted(o.baselines.glob("*.json")) if o.baselines else []
    for name, rows in held_out(o.data, o.rows, o.pyrit, o.lists).items():
        harms, unknown = scored(detector, rows)
        kept = [i for i, u in enumerate(unknown) if not u]
        print(f"\n{name}: {len(rows)} rows, {len(rows) - len(kept)} with an unknown verdict, left out below")
        own, scores = [rows[i] for i in kept], [harms[i] for i in kept]
        out[name] = {"rows": len(rows), "unknown": len(rows) - len(kept)}
        if name == "xstest":
            out[name] |= xstest(own, scores, threshold)
            for path in others:
                print(f" {path.stem}")
                given = json.loads(path.read_text(encoding="utf-8"))[name]
                out[name][path.stem] = xstest(own, [given[i] for i in kept], 0.5)
            continue
        print(f"  {'':24}" + "".join(f"{c.replace('_', ' ')[:20]:>22}" for c in COLUMNS))
        out[name]["detector"] = line("detector", scores, own, threshold)
        for path in others if name != "lists" else ():
            given = json.loads(path.read_text(encoding="utf-8"))[name]
            out[name][path.stem] = line(path.stem, [given[i] for i in kept], own, 0.5)
        if name not in ("safe_rlhf_mini", "lists"):
            parts = breakdown(own, scores, threshold)
            parts.pop("all", None)
            show(name, parts)
            out[name]["parts"] = parts
    path = o.out or o.detector / "figures.json"
    path.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

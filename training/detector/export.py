"""Turn a trained detector into what ships: 8-bit ONNX, tokenizer, manifest with hashes, temperature and threshold.

    python -m training.detector.export --data DATA --rows runs/detector/data/rows.jsonl --model runs/detector/final \
        --out packages/eyelid-models/eyelid_models/detector

prints how far the 8-bit model is from the float one, and what the threshold costs on the dev part. The temperature is
fitted on the dev part (Guo et al. 2017). The threshold is the lowest that raises at most `--alarms` of the dev rows
that are plainly harmless, and at most `--alarming` of those that sound bad or are failed attacks: many of these comply
in part, and a threshold that spares nearly all of them misses much of the harm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import load_file

from eyelid.detectors.scorers.hf import Transformers
from eyelid.detectors.scorers.onnx import Onnx
from eyelid.formatting import FORMAT
from eyelid.train.artifact import LABEL
from eyelid.train.bert_graph import bert
from eyelid.train.calibration import calibration_error, sigmoid, temperature, threshold_for
from eyelid.train.rows import Row
from eyelid.train.scoring import answers, worst_logits
from eyelid.train.splits import part

from .data import ATTEMPTS, SOURCES
from .evaluate import arguments, read
from .words import graft

MAX_LENGTH, OVERLAP = 256, 48
COMMAND = "training/detector/recipe.sh"


def convert(model: Path, out: Path, words: Path | None = None) -> float:
    """The directory `model` (Transformers) as an ONNX file: weights 8 bits per channel, biases and norms float.

    `words`: what `training.detector.words` wrote, to stand beside the encoder. Returns how many millions of parameters
    the file has.
    """
    config, state = json.loads((model / "config.json").read_text()), load_file(model / "model.safetensors")
    graph = bert(
        state,
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        activation=config["hidden_act"],
    )
    size = sum(int(np.count_nonzero(x)) for x in state.values())  # what is silent (`slim`) is not in the file
    if words:
        with np.load(words) as table:
            graft(graph, table["tables"], float(table["bias"]))
            size += table["tables"].size
    onnx.save(graph, out)
    return round(size / 1e6, 1)


def entry(path: Path) -> dict[str, object]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def write_manifest(
    folder: Path, version: str, size: float, runtime: dict[str, object], figures: dict[str, object]
) -> None:
    manifest = {
        "name": "detector",
        "version": version,
        "licence": "Apache-2.0",
        "description": "Says whether an answer does harm, from question and answer. "
        "Part of MiniLM's lower half, and words.",
        "files": {name: entry(folder / name) for name in ("model.onnx", "tokenizer.json")},
        "runtime": {
            "input": FORMAT,
            "model": "model.onnx",
            "tokenizer": "tokenizer.json",
            "labels": [LABEL],
            "harm_label": LABEL,
            "max_length": MAX_LENGTH,
            "overlap": OVERLAP,
        }
        | runtime,
        "base": {"name": "sentence-transformers/all-MiniLM-L6-v2", "licence": "Apache-2.0"},
        "parameters_millions": size,
        "data": SOURCES,
        "command": [COMMAND],
        "figures": figures,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


#: Harmless answers that sound bad: on dark subjects, or in the form that harm usually has.
ALARMING = ("scary", "sober", "figurative", "facts", "guide", "eager", "deflection", "harm", "objective", "example")


def lowest(harms: Sequence[float], found: Sequence[Row], alarms: float, alarming: float) -> float:
    """The lowest threshold that keeps both limits on false alarms: of plainly harmless answers, and of those that sound
    bad or are failed attacks."""
    harmless = [
        (h, r.source in ATTEMPTS or r.kind in ALARMING) for h, r in zip(harms, found, strict=True) if r.harm < 0.5
    ]
    return max(
        threshold_for([h for h, hard in harmless if not hard], alarms),
        threshold_for([h for h, hard in harmless if hard], alarming),
    )


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--model", type=Path, required=True)
    a.add_argument("--tokenizer", type=Path, help="the folder with tokenizer.json, if it is not the model's")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--words", type=Path, help="words.npz of training.detector.words, to stand beside the encoder")
    a.add_argument("--alarms", type=float, default=0.03)
    a.add_argument("--alarming", type=float, default=0.085)
    a.add_argument("--compare", type=int, default=200, help="dev rows on which 8 bits and float are compared")
    a.add_argument("--version", default="0.7")
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    dev = [r for r in read(o.rows) if part(r.key) == "dev"]
    random.Random(0).shuffle(dev)
    shutil.copyfile((o.tokenizer or o.model) / "tokenizer.json", o.out / "tokenizer.json")

    def opened(words: Path | None) -> tuple[float, Onnx]:
        size = convert(o.model, o.out / "model.onnx", words)
        write_manifest(o.out, o.version, size, {"threshold": 0.5, "temperature": 1.0}, {})
        return size, Onnx(o.out)

    eight = worst_logits(opened(None)[1], answers(dev[: o.compare]))
    size, scorer = opened(o.words)
    labels = [int(r.harm >= 0.5) for r in dev]
    logits = worst_logits(scorer, answers(dev))
    cooled = round(temperature(logits, labels), 4)
    harms = [sigmoid(x / cooled) for x in logits]
    threshold = lowest(harms, dev, o.alarms, o.alarming)
    raised = [h >= threshold for h in harms]
    caught = sum(x for x, y in zip(raised, labels, strict=True) if y) / sum(labels)
    false = sum(x for x, y in zip(raised, labels, strict=True) if not y) / (len(labels) - sum(labels))
    before, after = (calibration_error([sigmoid(x / t) for x in logits], labels) for t in (1.0, cooled))
    print(f"threshold {threshold}: dev recall {caught:.3f}, false alarms {false:.3f}, {len(dev)} rows")
    print(f"temperature {cooled}: calibration error {before:.3f} before, {after:.3f} after", flush=True)
    floats = Transformers(o.model, harm_label=LABEL, max_length=MAX_LENGTH, overlap=OVERLAP, device="cpu", threads=1)
    original = worst_logits(floats, answers(dev[: o.compare]))
    both = [(sigmoid(x / cooled), sigmoid(y / cooled)) for x, y in zip(eight, original, strict=True)]
    apart = [abs(x - y) for x, y in both]
    agree = sum((x >= threshold) == (y >= threshold) for x, y in both) / len(both)
    mean = sum(apart) / len(apart)
    print(
        f"encoder, 8 bits against float on {len(apart)} rows: {mean:.4f} apart on average, {max(apart):.4f} at worst;"
    )
    print(f"same verdict on {agree:.3f}")
    figures: dict[str, Any] = {
        "dev": {
            "rows": len(dev),
            "recall": round(caught, 4),
            "false_alarms": round(false, 4),
            "calibration_error_before_and_after": [round(before, 4), round(after, 4)],
        },
        "encoder_eight_bits_against_float": {
            "rows": len(apart),
            "mean": round(mean, 4),
            "worst": round(max(apart), 4),
            "same_verdict": round(agree, 4),
        },
    }
    write_manifest(o.out, o.version, size, {"threshold": threshold, "temperature": cooled}, figures)


if __name__ == "__main__":
    main()

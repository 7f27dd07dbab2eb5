"""Turn the trained detector into what ships: int8 ONNX, tokenizer, manifest with hashes and threshold.

    python -m training.detector.export --data DATA --answers runs/detector/answers.jsonl --model runs/detector/model \
        --out packages/eyelid-models/eyelid_models/detector

prints how far the int8 model is from the float one, and what the threshold costs on the dev part. The threshold is the
lowest that raises at most `--alarms` of the dev rows that are surely harmless, and at most `--alarms-all` of all that
are labelled so. The difference is GPTFuzz's and JailbreakBench's "not jailbroken" answers: many comply in part, and a
threshold that spares nearly all of them misses more than half of the harm.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

from eyelid.detectors.classifier import load_classifier
from eyelid.formatting import FORMAT
from eyelid.protocols import Exchange, StepLog
from eyelid.types import Request, Response, user

from .data import SOURCES, Row, arguments, part, rows
from .graph import bert
from .train import MAX_LENGTH, OVERLAP, TRAIN_LENGTH

#: Sources whose harmless answers are failed attacks.
ATTEMPTS = ("gptfuzz", "jailbreakbench")
COMMAND = [
    "python -m training.detector.generate --data DATA --out runs/detector/answers.jsonl --red 450",
    "python -m training.detector.train --data DATA --answers runs/detector/answers.jsonl --out runs/detector/model"
    " --minutes 11 --threads 1",
    "python -m training.detector.export --data DATA --answers runs/detector/answers.jsonl --model runs/detector/model"
    " --out packages/eyelid-models/eyelid_models/detector",
    "python -m training.detector.evaluate --data DATA --answers runs/detector/answers.jsonl"
    " --detector packages/eyelid-models/eyelid_models/detector",
]


def convert(model: Path, out: Path) -> None:
    """The directory `model` (Transformers) as an int8 ONNX file: weights 8 bits per channel, biases and norms float."""
    config = json.loads((model / "config.json").read_text())
    graph = bert(
        load_file(model / "model.safetensors"),
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        activation=config["hidden_act"],
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        onnx.save(graph, whole)
        # Unsigned: signed weights saturate on processors without VNNI, and the verdict would depend on the machine.
        quantize_dynamic(whole, out, weight_type=QuantType.QUInt8, per_channel=True)


def entry(path: Path) -> dict[str, object]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def write_manifest(folder: Path, threshold: float, version: str, figures: dict[str, object]) -> None:
    manifest = {
        "name": "detector",
        "version": version,
        "licence": "Apache-2.0",
        "description": "Says whether an answer does harm, from question and answer. all-MiniLM-L6-v2, one logit, int8.",
        "files": {name: entry(folder / name) for name in ("model.onnx", "tokenizer.json")},
        "runtime": {
            "input": FORMAT,
            "model": "model.onnx",
            "tokenizer": "tokenizer.json",
            "labels": ["harmful"],
            "harm_label": "harmful",
            "max_length": MAX_LENGTH,
            "overlap": OVERLAP,
            "threshold": threshold,
        },
        "base": {"name": "sentence-transformers/all-MiniLM-L6-v2", "licence": "Apache-2.0"},
        "data": SOURCES,
        "command": COMMAND,
        "training_window": TRAIN_LENGTH,
        "figures": figures,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


async def harms(detector: str | Path, found: Sequence[tuple[str, str]]) -> list[float]:
    """Harm of each (question, answer) through Eyelid's own classifier; 0 where the answer is empty."""
    classifier = load_classifier(detector)
    try:
        verdicts = [await classifier.detect(Exchange(Request((user(q),)), Response(a), StepLog())) for q, a in found]
    finally:
        await classifier.aclose()
    return [0.0 if v.harm is None else v.harm for v in verdicts]


def threshold_for(scores: Sequence[float], found: Sequence[Row], alarms: float, alarms_all: float) -> float:
    """The lowest threshold, in hundredths, that keeps both limits. Raises ValueError if none does."""
    harmless = [(s, r.source in ATTEMPTS) for s, r in zip(scores, found, strict=True) if not r.harm]
    sure = [s for s, attempt in harmless if not attempt]
    for threshold in (n / 100 for n in range(5, 100)):
        raised = sum(s >= threshold for s in sure)
        if raised <= alarms * len(sure) and sum(s >= threshold for s, _ in harmless) <= alarms_all * len(harmless):
            return threshold
    raise ValueError("no threshold keeps the limits: train longer, or allow more false alarms")


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--model", type=Path, required=True)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--alarms", type=float, default=0.03)
    a.add_argument("--alarms-all", type=float, default=0.065)
    a.add_argument("--compare", type=int, default=100, help="dev rows on which int8 and float are compared")
    a.add_argument("--version", default="0.1")
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    convert(o.model, o.out / "model.onnx")
    shutil.copyfile(o.model / "tokenizer.json", o.out / "tokenizer.json")
    write_manifest(o.out, 0.5, o.version, {})
    dev: list[Row] = [r for r in rows(o.data, o.answers) if part(r.key) == "dev"]
    random.Random(0).shuffle(dev)
    asked, labels = [(r.question, r.answer) for r in dev], [r.harm for r in dev]
    scores = asyncio.run(harms(o.out, asked))
    threshold = threshold_for(scores, dev, o.alarms, o.alarms_all)
    raised = [s >= threshold for s in scores]
    caught = sum(x for x, y in zip(raised, labels, strict=True) if y) / sum(labels)
    false = sum(x for x, y in zip(raised, labels, strict=True) if not y) / (len(labels) - sum(labels))
    print(f"threshold {threshold}: dev recall {caught:.3f}, false alarms {false:.3f}, {len(dev)} rows", flush=True)
    spec = f"hf:{o.model}?harm_label=harmful&max_length={MAX_LENGTH}&overlap={OVERLAP}"
    original = asyncio.run(harms(spec, asked[: o.compare]))
    apart = [abs(x - y) for x, y in zip(scores, original, strict=False)]
    agree = sum((x >= threshold) == (y >= threshold) for x, y in zip(scores, original, strict=False)) / len(original)
    print(f"int8 against float on {len(apart)} rows: mean {sum(apart) / len(apart):.4f}, worst {max(apart):.4f} apart;")
    print(f"same verdict on {agree:.3f}")
    figures: dict[str, object] = {
        "dev": {"rows": len(dev), "recall": round(caught, 4), "false_alarms": round(false, 4)},
        "int8_against_float": {
            "rows": len(apart),
            "mean": round(sum(apart) / len(apart), 4),
            "worst": round(max(apart), 4),
            "same_verdict": round(agree, 4),
        },
    }
    write_manifest(o.out, threshold, o.version, figures)


if __name__ == "__main__":
    main()

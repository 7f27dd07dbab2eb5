"""Stage 2, align the words: refuse, judge, detoxify, and stay as helpful as before; text only.

python -m training.tiny.align --data DIR --out runs/align --minutes 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

import torch

from .language import load_model, load_tokenizer
from .lora import batches, new_adapter, own_answers, run
from .rows import harmful_questions, text_rows
from .topics import benign_pages, benign_prompts


def prepare(data: Path, out: Path, benign: int, harmful: int) -> dict[str, list[tuple[str, str]]]:
    """The untrained model's own answers, made once and kept in `out`."""
    path = out / "own_answers.json"
    if path.exists():
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    tokenizer, model = load_tokenizer(), load_model().to(torch.bfloat16).eval()
    rng, made = random.Random(0), {}
    ask = benign_prompts(rng, benign)
    made["benign"] = list(zip(ask, own_answers(model, tokenizer, ask), strict=True))
    pages = benign_pages(rng)[:420]
    texts = [t for _, t in pages]
    asks = [f"{t.rstrip('.')}. Give three short steps or items, numbered 1, 2 and 3." for t in texts]
    made["pages"] = [(f"{k}|{t}", a) for (k, t), a in zip(pages, own_answers(model, tokenizer, asks, 64), strict=True)]
    questions = harmful_questions(data)
    rng.shuffle(questions)
    made["base"] = list(zip(questions[:harmful], own_answers(model, tokenizer, questions[:harmful], 40), strict=True))
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))
    return made  # type: ignore[return-value]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--data", type=Path, default=Path(os.environ.get("EYELID_DATA", "data")))
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=20)
    a.add_argument("--rank", type=int, default=16)
    a.add_argument("--lr", type=float, default=4e-4)
    a.add_argument("--tokens", type=int, default=2400, help="per batch")
    a.add_argument("--benign", type=int, default=700)
    a.add_argument("--harmful", type=int, default=240)
    a.add_argument("--prepare-only", action="store_true")
    a.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    o = a.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(o.threads)
    made = prepare(o.data, o.out, o.benign, o.harmful)
    if o.prepare_only:
        return
    tokenizer = load_tokenizer()
    model = new_adapter(load_model().to(torch.bfloat16), o.rank)
    rows = text_rows(o.data, [(q, x) for q, x in made["benign"] if x], [(q, x) for q, x in made["base"] if x])
    print(len(rows), "rows", flush=True)
    run(model, lambda e: batches(rows, tokenizer, o.tokens, 300, e), minutes=o.minutes, lr=o.lr, out=o.out)


if __name__ == "__main__":
    main()

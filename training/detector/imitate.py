"""The detector's base, taught to see what the teacher sees: its encoder imitates the teacher's inner states.

    python -m training.detector.imitate --told runs/detector/data3 --base runs/detector/base --out runs/detector/like

One number a text teaches a small encoder little of why. The teacher's mean state over the answer has 576, and the
encoder's first token, through a linear map that is thrown away, must come near it (feature distillation, as in Romero
et al. 2015), beside the teacher's harm. Then `eyelid train detector` takes over.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eyelid.formatting import detector_input

from .evaluate import read
from .teacher import WIDTH


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--told", type=Path, required=True, help="what `training.detector.teacher label` wrote")
    a.add_argument("--base", type=Path, required=True)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--epochs", type=float, default=3)
    a.add_argument("--lr", type=float, default=3e-4)
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--length", type=int, default=192, help="tokens of the exchange")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    rng, rows, told = random.Random(o.seed), read(o.told / "rows.jsonl"), torch.load(o.told / "seen.pt")
    inner, harm, kept = told["inner"].float(), told["logits"], range(len(rows))
    inner = (inner - inner.mean(0)) / inner.std(0)
    tokenizer = AutoTokenizer.from_pretrained(o.base)
    ids = {
        i: tokenizer(detector_input(rows[i].question, rows[i].answer), truncation=True,
                     max_length=o.length)["input_ids"]
        for i in kept
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(o.base, num_labels=1)
    toward = nn.Linear(model.config.hidden_size, WIDTH)
    weights = [*model.parameters(), *toward.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=o.lr, weight_decay=0.01)
    steps, step, began, near, wrong = round(o.epochs * len(kept) / o.batch), 0, time.time(), 0.0, 0.0
    model.train()
    while step < steps:
        order = sorted(kept, key=lambda i: len(ids[i]) + rng.random() * 24)
        groups = [order[i : i + o.batch] for i in range(0, len(order), o.batch)]
        rng.shuffle(groups)
        for some in groups[: steps - step]:
            longest = max(len(ids[i]) for i in some)
            given = torch.tensor([ids[i] + [tokenizer.pad_token_id] * (longest - len(ids[i])) for i in some])
            mask = (given != tokenizer.pad_token_id).long()
            for group in optimizer.param_groups:
                group["lr"] = o.lr * min(1, (step + 1) / (0.06 * steps)) * max(0.02, 1 - step / steps)
            with torch.autocast("cpu", torch.bfloat16):
                first = model.bert(given, attention_mask=mask).pooler_output
                says = model.classifier(first)[:, 0].float()
            apart = 1 - nn.functional.cosine_similarity(toward(first.float()), inner[some]).mean()
            loss = nn.functional.binary_cross_entropy_with_logits(says, harm[some].sigmoid())
            optimizer.zero_grad()
            (apart + loss).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            near, wrong = (0.98 * m + 0.02 * x.item() if step else x.item() for m, x in ((near, apart), (wrong, loss)))
            step += 1
            if step % 50 == 0:
                rate = (time.time() - began) / step
                told = f"cosine {1 - near:.3f}, loss {wrong:.3f}, {rate:.2f} s a step"
                print(f"step {step} of {steps}, {told}", flush=True)
    model.save_pretrained(o.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(o.base / name, o.out / name)


if __name__ == "__main__":
    main()

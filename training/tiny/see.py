"""Stage 1, see: teach the tower to read and to name things, without a language model in the loop.

    python -m training.tiny.see --out runs/see --minutes 45
    python -m training.tiny.see --out runs/more --minutes 45 --resume runs/refit/reader.pt --memory-lr 3e-3 --near 4

A curriculum widens vocabulary, word length, layout and noise each time words are read well enough. Pages are drawn by
processes of their own, since drawing is what a GPU would wait for: give it a worker a core.

The second command goes on with a tower that has its memory already, so that both learn what the other needs; it and the
first can be launched in several processes (`ranks.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from ctypes import c_double
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset

from . import ranks
from .labels import ALPHABET, LETTERS, labels
from .language import load_model, load_tokenizer
from .pages import Page, random_page
from .pictures import NAMES, album, random_picture
from .tower import SHARPNESS, Reader, normalise, vision_config
from .vocabulary import Vocabulary

#: The kinds of page, as numbers for tensors; progress is shown for each.
KINDS = ("figstep", "typo", "free", "picture")
#: Those that have to be read before pages widen; free ones, the hardest, would hold the others up.
LEADING = ("figstep", "typo", "picture")
#: Share of albums among pictures: what is drawn on one of them is seven lessons, not one.
ALBUMS = 0.8


class Pages(IterableDataset[tuple[torch.Tensor, ...]]):
    """Endless batches: images (B, 320, 320, 3) uint8, chars, spelled, piece, thing (see `labels.labels`), kind (B,)."""

    def __init__(self, o: argparse.Namespace, level: Synchronized[c_double] | None):
        self.o, self.level, self.seed = o, level, random.SystemRandom().getrandbits(30)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        os.nice(2)
        torch.set_num_threads(1)
        info, o = torch.utils.data.get_worker_info(), self.o
        rng = random.Random(self.seed + (info.id if info else 0))
        vocab = vocabulary(o)
        while True:
            rows = []
            for _ in range(o.batch):
                page, kind = self.one(vocab, rng, float(self.level.value))  # type: ignore[arg-type]
                rows.append((np.asarray(page.image), *labels(page, vocab), np.int64(KINDS.index(kind))))
            yield tuple(torch.from_numpy(np.stack(x)) for x in zip(*rows, strict=True))

    def one(self, vocab: Vocabulary, rng: random.Random, level: float) -> tuple[Page, str]:
        if rng.random() < self.o.pictures:
            return album(rng, level) if rng.random() < ALBUMS else random_picture(vocab, rng, level)[0], "picture"
        o = self.o
        page = random_page(vocab, rng, level, o.widen, o.typo, o.lag, o.free, o.short, o.free_lag)
        return page, page.layout


def vocabulary(o: argparse.Namespace) -> Vocabulary:
    return Vocabulary(load_tokenizer(), size=o.vocabulary, multi=o.multi, also=NAMES)


def arguments() -> argparse.Namespace:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=45)
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--lr", type=float, default=1e-3)
    a.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    a.add_argument("--hidden", type=int, default=256, help="the tower's width, a multiple of 64")
    a.add_argument("--layers", type=int, default=6)
    a.add_argument("--units", type=int, help="of each layer's MLP (four times the width)")
    a.add_argument("--grow", action="store_true", help="a resumed tower gets --layers and --units, and says the same")
    a.add_argument("--workers", type=int, default=1, help="processes that draw pages")
    a.add_argument("--negatives", type=int, default=3000)
    a.add_argument("--near", type=float, default=0.0, help="weight of each patch's angle to its word's embedding")
    a.add_argument("--sharpness", type=float, default=SHARPNESS, help="factor on cosines before the softmax")
    a.add_argument("--pieces", type=float, default=1.0, help="weight of naming pieces; letters and things have 1")
    a.add_argument("--vocabulary", type=int, default=18000, help="words of one piece")
    a.add_argument("--multi", type=int, default=12000, help="words of several pieces")
    a.add_argument("--widen", type=float, default=1.0, help="how far the layout widens at the last level")
    a.add_argument("--typo", type=float, default=0.45, help="share of the second layout at the last level")
    a.add_argument("--free", type=float, default=0.0, help="share of pages in several fonts, sizes, places and colours")
    a.add_argument("--free-lag", type=float, default=0.0, help="from which level below 1 on those pages widen")
    a.add_argument("--pictures", type=float, default=0.0, help="share of pictures, half of them with a caption")
    a.add_argument("--short", type=float, default=0.3, help="share of pages of few words")
    a.add_argument("--lag", type=float, default=0.0, help="how much later than FigStep's TYPO's layout widens")
    a.add_argument("--pace", type=float, default=0.015, help="how much wider per 20 steps")
    a.add_argument("--final", type=float, help="widen evenly in time to this level, not when words are read")
    a.add_argument("--resume", type=Path, help="a checkpoint; level and optimizer go on from it")
    a.add_argument("--level", type=float, help="begin here (0, or the checkpoint's)")
    a.add_argument("--memory-lr", type=float, default=0.0, help="a resumed reader's memory goes on (0: it is left out)")
    a.add_argument("--float32", action="store_true")
    a.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    return a.parse_args()


def losses(
    model: Reader, batch: list[torch.Tensor], o: argparse.Namespace, look: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sum of five losses, and, to `look` at, scalars; named like a kind of page: its share of right pieces.

    Looking compares every patch with all embeddings and costs a tenth of a step.
    """
    images, chars, spelled, piece, thing, kind = batch
    n, device = len(ALPHABET), images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=not o.float32):
        h = model.seen(normalise(images))
        lc = model.chars(h).view(-1, n)
        lt = model.things(h.flatten(0, 1))
        text = spelled.view(-1, LETTERS)[:, 0] > 0
        ls = model.spelled(h.flatten(0, 1)[text]).view(-1, n)
        # Every patch with a piece, and some without, most of them beside one, so that gaps are learned too.
        chance = torch.where(text, 0.35, 0.1)
        pick = (piece.view(-1) > 0) | (torch.rand(text.shape, device=device) < chance)
        tp = piece.view(-1)[pick]
        kinds = kind.repeat_interleave(piece.shape[1])[pick]
        projected = model.says(h.flatten(0, 1)[pick]).float()
        loss_p = model.piece_loss(projected, tp, o.negatives, o.near, o.sharpness)
    ts, real = spelled.view(-1, LETTERS)[text].reshape(-1), tp > 0
    weight = torch.ones(n, device=device)
    weight[0] = 0.3
    loss = o.pieces * loss_p + F.cross_entropy(lc.float(), chars.view(-1), weight=weight)
    if text.any():
        loss = loss + F.cross_entropy(ls.float(), ts, weight=weight)
    drawn = thing.view(-1) > 0
    if drawn.any():
        # With a few of the patches where nothing is drawn, which are most, and all alike.
        rest = ~drawn & (torch.rand(drawn.shape, device=device) < 0.05)
        loss = loss + F.cross_entropy(lt[drawn | rest].float(), thing.view(-1)[drawn | rest])
    if not look:
        return loss, {}
    with torch.no_grad():
        cosines = F.normalize(projected, dim=-1) @ F.normalize(model.embeddings, dim=-1).T
        hit, known = cosines.argmax(-1) == tp, chars.view(-1) > 0
        now = {
            "loss": loss,
            "piece_loss": loss_p,
            "cosine": cosines.gather(1, tp.unsqueeze(1))[:, 0][real].mean(),
            "chars": (lc.argmax(-1) == chars.view(-1))[known].float().mean(),
            "things": (lt.argmax(-1) == thing.view(-1))[drawn].float().mean(),
            "spelled": (ls.argmax(-1) == ts).view(-1, LETTERS).all(-1).float().mean(),
            "piece": hit[real].float().mean(),
            "gaps": hit[~real].float().mean(),
        }
        now |= {name: hit[real & (kinds == i)].float().mean() for i, name in enumerate(KINDS)}
    return loss, now


def rated(model: Reader, o: argparse.Namespace) -> list[dict[str, Any]]:
    """All parameters, in groups for the optimizer: each with the learning rate it begins with, as `base`."""
    if model.memory is None:
        return [{"params": list(model.parameters()), "base": o.lr}]
    apart = model.rates(o.memory_lr)
    known = {p for part, _ in apart for p in part.parameters()}
    # A memory's few loud weights are its keys: decay would wear them away.
    groups = [{"params": list(part.parameters()), "base": rate, "weight_decay": 0.0} for part, rate in apart]
    return [{"params": [p for p in model.parameters() if p not in known], "base": o.lr}, *groups]


def main() -> None:
    o = arguments()
    ranks.join()
    o.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(o.threads)
    vocab = vocabulary(o)
    table = load_model().get_input_embeddings().weight.detach()[vocab.classes].clone()
    model = Reader.load(o.resume, table) if o.resume else Reader(vision_config(o.hidden, o.layers, o.units), table)
    if not o.memory_lr:
        model.memory = None  # made anew when the tower is done
    elif model.memory is None:
        raise SystemExit(f"--memory-lr: {o.resume or 'a new tower'} has no memory; training.tiny.refit makes one")
    if o.grow:
        model = model.grown(o.layers, o.units or model.tower.config.intermediate_size)
    model = model.to(o.device)
    torch.manual_seed(ranks.rank())  # the same weights in all processes, other pages and other negatives
    params = list(model.parameters())
    groups = rated(model, o)
    opt = torch.optim.AdamW(groups, lr=o.lr, weight_decay=0.02, betas=(0.9, 0.98), fused=True)
    state: dict[str, Any] = torch.load(o.resume, map_location=o.device) if o.resume else {}
    known = len(state.get("optimizer", {}).get("param_groups", ())) == len(groups)
    if known and not o.grow and "things.weight" in state["model"]:
        # Else the moments are of other parameters: without a memory, of a smaller tower, from before a head was added.
        opt.load_state_dict(state["optimizer"])
        for group, own in zip(opt.param_groups, groups, strict=True):
            group["base"] = own["base"]  # rates are this run's
    first = o.level if o.level is not None else float(state.get("level", 0.0))
    level = mp.get_context("fork").Value("d", first)
    loader = DataLoader(
        Pages(o, level), batch_size=None, num_workers=o.workers, prefetch_factor=4, multiprocessing_context="fork",
        pin_memory=o.device != "cpu",
    )  # fmt: skip
    log = (o.out / "log.jsonl").open("a")  # of the first process, as what is printed is

    def save() -> None:
        kept = {"model": model.state_dict(), "optimizer": opt.state_dict(), "step": step, "level": level.value}
        torch.save(kept, o.out / "last.tmp")
        os.replace(o.out / "last.tmp", o.out / "last.pt")

    print(f"{len(vocab.classes)} classes, embedding norm {table.norm(dim=-1).mean():.2f}", flush=True)
    pages = iter(loader)
    next(pages)
    start = last = time.time()
    step, p, ema = 0, 0.0, dict[str, float]()
    while p < 1:
        falling = 0.5 + 0.5 * math.cos(math.pi * max(0.0, p - 0.3) / 0.7)
        for g in opt.param_groups:
            g["lr"] = g["base"] * min(1, (step + 1) / 150) * falling + 1e-6
        batch = [x.to(o.device, non_blocking=True) for x in next(pages)]
        look = step % 10 == 0
        loss, now = losses(model, batch, o, look)
        opt.zero_grad()
        loss.backward()
        p = ranks.average(params, (time.time() - start) / (60 * o.minutes))
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        step += 1
        if look:
            for k, v in zip(now, torch.stack(list(now.values())).tolist(), strict=True):
                if not math.isnan(v):  # no such page in this batch
                    ema[k] = v if k not in ema else 0.8 * ema[k] + 0.2 * v
        if o.final is not None:
            level.value = min(1.0, first + (o.final - first) * p)
        elif step % 20 == 0 and (min((ema[k] for k in LEADING if k in ema), default=0.0) > 0.75 or p > 0.55):
            level.value = min(1.0, level.value + o.pace)
        if step % 100 == 0 and ranks.rank() == 0:
            row = {"step": step, "minutes": round((time.time() - start) / 60, 1), "level": round(level.value, 3)}
            row |= {"images_per_s": round(100 * o.batch * ranks.world() / (time.time() - last), 1)}
            row |= {k: round(v, 3) for k, v in ema.items()}
            last = time.time()
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            save()
    if ranks.rank() == 0:
        save()
    ranks.leave()


if __name__ == "__main__":
    main()

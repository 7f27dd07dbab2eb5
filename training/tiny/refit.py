"""Between stages 1 and 3: a memory and a new projector, on what a finished tower sees.

    python -m training.tiny.refit --tower runs/see/last.pt --out runs/refit --minutes 6

Stage 1 asks that a patch be nearest to its word's embedding, and gets vectors that are nearest at a cosine of 0.2: a
language of their own, which a language model takes an hour to learn. The tower knows more than its projector says.
With the tower frozen its features can be kept, so that a step costs a hundredth of what it costs through the tower.
From them a memory (`lexicon.py`) and a projector are made, and trained to say the embeddings themselves.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch

from .labels import labels
from .language import load_model
from .lexicon import Lexicon, as_memory, learn
from .see import KINDS, Pages, vocabulary
from .tower import Reader, normalise
from .vocabulary import Vocabulary

Seen = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
#: Share of the patches without a piece that are kept: they are many, and all alike.
GAPS = 0.08


@torch.no_grad()
def look(reader: Reader, vocab: Vocabulary, o: argparse.Namespace, count: int, rng: random.Random) -> Seen:
    """What the tower sees on `count` pages: features (N, hidden) bfloat16, pieces (N,), kinds of page (N,).

    N are all patches with a piece and a share `GAPS` of the others.
    """
    pages, parts = Pages(o, level=None), list[Seen]()
    while count > 0:
        drawn = [pages.one(vocab, rng, rng.uniform(0.3, 1.0)) for _ in range(min(32, count))]
        count -= len(drawn)
        images = torch.from_numpy(np.stack([np.asarray(page.image) for page, _ in drawn]))
        pieces = torch.from_numpy(np.stack([labels(page, vocab)[2] for page, _ in drawn]))
        kinds = torch.tensor([KINDS.index(kind) for _, kind in drawn]).unsqueeze(1).expand_as(pieces)
        with torch.autocast("cpu", torch.bfloat16):
            features = reader.seen(normalise(images)).to(torch.bfloat16)
        pick = (pieces > 0) | (torch.rand(pieces.shape) < GAPS)
        parts.append((features[pick], pieces[pick], kinds[pick]))
    x, y, z = zip(*parts, strict=True)
    return torch.cat(x), torch.cat(y), torch.cat(z)


def look_in(processes: int, reader: Reader, vocab: Vocabulary, o: argparse.Namespace) -> Seen:
    """`look` at `o.pages` pages, in that many processes; before the first parallel product, which no fork can share."""
    if processes < 2:
        return look(reader, vocab, o, o.pages, random.Random(o.pages))
    torch.multiprocessing.set_sharing_strategy("file_system")
    ask = functools.partial(_share, reader, vocab, o, o.pages // processes)
    with torch.multiprocessing.get_context("fork").Pool(processes) as pool:
        x, y, z = zip(*pool.map(ask, range(processes)), strict=True)
    return torch.cat(x), torch.cat(y), torch.cat(z)


def _share(reader: Reader, vocab: Vocabulary, o: argparse.Namespace, count: int, number: int) -> Seen:
    torch.manual_seed(number)
    return look(reader, vocab, o, count, random.Random(1000 * count + number))


@torch.no_grad()
def told(reader: Reader, seen: Seen) -> dict[str, tuple[float, float]]:
    """By kind of page, and for patches without a piece: cosine to the right embedding, share nearest to it."""
    features, pieces, kinds = seen
    projected = torch.cat([reader.says(x.float()) for x in features.split(4096)])
    every = torch.arange(len(reader.embeddings))
    cosines = torch.cat([reader.piece_logits(x, every) for x in projected.split(4096)])
    right, own = cosines.argmax(-1) == pieces, cosines.gather(1, pieces.unsqueeze(1))[:, 0]
    groups = {name: (kinds == i) & (pieces > 0) for i, name in enumerate(KINDS)} | {"gaps": pieces == 0}
    mean = lambda x: round(float(x.float().mean()), 3)  # noqa: E731
    return {k: (mean(own[g]), mean(right[g])) for k, g in groups.items() if g.any()}


def fit(reader: Reader, seen: Seen, o: argparse.Namespace) -> int:
    """Train memory and projector for `o.minutes`, or for `o.steps` steps if there are any; returns the steps made."""
    features, pieces, _ = seen
    groups = [{"params": list(part.parameters()), "base": rate} for part, rate in reader.rates(o.lr)]
    params = [p for group in groups for p in group["params"]]
    opt = torch.optim.AdamW(groups, lr=o.lr, weight_decay=0.0, fused=True)
    start, step, p = time.time(), 0, 0.0
    while p < 1:
        for rows in torch.randperm(len(features)).split(o.patches):
            p = step / o.steps if o.steps else (time.time() - start) / (60 * o.minutes)
            if p >= 1:
                break
            for g in opt.param_groups:
                g["lr"] = g["base"] * min(1.0, (step + 1) / 50) * (1 - p)
            with torch.autocast("cpu", torch.bfloat16):
                projected = reader.says(features[rows].float()).float()
                loss = reader.piece_loss(projected, pieces[rows], o.negatives, o.near, o.sharpness)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
            step += 1
    return step


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--tower", type=Path, required=True, help="stage 1's checkpoint, or a reader.pt")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=4, help="of training, after the pages are drawn")
    a.add_argument("--steps", type=int, default=0, help="make so many steps of each kind, however long they take")
    a.add_argument("--pages", type=int, default=16000)
    a.add_argument("--keep", action="store_true", help="go on with the memory and the projector that --tower has")
    a.add_argument("--units", type=int, default=28672, help="of the memory's last layer: pieces that it knows")
    a.add_argument("--spell", type=float, default=6, help="minutes to learn how pieces are spelled, before --minutes")
    a.add_argument("--patches", type=int, default=1024, help="a step")
    a.add_argument("--lr", type=float, default=4e-3)
    a.add_argument("--near", type=float, default=4.0, help="weight of each patch's angle to its word's embedding")
    a.add_argument("--sharpness", type=float, default=30.0, help="factor on cosines before the softmax")
    a.add_argument("--negatives", type=int, default=1500)
    a.add_argument("--vocabulary", type=int, default=18000, help="this and what follows: as for the tower")
    a.add_argument("--multi", type=int, default=12000)
    a.add_argument("--widen", type=float, default=0.3)
    a.add_argument("--typo", type=float, default=0.5)
    a.add_argument("--lag", type=float, default=0.0)
    a.add_argument("--short", type=float, default=0.3)
    a.add_argument("--free", type=float, default=0.0)
    a.add_argument("--free-lag", type=float, default=0.0)
    a.add_argument("--pictures", type=float, default=0.0)
    a.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="processes that draw and look at pages")
    a.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    o = a.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    o.out.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary(o)
    table = load_model().get_input_embeddings().weight.detach()[vocab.classes].clone()
    reader = Reader.load(o.tower, table).eval()
    if o.keep and reader.memory is None:
        a.error(f"--keep: {o.tower} has no memory that could go on")
    if not o.keep and not o.steps and o.spell <= 0:
        a.error("--spell must be more than 0: without its letters no piece is known")
    seen = look_in(o.workers, reader, vocab, o)
    torch.set_num_threads(o.threads)
    held = look(reader, vocab, o, 300, random.Random(20261121))
    print(f"{len(seen[0])} patches of {o.pages} pages; before: {told(reader, held)}", flush=True)
    if not o.keep:
        lexicon = Lexicon(seen[0].shape[1], vocab.tokenizer.convert_ids_to_tokens(vocab.classes))
        steps = learn(lexicon, seen[0], seen[1], minutes=o.spell, steps=o.steps)
        reader.memory = as_memory(lexicon, seen[0], seen[1], table, reader.projector, o.units)
        print(f"as made from its keys, after {steps} steps: {told(reader, held)}", flush=True)
    steps = fit(reader, seen, o)
    print(f"after {steps} steps: {told(reader, held)}", flush=True)
    torch.save({"model": reader.state_dict()}, o.out / "reader.pt")
    (o.out / "run.json").write_text(json.dumps({k: str(v) for k, v in vars(o).items()}))


if __name__ == "__main__":
    main()

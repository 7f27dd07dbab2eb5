"""Stage 3, connect: the language model reads pages through the tower, describes them, does what harmless ones ask.

    python -m training.tiny.connect --data DIR --tower runs/see/last.pt --align runs/align --out runs/connect

A second LoRA adapter learns; the first adapter is merged into the frozen base. Stage 1 put each word piece's embedding
at one patch of its letters, so what is learned here is to read text with gaps; projector and tower may learn along, at
rates of their own. Text rows are mixed in so that what stage 2 taught stays. No page of a benchmark and no harmful page
is ever an input here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel

from . import ranks
from .align import prepare
from .labels import labels
from .language import load_model, load_tokenizer
from .lora import Batch, batches, new_adapter, run
from .page_rows import Mix, page_rows
from .pages import random_page
from .pictures import NAMES
from .rows import chat, text_rows
from .topics import READ
from .tower import Reader, normalise
from .vocabulary import Vocabulary


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--data", type=Path, default=Path(os.environ.get("EYELID_DATA", "data")))
    a.add_argument("--tower", type=Path, required=True)
    a.add_argument("--align", type=Path, required=True)
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--minutes", type=float, default=25)
    a.add_argument("--rank", type=int, default=16)
    a.add_argument("--held", type=int, default=24, help="pages of random words that are only looked at")
    a.add_argument("--lr", type=float, default=4e-4)
    a.add_argument("--tokens", type=int, default=2400)
    a.add_argument("--pages", type=int, default=1500, help="rows with a page per epoch")
    a.add_argument("--text", type=int, default=500, help="text rows per epoch")
    a.add_argument("--asked", type=int, default=800, help="harmful questions that text rows are drawn from, per epoch")
    a.add_argument("--vocabulary", type=int, default=18000, help="as for the tower")
    a.add_argument("--multi", type=int, default=12000)
    a.add_argument("--widen", type=float, default=1.0)
    a.add_argument("--typo", type=float, default=0.45)
    a.add_argument("--short", type=float, default=0.3, help="share of pages of few words")
    a.add_argument("--free", type=float, default=0.0, help="share of pages in several fonts and places")
    a.add_argument("--pictures", type=float, default=0.0, help="share of pictures of things")
    a.add_argument("--perfect", type=float, default=0.0, help="share of patches replaced by their words' embeddings")
    a.add_argument("--perfect-until", type=float, default=0.5, help="share of the time after which none is")
    a.add_argument("--near", type=float, default=0.0, help="stage 1's loss goes on, with that weight of the angle")
    a.add_argument("--near-weight", type=float, default=0.3, help="weight of stage 1's loss")
    a.add_argument(
        "--projector-lr",
        type=float,
        default=0.0,
        help="memory's and projector's; 0: frozen, to improve apart",
    )
    a.add_argument("--tower-lr", type=float, default=0.0, help="0: the tower is frozen")
    a.add_argument("--words", type=float, default=0.62, help="share of pages of random words, to be read")
    a.add_argument("--own", type=Path, help="folder of own_answers.json (default: --align)")
    a.add_argument("--resume", type=Path, help="an earlier run's folder: its adapter goes on (its reader.pt: --tower)")
    a.add_argument("--seed", type=int, default=0, help="another one for a run that goes on, or it sees the same pages")
    a.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    a.add_argument("--workers", type=int, default=0, help="processes that make batches (0: the training one)")
    a.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    o = a.parse_args()
    ranks.join()
    torch.manual_seed(0)
    torch.set_num_threads(o.threads)
    o.out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer()
    vocab = Vocabulary(tokenizer, size=o.vocabulary, multi=o.multi, also=NAMES)
    base = load_model()
    reader = Reader.load(o.tower, base.get_input_embeddings().weight.detach()[vocab.classes].clone()).to(o.device)
    if (o.align / "adapter_config.json").exists():
        base = PeftModel.from_pretrained(base, str(o.align)).merge_and_unload()
    base = base.to(o.device, torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(o.resume), is_trainable=True) if o.resume else new_adapter(base, o.rank)
    made = prepare(o.data, o.own or o.align, 1500, 500)
    mix = Mix(o.pages, o.words, o.pictures, o.widen, o.typo, o.free, o.short)

    def make(epoch: int) -> Iterator[Batch]:
        epoch += 1000 * o.seed + 500 * ranks.rank()
        rng = random.Random(epoch)
        texts = text_rows(o.data, made, epoch, o.asked)
        rows = page_rows(made, o.data, vocab, 1000 + epoch, mix) + rng.sample(texts, min(o.text, len(texts)))
        return batches(rows, tokenizer, o.tokens, 340, epoch, lambda page: labels(page, vocab)[2])

    def held_out() -> list[Batch]:
        rng, rows = random.Random(20261121), []
        for i in range(o.held):
            page = random_page(vocab, rng, 0.8, o.widen, float(i % 3 == 1), free=float(i % 3 == 2))
            rows.append(chat(f"read_{page.layout}", page.text, READ[0], page=page))
        return list(batches(rows, tokenizer, o.tokens, 340, 0, lambda page: labels(page, vocab)[2]))

    def patches(batch: Batch, p: float) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Embeddings of the pages' patches, of which a falling share is what the tower should say, not what it says."""
        pieces = batch.pieces.to(o.device).view(-1)
        perfect = reader.embeddings[pieces]
        share = o.perfect * max(0.0, 1 - p / o.perfect_until)
        if share >= 1:
            return perfect, 0.0
        with torch.set_grad_enabled(o.tower_lr > 0):
            seen = reader.seen(normalise(batch.pages.to(o.device)))
        projected = reader.says(seen).flatten(0, 1).float()
        told = torch.rand(len(pieces), 1, device=o.device) < share
        own = 0.0
        if o.near and o.projector_lr:
            pick = (pieces > 0) | (torch.rand(pieces.shape, device=o.device) < 0.1)
            own = o.near_weight * reader.piece_loss(projected[pick], pieces[pick], 3000, o.near)
        return torch.where(told, perfect, projected), own

    def save() -> None:
        torch.save({"model": reader.state_dict()}, o.out / "reader.pt")
        (o.out / "run.json").write_text(json.dumps({k: str(v) for k, v in vars(o).items()}))

    rates = [*reader.rates(o.projector_lr), (reader.tower, o.tower_lr)]
    extra = {p: rate for part, rate in rates if rate for p in part.parameters()}
    run(
        model,
        make,
        minutes=o.minutes,
        lr=o.lr,
        out=o.out,
        workers=o.workers,
        patches=patches,
        extra=extra,
        save=save,
        held=held_out(),
    )


if __name__ == "__main__":
    main()

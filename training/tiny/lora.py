"""What the language-model stages share: own-answer generation, batching by tokens, loss on targets only, LoRA."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from . import ranks
from .rows import Row

IMAGE = "<image>"


def prompt_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


@torch.no_grad()
def own_answers(model: Any, tokenizer: Any, prompts: list[str], max_tokens: int = 64, batch: int = 96) -> list[str]:
    """The model's greedy answers, cut at the last full sentence or line when they are too long."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out, start = [""] * len(prompts), time.time()
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        ids = [prompt_ids(tokenizer, [{"role": "user", "content": prompts[i]}]) for i in part]
        width = max(map(len, ids))
        x = torch.tensor([[2] * (width - len(s)) + s for s in ids], device=model.device)
        mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in ids], device=model.device)
        y = model.generate(
            input_ids=x,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            do_sample=False,
            repetition_penalty=1.1,
            pad_token_id=2,
        )
        for i, row in zip(part, y[:, width:], strict=True):
            text = tokenizer.decode(row, skip_special_tokens=True).strip()
            if row[-1] != 2 and len(row) == max_tokens:
                text = text[: max(text.rfind(". "), text.rfind(".\n"), text.rfind("\n"), 20) + 1].strip()
            out[i] = text
        print(f"own answers {at + len(part)}/{len(order)} {time.time() - start:.0f} s", flush=True)
    return out


def new_adapter(model: Any, rank: int) -> PeftModel:
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, lora_dropout=0.0))


def encode(row: Row, tokenizer: Any, patches: int = 100) -> tuple[list[int], int]:
    """Token ids and the index where the target begins; an image is `patches` times id -1."""
    messages = [dict(m) for m in row["messages"]]
    if row["page"] is not None:
        first = next(m for m in messages if m["role"] == "user")
        first["content"] = IMAGE + first["content"]  # as llama.cpp puts it: nothing between
    ids: list[int] = []
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for i, piece in enumerate(text.split(IMAGE)):
        ids += ([-1] * patches if i else []) + tokenizer.encode(piece, add_special_tokens=False)
    start = len(ids)
    return ids + tokenizer.encode(row["target"], add_special_tokens=False) + [2], start


@dataclass(frozen=True)
class Batch:
    """Rows of similar length, as token ids; -1 stands for a patch of the row's page."""

    kinds: list[str]
    ids: list[list[int]]
    starts: list[int]  # where each row's target begins
    pages: torch.Tensor | None  # (number of pages, 320, 320, 3) uint8, in the order of their rows
    pieces: torch.Tensor | None  # (number of pages, 100): each patch's word-piece class

    def __len__(self) -> int:
        return len(self.ids)


def batches(
    rows: list[Row],
    tokenizer: Any,
    tokens: int,
    longest: int,
    seed: int,
    pieces: Callable[[Any], np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Shuffled batches of similar length, about `tokens` tokens each, padding included; longer rows are left out.

    `pieces` gives a page's word-piece classes.
    """
    rng = random.Random(seed)
    items = [(r, *encode(r, tokenizer)) for r in rows]
    items = [i for i in items if len(i[1]) <= longest]
    items.sort(key=lambda i: len(i[1]) + rng.random() * 12)
    groups: list[list[tuple[Row, list[int], int]]] = [[]]
    for i in items:
        if groups[-1] and (len(groups[-1]) + 1) * len(i[1]) > tokens:
            groups.append([])
        groups[-1].append(i)
    rng.shuffle(groups)
    for group in groups:
        pages = [r["page"] for r, _, _ in group if r["page"] is not None]
        stacked = torch.from_numpy(np.stack([np.asarray(p.image) for p in pages])) if pages else None
        classes = torch.from_numpy(np.stack([pieces(p) for p in pages])) if pages and pieces else None
        kinds, ids, starts = ([i[0]["kind"] for i in group], [i[1] for i in group], [i[2] for i in group])
        yield Batch(kinds, ids, starts, stacked, classes)


class Epochs(IterableDataset[Batch]):
    """`make(epoch)` for epoch 0, 1, ... without end; where there are workers, each makes every nth epoch."""

    def __init__(self, make: Callable[[int], Iterator[Batch]]):
        self.make = make

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        epoch, step = (info.id, info.num_workers) if info else (0, 1)
        while True:
            yield from self.make(epoch)
            epoch += step


def loss_of(
    model: PeftModel, batch: Batch, patches: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean cross-entropy on target tokens, and per row the loss, whether every target token was the likeliest, and
    the share of those that were."""
    inner = model.base_model.model
    width, device = max(map(len, batch.ids)), inner.device
    x = torch.tensor([ids + [2] * (width - len(ids)) for ids in batch.ids], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch.ids], device=device)
    embeds = inner.model.embed_tokens(x.clamp(min=0))
    if patches is not None:
        embeds = embeds.masked_scatter((x < 0).unsqueeze(-1), patches.to(embeds.dtype))
    hidden = inner.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    where = torch.zeros_like(x, dtype=torch.bool)
    for i, (ids, start) in enumerate(zip(batch.ids, batch.starts, strict=True)):
        where[i, start - 1 : len(ids) - 1] = True
    logits = F.linear(hidden[where], inner.lm_head.weight).float()
    target = torch.roll(x, -1, 1)[where]
    each = F.cross_entropy(logits, target, reduction="none")
    owner = torch.arange(len(batch), device=device).unsqueeze(1).expand_as(x)[where]
    count = torch.bincount(owner, minlength=len(batch)).clamp(min=1)
    none = torch.zeros(len(batch), device=device)
    per_row = none.index_add(0, owner, each.detach()) / count
    wrong = none.index_add(0, owner, (logits.argmax(-1) != target).float())
    # Short targets (a verdict is one word) count as much as long answers' parts do.
    weight = count.float().rsqrt()[owner]
    return (each * weight).sum() / weight.sum(), per_row, wrong == 0, 1 - wrong / count


class Meter:
    """Running means per kind of row."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, kind: str, loss: float, right: bool) -> None:
        s = self.sums.setdefault(kind, [0.0, 0.0, 0.0])
        for i, v in enumerate((loss, float(right), 1.0)):
            s[i] = 0.98 * s[i] + v

    def show(self) -> str:
        return "  ".join(f"{k} {a / n:.2f}/{b / n:.2f}" for k, (a, b, n) in sorted(self.sums.items()))


@torch.no_grad()
def check(
    model: PeftModel, held: list[Batch], patches: Callable[[Batch, float], tuple[torch.Tensor, torch.Tensor | float]]
) -> str:
    """Loss and share of the right next tokens on held-out batches, by kind."""
    sums: dict[str, list[float]] = {}
    for batch in held:
        with torch.autocast(model.device.type, torch.bfloat16):
            _, per_row, _, right = loss_of(model, batch, patches(batch, 1.0)[0])
        for kind, a, b in zip(batch.kinds, per_row.tolist(), right.tolist(), strict=True):
            s = sums.setdefault(kind, [0.0, 0.0, 0.0])
            for i, v in enumerate((a, b, 1.0)):
                s[i] += v
    return "  ".join(f"{k} {a / n:.3f}/{b / n:.3f}" for k, (a, b, n) in sorted(sums.items()))


def run(
    model: PeftModel,
    make: Callable[[int], Iterator[Batch]],
    *,
    minutes: float,
    lr: float,
    out: Path,
    workers: int = 0,
    patches: Callable[[Batch, float], tuple[torch.Tensor, torch.Tensor | float]] | None = None,
    extra: dict[torch.nn.Parameter, float] | None = None,
    save: Callable[[], None] | None = None,
    held: list[Batch] | None = None,
) -> None:
    """Train for `minutes` with a linear warm-up and decay in time; a checkpoint every three minutes. In several
    processes (`ranks`) the first one keeps and prints.

    `make(epoch)` gives an epoch's batches; `patches` turns the pages of a batch, at a share of the time, into
    embeddings and a loss of its own; `extra` are further parameters, each with its learning rate; `workers` processes
    prepare batches (0: this one, which is enough for a CPU); `held` batches are looked at with every checkpoint.
    """
    if model.device.type == "cpu":  # for a few hundred tokens an eighth of a step faster than the fused kernel
        inner = model.base_model.model
        inner.config._attn_implementation = inner.model.config._attn_implementation = "eager"
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(
        [{"params": params, "base": lr}, *({"params": [p], "base": rate} for p, rate in (extra or {}).items())],
        lr=lr,
        weight_decay=0.0,
        betas=(0.9, 0.98),
    )

    def keep() -> None:
        if ranks.rank():
            return
        model.save_pretrained(str(out))
        if save:
            save()
        if held and patches:
            print(f"held out: {check(model, held, patches)}", flush=True)

    loader = DataLoader(Epochs(make), batch_size=None, num_workers=workers)
    meter, start, step, tokens, saved, p = Meter(), time.time(), 0, 0, time.time(), 0.0
    every = [*params, *(extra or [])]
    for batch in loader:
        if p >= 1:
            break
        for g in opt.param_groups:
            g["lr"] = g["base"] * min(1.0, (step + 1) / 40) * (1 - p) + 1e-7
        with torch.autocast(model.device.type, torch.bfloat16):
            seen, own = patches(batch, p) if patches and batch.pages is not None else (None, 0.0)
            loss, per_row, right, _ = loss_of(model, batch, seen)
            loss = loss + own
        opt.zero_grad()
        loss.backward()
        p = ranks.average(every, (time.time() - start) / (60 * minutes))
        torch.nn.utils.clip_grad_norm_(every, 1.0)
        opt.step()
        step, tokens = step + 1, tokens + sum(map(len, batch.ids))
        for kind, a, b in zip(batch.kinds, per_row.tolist(), right.tolist(), strict=True):
            meter.add(kind, a, b)
        if step % 20 == 0 and not ranks.rank():
            rate = tokens / (time.time() - start)
            print(f"step {step} {60 * minutes * p:.0f} s {rate * ranks.world():.0f} tok/s  {meter.show()}", flush=True)
        if time.time() - saved > 180:
            saved = time.time()
            keep()
    keep()
    ranks.leave()

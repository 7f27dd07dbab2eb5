"""A trained detector with fewer heads and feed-forward units, to be trained on from there.

    python -m training.detector.slim --model runs/detector/first --rows runs/detector/told/rows.jsonl \
        --heads 4 --units 384 --out runs/detector/slim

In every layer but the last, of which only the first token is read, the heads and units that matter least are silenced:
their weights become zero, stay zero however long the model is trained (a silent unit's gradients are zero, too), and
`eyelid.train.bert_graph` leaves them out. A head or unit matters by the mean size of its output times the gradient of
the verdict, i.e. by what the verdict would change without it, to first order (Michel et al. 2019, section 4.1).
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eyelid.detectors.scorers.hf import Reader

from .evaluate import read

#: Tokens of a text on which importance is measured.
LENGTH = 128


def importance(model: Any, inputs: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer, how much each head [heads] and each feed-forward unit [units] matters, on average over `inputs`,
    token ids [1, tokens] each."""
    layers = model.bert.encoder.layer
    heads = model.config.num_attention_heads
    seen: dict[Any, torch.Tensor] = {}
    places = [m for layer in layers for m in (layer.attention.output.dense, layer.output.dense)]

    def keep(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        given[0].retain_grad()
        seen[module] = given[0]

    hooks = [place.register_forward_pre_hook(keep) for place in places]
    sums = [torch.zeros(p.in_features) for p in places]
    for one in inputs:
        model.zero_grad()
        model(input_ids=one).logits.sum().backward()
        for i, place in enumerate(places):
            told = seen[place]
            assert told.grad is not None
            effect = (told.detach() * told.grad).sum((0, 1))
            if i % 2 == 0:  # a head's numbers stand or fall together
                effect = effect.view(heads, -1).sum(1).repeat_interleave(effect.numel() // heads)
            sums[i] += effect.abs() / len(inputs)
    for hook in hooks:
        hook.remove()
    size = model.config.hidden_size // heads
    return [(sums[2 * i][::size], sums[2 * i + 1]) for i in range(len(layers))]


@torch.no_grad()
def silence(
    model: Any, matters: Sequence[tuple[torch.Tensor, torch.Tensor]], heads: int, units: int, layers: int
) -> None:
    """In the first `layers`, keep the `heads` and `units` that matter most, and make the others' weights zero."""
    size = model.config.hidden_size // model.config.num_attention_heads
    for layer, (head, unit) in list(zip(model.bert.encoder.layer, matters, strict=True))[:layers]:
        for worth, count, width, into, out in (
            (head, heads, size, layer.attention.self.value, layer.attention.output.dense),
            (unit, units, 1, layer.intermediate.dense, layer.output.dense),
        ):
            kept = torch.zeros_like(worth)
            kept[worth.topk(count).indices] = 1
            print(
                f"kept {worth[kept.bool()].sum() / worth.sum():.1%} of what {len(worth)} do, with {count}", flush=True
            )
            mask = kept.repeat_interleave(width)
            into.weight *= mask[:, None]
            into.bias *= mask
            out.weight *= mask


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", type=Path, required=True, help="what `eyelid train detector` saved")
    a.add_argument("--rows", type=Path, required=True, help="rows.jsonl of training.detector.teacher label")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--heads", type=int, default=4)
    a.add_argument("--units", type=int, default=384)
    a.add_argument("--texts", type=int, default=300, help="rows on which importance is measured")
    o = a.parse_args()
    torch.set_num_threads(1)
    o.out.mkdir(parents=True, exist_ok=True)
    found = read(o.rows)
    model = AutoModelForSequenceClassification.from_pretrained(o.model).eval()
    some = random.Random(0).sample(found, min(o.texts, len(found)))
    reader = Reader(AutoTokenizer.from_pretrained(o.model))
    inputs = [torch.tensor([reader.encode([(r.question, r.answer)])["input_ids"][0][:LENGTH]]) for r in some]
    silence(model, importance(model, inputs), o.heads, o.units, model.config.num_hidden_layers - 1)
    model.save_pretrained(o.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(o.model / name, o.out / name)


if __name__ == "__main__":
    main()

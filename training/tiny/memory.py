"""A memory on top of the tower: one more layer, wide and without attention, that turns what is seen into words.

What a finished tower says of a word lies close together (its mean over some dozens of patches tells three words of four
apart), but far from the word's embedding, and a projector that learns to go there by gradients alone takes longer than
the tower did. So the layer begins as a table: a unit for each of the commonest word pieces fires near its mean
(whitened by how patches of one piece differ, as in Fisher's discriminant), and writes the embedding's main components.
Runtimes run it as an encoder layer whose attention says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

#: A memory's parts as parts of an encoder layer.
LAYER = {"norm": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}

#: Of a unit: where it begins to fire, in cosines, and how fast it rises from there.
THRESHOLD, SLOPE = 0.5, 30.0
#: Length of what the memory writes, in lengths of the tower's own output, which stays below it as a small disturbance.
LOUD = 10.0
#: Length of a blank's embedding, in its own length, that is said where hardly a unit fires.
EMPTY = 0.2


class Memory(nn.Module):
    """(..., hidden) -> (..., hidden): input plus what its units write."""

    def __init__(self, hidden: int, units: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-5)
        self.fc1 = nn.Linear(hidden, units)
        self.fc2 = nn.Linear(units, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.fc2(F.gelu(self.fc1(self.norm(x)), approximate="tanh"))
        return out


def as_layer(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of an encoder layer that does what a memory of that `state` does; neither with a prefix."""
    hidden = state["fc1.weight"].shape[1]
    out = {"layer_norm1.weight": torch.ones(hidden), "layer_norm1.bias": torch.zeros(hidden)}
    for part in ("q", "k", "v", "out"):
        out[f"self_attn.{part}_proj.weight"] = torch.zeros(hidden, hidden)
        out[f"self_attn.{part}_proj.bias"] = torch.zeros(hidden)
    return out | {f"{LAYER[k.split('.')[0]]}.{k.split('.')[1]}": t for k, t in state.items()}


def from_layer(layer: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`as_layer`. Raises ValueError for a layer whose attention says something."""
    if layer["self_attn.out_proj.weight"].any() or layer["self_attn.out_proj.bias"].any():
        raise ValueError("a layer with attention is no memory")
    return {
        f"{ours}.{kind}": layer[f"{theirs}.{kind}"] for ours, theirs in LAYER.items() for kind in ("weight", "bias")
    }


@torch.no_grad()
def tabulate(
    features: torch.Tensor, pieces: torch.Tensor, embeddings: torch.Tensor, projector: nn.Module, units: int
) -> Memory:
    """The memory of (N, hidden) `features` of patches with those (N,) `pieces`; `projector` is made to read it.

    `embeddings`: (classes, text), class 0 for patches without a piece. Pieces beyond the `units` commonest have none.
    """
    x = features.float()
    hidden, count = x.shape[1], torch.bincount(pieces, minlength=len(embeddings))
    u = F.layer_norm(x, (hidden,))
    means = torch.zeros(len(embeddings), hidden).index_add_(0, pieces, u) / count.clamp(min=1).unsqueeze(1)
    often = (count[pieces] > 3) & (pieces > 0)
    apart = (u - means[pieces])[often]
    values, vectors = torch.linalg.eigh(apart.T @ apart / len(apart))
    whiten = vectors @ torch.diag((values + 0.01 * values.mean()).rsqrt()) @ vectors.T
    middle = u[pieces > 0].mean(0)
    kept = 1 + count[1:].argsort(descending=True)[:units]
    kept = kept[count[kept] > 0]
    # A rare piece's mean is drawn to the middle, by one patch.
    own = (means[kept] * count[kept, None] + middle) / (count[kept, None] + 1)
    keys = F.normalize((own - middle) @ whiten, dim=-1) @ whiten
    keys = keys / ((u[pieces > 0][:20000] - middle) @ whiten).norm(dim=-1).mean()

    memory = Memory(hidden, units)
    memory.fc1.weight[: len(kept)] = SLOPE * keys
    memory.fc1.bias[: len(kept)] = -SLOPE * (keys @ middle + THRESHOLD)
    # What is written are components of the embeddings, the main ones for the pieces as often as they come.
    weight = count[kept].float().sqrt().unsqueeze(1)
    basis = torch.linalg.svd(weight * embeddings[kept], full_matrices=False).Vh[:hidden]
    codes = embeddings[kept] @ basis.T
    loud = LOUD * x.norm(dim=-1).mean() / codes.norm(dim=-1).mean()
    memory.fc2.weight.zero_()
    memory.fc2.bias.zero_()
    usual = SLOPE * 0.25  # of a unit that fires for its piece
    memory.fc2.weight[: len(basis), : len(kept)] = loud / usual * codes.T

    # GELU(a) - GELU(-a) = a: a projector with twice as many units as components is as good as linear.
    first, last = projector.linear_1, projector.linear_2
    for part in (first, last):
        nn.init.normal_(part.weight, std=0.002)
        part.bias.zero_()
    size = min(len(basis), first.out_features // 2)
    first.weight[: 2 * size] = torch.cat([torch.eye(hidden)[:size], -torch.eye(hidden)[:size]]) / loud
    last.weight[:, : 2 * size] = torch.cat([basis[:size], -basis[:size]]).T
    last.bias.copy_(EMPTY * embeddings[0])
    return memory

"""A memory on top of the tower: layers without attention that turn what is seen of a word into the word.

The first (narrow) one makes out letters clearly, the last (wide) one has a unit for each of the commonest word pieces,
which fires where its letters are and writes the embedding's main components; `lexicon.py` makes both. Runtimes run
them as encoder layers whose attention says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

#: A layer's parts as parts of an encoder layer.
LAYER = {"norm": "layer_norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class Wide(nn.Module):
    """(..., hidden) -> (..., hidden): input plus what its units write."""

    def __init__(self, hidden: int, units: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-5)
        self.fc1 = nn.Linear(hidden, units)
        self.fc2 = nn.Linear(units, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.fc2(F.gelu(self.fc1(self.norm(x)), approximate="tanh"))
        return out


class Memory(nn.Sequential):
    """Layers of those `units` each, one after another."""

    def __init__(self, hidden: int, units: Sequence[int]):
        super().__init__(*(Wide(hidden, n) for n in units))

    @classmethod
    def like(cls, state: Mapping[str, torch.Tensor]) -> Memory | None:
        """An empty memory for the tensors `memory.*` of a `state`, None where it has none."""
        shapes = []
        while (found := state.get(f"memory.{len(shapes)}.fc1.weight")) is not None:
            shapes.append(found.shape)
        return cls(shapes[0][1], [units for units, _ in shapes]) if shapes else None


def as_layers(state: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The tensors of encoder layers that do what a memory of that `state` does; neither with a prefix."""
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, t in state.items():
        number, part, kind = name.split(".")
        layers.setdefault(int(number), {})[f"{LAYER[part]}.{kind}"] = t
    for layer in layers.values():
        hidden = layer["mlp.fc1.weight"].shape[1]
        layer |= {"layer_norm1.weight": torch.ones(hidden), "layer_norm1.bias": torch.zeros(hidden)}
        for part in ("q", "k", "v", "out"):
            layer[f"self_attn.{part}_proj.weight"] = torch.zeros(hidden, hidden)
            layer[f"self_attn.{part}_proj.bias"] = torch.zeros(hidden)
    return [layers[n] for n in sorted(layers)]


def silent(layer: Mapping[str, torch.Tensor]) -> bool:
    """Whether the attention of an encoder layer says nothing, so that it can be one of a memory's."""
    return not (layer["self_attn.out_proj.weight"].any() or layer["self_attn.out_proj.bias"].any())


def from_layers(layers: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`as_layers`. Raises ValueError for a layer whose attention says something."""
    out = {}
    for n, layer in enumerate(layers):
        if not silent(layer):
            raise ValueError("a layer with attention is no memory")
        for ours, theirs in LAYER.items():
            out |= {f"{n}.{ours}.{kind}": layer[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return out

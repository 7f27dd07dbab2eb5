"""The vision tower, LLaVA's projector, and the heads that only training needs.

The tower is a SigLIP-type ViT: CLIP without class token and without the norm before the first layer. With a class token
llama.cpp gives every patch its neighbour's position, so that no tower has the same output there and in Transformers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from .labels import ALPHABET, LETTERS, SLOTS
from .memory import Memory
from .pages import PATCH, SIZE
from .pictures import THINGS

#: llama.cpp computes GELU by the tanh formula; training with the same keeps the runtimes in parity.
ACTIVATION = "gelu_pytorch_tanh"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: Factor on cosines before the softmax. At 100 a patch's right piece has to be the nearest, no more, and a tower learns
#: to read soonest; at 30 only a high cosine is a confident answer, and a language model can read what comes out.
SHARPNESS = 100.0
#: Learning rate of a memory's first layer, in that of its last, whose weights are as many times larger.
CLEARLY = 0.2


def vision_config(hidden: int = 256, layers: int = 6, units: int | None = None) -> SiglipVisionConfig:
    """A tower of that shape: one attention head for every 64 of its width, `units` in each MLP (default 4 * hidden)."""
    return SiglipVisionConfig(
        hidden_size=hidden,
        intermediate_size=units or 4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        image_size=SIZE,
        patch_size=PATCH,
        hidden_act=ACTIVATION,
        attention_dropout=0.0,
        layer_norm_eps=1e-5,
        vision_use_head=False,
    )


def config_of(state: Mapping[str, torch.Tensor]) -> SiglipVisionConfig:
    """The shape of a tower, read off its tensors (`embeddings.*`, `encoder.layers.N.*`, after any prefix); where layers
    differ, the widest MLP's."""
    found = {k: v.shape for k, v in state.items()}
    pick = lambda end: next(v for k, v in found.items() if k.endswith(end))  # noqa: E731
    layers = 1 + max(int(m[1]) for k in found if (m := re.search(r"encoder\.layers\.(\d+)\.", k)))
    width = pick("embeddings.position_embedding.weight")[1]
    units = max(v[0] for k, v in found.items() if k.endswith("mlp.fc1.weight"))
    return vision_config(width, layers, units)


class Projector(nn.Module):
    """LLaVA's two-layer MLP, tower width -> language-model width."""

    def __init__(self, hidden: int, text: int):
        super().__init__()
        self.linear_1 = nn.Linear(hidden, text)
        self.act = nn.GELU(approximate="tanh")
        self.linear_2 = nn.Linear(text, text)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(x)))


class Reader(nn.Module):
    """Tower + projector + dense heads: characters, spelled words, things, and pieces against frozen embeddings."""

    def __init__(self, config: SiglipVisionConfig, embeddings: torch.Tensor):
        super().__init__()
        config._attn_implementation = "eager"  # for a hundred patches faster on a CPU than the fused kernel
        self.tower = SiglipVisionModel(config)
        self.memory: Memory | None = None
        self.projector = Projector(config.hidden_size, embeddings.shape[1])
        n = len(ALPHABET)
        self.chars = nn.Linear(config.hidden_size, SLOTS * n)
        self.spelled = nn.Linear(config.hidden_size, LETTERS * n)
        self.things = nn.Linear(config.hidden_size, len(THINGS) + 1)
        self.register_buffer("embeddings", embeddings, persistent=False)

    @classmethod
    def load(cls, path: Path, embeddings: torch.Tensor) -> Reader:
        """The reader of a stage's checkpoint; the tower's shape is read off its tensors."""
        state = torch.load(path, map_location="cpu")["model"]
        reader = cls(config_of(state), embeddings)
        reader.remember(state)
        state = {**{k: v for k, v in reader.state_dict().items() if k.startswith("things.")}, **state}
        reader.load_state_dict(state)  # a checkpoint from before there were things gets a head that has to learn
        return reader

    def remember(self, state: Mapping[str, torch.Tensor]) -> None:
        """Get the (empty) memory that a `state` has, if it has one."""
        self.memory = Memory.like(state)

    @torch.no_grad()
    def grown(self, layers: int, units: int) -> Reader:
        """The same reader with more layers on top and wider MLPs, which says exactly what it said before.

        New units and layers begin with outputs of zero, so that training goes on where it was, with room to learn.
        """
        old = self.tower.config
        if layers < old.num_hidden_layers or units < old.intermediate_size:
            raise ValueError(f"a tower of {old.num_hidden_layers} layers and {old.intermediate_size} units only grows")
        new = Reader(vision_config(old.hidden_size, layers, units), self.embeddings)
        new.memory = copy.deepcopy(self.memory)
        mine = self.state_dict()
        for name, t in new.state_dict().items():
            if name not in mine:  # of a new layer: what it adds to its input is nothing
                if re.search(r"(out_proj|fc2)\.(weight|bias)$", name):
                    t.zero_()
            elif t.shape == mine[name].shape:
                t.copy_(mine[name])
            else:
                if name.endswith("fc2.weight"):
                    t.zero_()
                t[tuple(slice(n) for n in mine[name].shape)] = mine[name]
        return new

    def seen(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, 320, 320) -> (B, 100, hidden): the last layer but the memory."""
        return self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, 320, 320) -> (B, 100, hidden): the last layer before its norm, as LLaVA takes it."""
        seen = self.seen(pixels)
        return seen if self.memory is None else self.memory(seen)

    def says(self, seen: torch.Tensor) -> torch.Tensor:
        """(..., hidden) of `seen` -> (..., text): what the language model gets."""
        told: torch.Tensor = self.projector(seen if self.memory is None else self.memory(seen))
        return told

    def rates(self, lr: float) -> list[tuple[nn.Module, float]]:
        """What stands between tower and language model, each part with its learning rate; `lr` is the last layer's.

        A memory writes loudly and the projector that reads it has small weights: rates in proportion to the weights
        that each part begins with, or the smallest would be noise after one step.
        """
        if self.memory is None:
            return [(self.projector, lr)]
        *clear, wide = self.memory
        parts: list[tuple[nn.Module, float]] = [(layer, CLEARLY * lr) for layer in clear]
        return [*parts, (wide, lr), (self.projector.linear_1, 0.02 * lr), (self.projector.linear_2, 0.1 * lr)]

    def piece_logits(self, projected: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        """(N, text) -> (N, len(among)): cosine to each embedding.

        Cosine and not distance: a distance is won by length alone, and vectors many times as long as word embeddings
        came out that the language model could hardly work on.
        """
        # The most multiplications of all losses; in half precision where the caller computes in it, which is off by up
        # to 0.004 of the cosine: noise that training stands, and that who counts hits must not have.
        return F.linear(F.normalize(projected, dim=-1), F.normalize(self.embeddings[among], dim=-1)).float()

    def misfit(self, projected: torch.Tensor) -> torch.Tensor:
        """Squared relative error of the length, which the cosine leaves free: it should be that of word embeddings."""
        usual = self.embeddings.norm(dim=-1).mean()
        return (projected.norm(dim=-1) / usual - 1).square().mean()

    def piece_loss(
        self, projected: torch.Tensor, pieces: torch.Tensor, negatives: int, near: float, sharpness: float = SHARPNESS
    ) -> torch.Tensor:
        """(N, text), (N,) -> the loss of naming each patch's piece among the batch's and `negatives` others.

        `near` weighs the distance in angle: a patch can be nearest to its word and yet point elsewhere, with a cosine
        of 0.2, and then the language model has to learn a language of its own.
        """
        others = torch.randint(0, len(self.embeddings), (negatives,), device=pieces.device)
        among = torch.cat([pieces, others]).unique()
        cosines = (F.normalize(projected, dim=-1) * F.normalize(self.embeddings[pieces], dim=-1)).sum(-1)
        named = F.cross_entropy(sharpness * self.piece_logits(projected, among), torch.searchsorted(among, pieces))
        return named + near * (1 - cosines).mean() + self.misfit(projected)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W), CLIP's mean and deviation."""
    mean, deviation = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return images.permute(0, 3, 1, 2) * (1 / (255 * deviation)) - mean / deviation

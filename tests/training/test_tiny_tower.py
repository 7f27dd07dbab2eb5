"""A tower grows without forgetting, and processes that train together stay the same."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="training needs the extra `train`")

import torch
from transformers import SiglipVisionModel

from training.tiny import ranks, refit, see
from training.tiny.export import _filled, split_reader
from training.tiny.memory import from_layer, tabulate
from training.tiny.tower import Reader, config_of, vision_config


def reader(layers: int = 2, units: int = 128) -> Reader:
    torch.manual_seed(0)
    return Reader(vision_config(64, layers, units), torch.randn(30, 48))


def test_a_grown_tower_says_the_same_and_has_room_to_learn() -> None:
    small, pixels = reader(), torch.randn(1, 3, 320, 320)
    large = small.grown(4, 256)
    with torch.no_grad():
        assert torch.equal(large.projector(large.features(pixels)), small.projector(small.features(pixels)))
    assert large.tower.config.num_hidden_layers == 4
    large.projector(large.features(pixels)).square().mean().backward()
    new = large.tower.encoder.layers
    assert new[3].mlp.fc2.weight.grad.abs().max() > 0, "a new layer learns"
    assert new[0].mlp.fc2.weight.grad[:, 128:].abs().max() > 0, "new units learn"


def test_a_tower_only_grows() -> None:
    with pytest.raises(ValueError, match="2 layers and 128 units only grows"):
        reader().grown(1, 128)


def test_a_towers_shape_is_read_off_its_tensors() -> None:
    c = config_of(reader(3, 192).state_dict())
    assert (c.num_hidden_layers, c.intermediate_size, c.hidden_size) == (3, 192, 64)


def test_one_process_alone_changes_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.full((2,), 3.0)
    assert ranks.average([p], 0.25) == 0.25
    assert p.grad.tolist() == [3.0, 3.0]


MEET = """
import torch
from training.tiny import ranks, refit
ranks.join()
a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
a.grad = torch.tensor([1.0, 2.0]) * (ranks.rank() + 1)
if ranks.rank():
    b.grad = torch.tensor([4.0])
share = ranks.average([a, b], 0.1 + 0.5 * ranks.rank())
print(ranks.world(), a.grad.tolist(), b.grad.tolist(), round(share, 3), flush=True)
ranks.leave()
"""


@pytest.mark.real
def test_two_processes_average_and_stop_by_the_furthest_clock(tmp_path: Path) -> None:
    (tmp_path / "meet.py").write_text(MEET)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [*command, str(tmp_path / "meet.py")],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines() == ["2 [1.5, 3.0] [2.0] 0.6"] * 2


def a_reader_that_remembers() -> tuple[Reader, refit.Seen]:
    """With what a tower has seen that sees each piece in one way, with a little noise, and a blank in many."""
    r = reader()
    pieces = torch.arange(30).repeat(40)
    shown = torch.randn(30, 64)[pieces]
    shown[pieces == 0] = torch.randn(40, 64)
    seen = (shown + 0.1 * torch.randn_like(shown), pieces, torch.zeros_like(pieces))
    r.memory = tabulate(seen[0], pieces, r.embeddings, r.projector, 40)
    return r, seen


def test_a_memory_begins_as_a_table_and_learns_to_point_at_the_embeddings() -> None:
    r, seen = a_reader_that_remembers()
    cosine, nearest = refit.told(r, seen)["figstep"]
    assert cosine > 0.9
    assert nearest > 0.9
    o = Namespace(lr=1e-2, minutes=0, steps=300, patches=128, negatives=20, near=4.0, sharpness=30.0)
    assert refit.fit(r, seen, o) == 300
    after = refit.told(r, seen)
    assert 1 - after["figstep"][0] < 0.7 * (1 - cosine)
    assert after["gaps"][1] > 0.8


def test_a_tower_learns_along_with_its_memory_each_at_its_own_rate() -> None:
    r, _ = a_reader_that_remembers()
    groups = see.rated(r, Namespace(lr=1e-3, memory_lr=1e-2))
    every = [p for group in groups for p in group["params"]]
    assert len(every) == len({id(p) for p in every}) == len(list(r.parameters()))
    rate = {id(p): (g["base"], g.get("weight_decay")) for g in groups for p in g["params"]}
    assert r.memory is not None
    assert rate[id(r.memory.fc1.weight)] == (1e-2, 0.0)
    assert rate[id(r.chars.weight)] == (1e-3, None)
    r.memory = None
    (alone,) = see.rated(r, Namespace(lr=1e-3, memory_lr=1e-2))
    assert alone["base"] == 1e-3


def test_a_memory_is_an_encoder_layer_without_attention_and_back() -> None:
    r, _ = a_reader_that_remembers()
    tower, _ = split_reader(r.state_dict())
    pixels = torch.rand(1, 3, 320, 320)
    wide = SiglipVisionModel(config_of(tower)).eval()
    assert wide.config.intermediate_size == 128  # the first layers' MLPs are wider here than the memory
    wide.load_state_dict({k: _filled(k, v, 128) for k, v in tower.items()})
    with torch.no_grad():
        as_layer_ = wide(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(as_layer_, r.eval().features(pixels), atol=2e-3)
    last = {k.removeprefix("encoder.layers.2."): v for k, v in tower.items() if k.startswith("encoder.layers.2.")}
    back = from_layer(last)
    assert all(torch.equal(back[k], v) for k, v in r.memory.state_dict().items())
    with pytest.raises(ValueError, match="a layer with attention is no memory"):
        from_layer({k.removeprefix("encoder.layers.1."): v for k, v in tower.items() if ".layers.1." in k})

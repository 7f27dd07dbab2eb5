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

from training.tiny import ranks, see
from training.tiny.memory import Memory, from_layers
from training.tiny.mmproj import filled, split_reader
from training.tiny.tower import CLEARLY, Reader, config_of, vision_config


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
import pathlib

import torch
from training.tiny import ranks
ranks.join()
a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
a.grad = torch.tensor([1.0, 2.0]) * (ranks.rank() + 1)
if ranks.rank():
    b.grad = torch.tensor([4.0])
share = ranks.average([a, b], 0.1 + 0.5 * ranks.rank())
told = f"{ranks.world()} {a.grad.tolist()} {b.grad.tolist()} {share:.3f}"
(pathlib.Path(__file__).parent / f"{ranks.rank()}.txt").write_text(told)  # not on one pipe: lines may run together
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
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["2 [1.5, 3.0] [2.0] 0.600"] * 2


def a_reader_that_remembers() -> Reader:
    r = reader()
    torch.manual_seed(1)
    r.memory = Memory(64, [100, 40])
    return r


def test_a_tower_learns_along_with_its_memory_each_at_its_own_rate() -> None:
    r = a_reader_that_remembers()
    groups = see.rated(r, Namespace(lr=1e-3, memory_lr=1e-2))
    every = [p for group in groups for p in group["params"]]
    assert len(every) == len({id(p) for p in every}) == len(list(r.parameters()))
    rate = {id(p): (g["base"], g.get("weight_decay")) for g in groups for p in g["params"]}
    assert r.memory is not None
    clear, wide = r.memory
    assert rate[id(wide.fc1.weight)] == (1e-2, 0.0)
    assert rate[id(clear.fc1.weight)] == (CLEARLY * 1e-2, 0.0)
    assert rate[id(r.chars.weight)] == (1e-3, None)
    r.memory = None
    (alone,) = see.rated(r, Namespace(lr=1e-3, memory_lr=1e-2))
    assert alone["base"] == 1e-3


def test_a_memory_is_encoder_layers_without_attention_and_back() -> None:
    r = a_reader_that_remembers()
    tower, _ = split_reader(r.state_dict())
    pixels = torch.rand(1, 3, 320, 320)
    wide = SiglipVisionModel(config_of(tower)).eval()
    assert wide.config.num_hidden_layers == 4
    assert wide.config.intermediate_size == 128  # the first layers' MLPs are wider here than the memory's
    wide.load_state_dict({k: filled(k, v, 128) for k, v in tower.items()})
    of = lambda n: {k.removeprefix(f"encoder.layers.{n}."): v for k, v in tower.items() if f".layers.{n}." in k}  # noqa: E731
    back, was = from_layers([of(2), of(3)]), r.memory.state_dict()
    assert back.keys() == was.keys()
    assert all(torch.allclose(back[k], v, atol=float(v.abs().max()) / 220) for k, v in was.items()), (
        "eight bits of each"
    )
    r.memory.load_state_dict(back)
    with torch.no_grad():
        as_layers_ = wide(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(as_layers_, r.eval().features(pixels), atol=1e-4)
        assert not torch.allclose(as_layers_, r.seen(pixels), atol=1e-1), "the memory adds something"
    with pytest.raises(ValueError, match="a layer with attention is no memory"):
        from_layers([of(1)])

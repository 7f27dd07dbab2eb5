"""Training goes on from what ships: the files' tensors come back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("peft", reason="training needs the extra `train`")

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from training.tiny.export import Lora, write_lora
from training.tiny.lora import new_adapter
from training.tiny.memory import Memory
from training.tiny.mmproj import split_reader, write_mmproj
from training.tiny.restore import reader_state, write_adapter
from training.tiny.tower import Reader, vision_config

# PEFT asks Transformers for a name that it will drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

HEADS, KV_HEADS, WIDTH = 4, 2, 32


def language() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
        )
    ).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A PEFT folder of an adapter that does something, and what the model says with it."""
    model = new_adapter(language(), 4)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(str(tmp_path / "old"))
    assert not torch.allclose(logits(model), logits(language()), atol=1e-2)
    return tmp_path / "old", logits(model)


def test_an_adapter_comes_back_out_of_the_file_that_ships(trained: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    old, said = trained
    write_lora(Lora.load(old), tmp_path / "see.gguf", heads=HEADS, kv_heads=KV_HEADS)
    write_adapter(tmp_path / "see.gguf", tmp_path / "back", heads=HEADS, kv_heads=KV_HEADS)
    model = PeftModel.from_pretrained(language(), str(tmp_path / "back"))
    assert torch.allclose(logits(model), said, atol=2e-2)  # float16


@pytest.mark.parametrize("units", [[], [320], [256, 320]])
def test_tower_memory_and_projector_come_back_out_of_the_file_that_ships(units: list[int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = Reader(vision_config(64, 2), torch.randn(3, WIDTH))
    if units:
        reader.memory = Memory(64, units)
    state = reader.state_dict()
    write_mmproj(*split_reader(state), tmp_path / "mmproj.gguf")
    found = reader_state(tmp_path / "mmproj.gguf")
    unused = ("chars.", "spelled.", "things.", "tower.post_layernorm.")
    assert found.keys() == {k for k in state if not k.startswith(unused)}
    for name, t in found.items():
        assert t.shape == state[name].shape, name
        eight = name.startswith("memory.") and t.dim() > 1
        assert torch.allclose(t, state[name], atol=float(t.abs().max()) / 220 if eight else 1e-3), name
    write_mmproj(*split_reader(found), tmp_path / "again.gguf")
    again = reader_state(tmp_path / "again.gguf")
    assert all(torch.equal(t, found[name]) for name, t in again.items()), "what eight bits had, they have again"


def test_a_file_of_another_kind_is_refused(trained: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    write_lora(Lora.load(trained[0]), tmp_path / "see.gguf", heads=HEADS, kv_heads=KV_HEADS)
    with pytest.raises(ValueError, match="no tensor of a SigLIP-shaped tower"):
        reader_state(tmp_path / "see.gguf")


def test_a_foreign_tensor_is_no_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    save_file({"base_model.model.vision.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"lora_alpha": 4, "r": 2}')
    with pytest.raises(ValueError, match="low-rank"):
        Lora.load(folder)

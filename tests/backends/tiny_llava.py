"""A small real LLaVA checkpoint for tests: SmolLM2-135M's weights, a tower and projector with fixed random weights.

Built in seconds, once a test run, by the same code that exports the embedded model: as a Transformers directory, as an
mmproj GGUF beside the package's own GGUF, and with two LoRA adapters in both forms.
"""

from __future__ import annotations

import atexit
import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from training.tiny.export import LINEAR, Base, Lora, read_base, write_hf, write_lora
from training.tiny.language import gguf_path
from training.tiny.memory import Memory
from training.tiny.mmproj import split_reader, write_mmproj
from training.tiny.tower import ACTIVATION, Projector

#: Nine patches an image: enough to test with, and quick.
SIZE = 96
ALPHA, RANK = 8.0, 2
ADAPTERS = ("first", "second")


@dataclass(frozen=True)
class TinyLlava:
    hf: Path
    gguf: Path
    mmproj: Path
    peft: dict[str, Path]
    loras: dict[str, Path]


@functools.cache
def build() -> TinyLlava:
    """Write all files into a temporary folder, removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="eyelid-tiny-llava-")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    base = read_base()
    tower, projector, config = _eyes(base.config.hidden_size)
    made = TinyLlava(
        root / "hf",
        gguf_path(),
        root / "mmproj.gguf",
        {name: root / name for name in ADAPTERS},
        {name: root / f"{name}.gguf" for name in ADAPTERS},
    )
    write_mmproj(tower, projector, made.mmproj, config)
    write_hf(tower, projector, made.hf, base=base, config=config, dtype=torch.float16)
    for seed, name in enumerate(ADAPTERS):
        _write_peft(base, seed, made.peft[name])
        write_lora(Lora.load(made.peft[name]), made.loras[name])
    return made


def _eyes(width: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], SiglipVisionConfig]:
    """Two layers and, as the embedded model has it, a memory: two more without attention, one of them wider."""
    shape = {"num_attention_heads": 4, "image_size": SIZE, "patch_size": 32, "hidden_size": 64}
    shape |= {"hidden_act": ACTIVATION, "layer_norm_eps": 1e-5, "vision_use_head": False}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = SiglipVisionModel(SiglipVisionConfig(**shape, intermediate_size=128, num_hidden_layers=2))
        parts = {"tower": tower, "memory": Memory(64, [128, 320]), "projector": Projector(64, width)}
    state = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    config = SiglipVisionConfig(**shape, intermediate_size=320, num_hidden_layers=4)
    return *split_reader(state), config


def _write_peft(base: Base, seed: int, folder: Path) -> None:
    """A random adapter of the language model's linear layers, as PEFT saves one trained on a LLaVA model."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, w in base.state.items():
        layer = name.removesuffix(".weight")
        if any(layer.endswith(f".{linear}") for linear in LINEAR):
            out, width = w.shape
            key = f"base_model.model.model.language_model.{layer}"
            state[f"{key}.lora_A.weight"] = torch.randn(RANK, width, generator=random) / width**0.5
            state[f"{key}.lora_B.weight"] = torch.randn(out, RANK, generator=random) * 0.07
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": r".*language_model.*\.(" + "|".join(k.split(".")[1] for k in LINEAR) + ")",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))

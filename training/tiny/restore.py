"""Training checkpoints out of the files that ship, so that training can go on from published weights alone.

    python -m training.tiny.restore --folder packages/eyelid-models/eyelid_models/tiny --out runs/shipped

Writes `reader.pt` (tower and projector; heads that only stage 1 has are new and know nothing) and a PEFT folder for
each adapter. The inverse of `training.tiny.export`, to float16's precision, a memory's matrices to that of eight bits.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import gguf
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from .export import LINEAR, unpermute
from .language import load_model
from .memory import from_layers, silent
from .mmproj import VISION_LAYER
from .tower import Reader, config_of


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return {
        t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()) for t in gguf.GGUFReader(path).tensors
    }


def reader_state(path: Path) -> dict[str, torch.Tensor]:
    """`tower.*`, `memory.*` and `projector.*` of a Reader out of an mmproj GGUF: last layers whose attention says
    nothing are a memory."""
    found, out = tensors(path), dict[str, torch.Tensor]()
    ours = {theirs: name for name, theirs in VISION_LAYER.items()}
    embeddings = {
        "v.patch_embd.weight": "patch_embedding.weight",
        "v.patch_embd.bias": "patch_embedding.bias",
        "v.position_embd.weight": "position_embedding.weight",
    }
    for name, t in found.items():
        if name in embeddings:
            out[f"tower.embeddings.{embeddings[name]}"] = t
        elif m := re.fullmatch(r"v\.blk\.(\d+)\.(\w+)\.(weight|bias)", name):
            out[f"tower.encoder.layers.{m[1]}.{ours[m[2]]}.{m[3]}"] = t
        elif m := re.fullmatch(r"mm\.(0|2)\.(weight|bias)", name):
            out[f"projector.linear_{1 if m[1] == '0' else 2}.{m[2]}"] = t
        else:
            raise ValueError(f"{path}: {name} is no tensor of a SigLIP-shaped tower or its projector")
    layers, memory = 1 + max(int(k.split(".")[3]) for k in out if ".layers." in k), list[dict[str, torch.Tensor]]()
    for prefix in (f"tower.encoder.layers.{n}." for n in reversed(range(layers))):
        layer = {k.removeprefix(prefix): t for k, t in out.items() if k.startswith(prefix)}
        if not silent(layer):
            break
        memory.insert(0, layer)
        out = {k: t for k, t in out.items() if not k.startswith(prefix)}
    out |= {f"memory.{k}": t for k, t in from_layers(memory).items()}
    return out


def write_adapter(path: Path, out: Path, heads: int = 9, kv_heads: int = 3) -> None:
    """A LoRA GGUF as a PEFT folder; heads default to SmolLM2-135M's. Raises ValueError for anything but one rank."""
    ours = {theirs: name for name, theirs in LINEAR.items()}
    field = gguf.GGUFReader(path).fields["adapter.lora.alpha"]
    state, ranks = dict[str, torch.Tensor](), dict[str, int]()
    for name, t in tensors(path).items():
        m = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight\.lora_([ab])", name)
        if not m:
            raise ValueError(f"{path}: {name} is no low-rank matrix")
        rotary = {"attn_q": heads, "attn_k": kv_heads}.get(m[2])
        half = m[3].upper()
        if half == "B" and rotary:
            t = unpermute(t, rotary)
        key = f"layers.{m[1]}.{ours[m[2]]}"
        state[f"base_model.model.model.{key}.lora_{half}.weight"] = t.contiguous()
        if half == "A":
            ranks[key] = t.shape[0]
    if len(set(ranks.values())) != 1:
        raise ValueError(f"{path}: ranks differ from layer to layer, and one alpha would scale them differently")
    alpha = float(field.contents())
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "adapter_model.safetensors")
    modules = sorted({k.split(".")[-1] for k in ranks})
    rank = next(iter(ranks.values()))
    LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules).save_pretrained(out)  # type: ignore[arg-type]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--folder", type=Path, required=True, help="the shipped model's files")
    a.add_argument("--out", type=Path, required=True)
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    state = reader_state(o.folder / "mmproj.gguf")
    reader = Reader(config_of(state), load_model().get_input_embeddings().weight.detach()[:1].clone())
    reader.remember(state)
    missing, unknown = reader.load_state_dict(state, strict=False)
    idle = [k for k in missing if not k.startswith(("chars.", "spelled.", "things.", "tower.post_layernorm."))]
    if idle or unknown:
        raise ValueError(f"not the tensors of a reader: {[*idle, *unknown]}")
    torch.save({"model": reader.state_dict()}, o.out / "reader.pt")
    for path in sorted(o.folder.glob("*.gguf")):
        if path.stem != "mmproj":
            write_adapter(path, o.out / path.stem)


if __name__ == "__main__":
    main()

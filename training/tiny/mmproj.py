"""Tower, memory and projector as llama.cpp's `mmproj` GGUF; its tensors are what Transformers' directory has, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from transformers import SiglipVisionConfig

from .memory import as_layers, silent
from .tower import ACTIVATION, MEAN, STD, config_of

State = Mapping[str, torch.Tensor]

VISION_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}  # fmt: skip
#: What is kept in eight bits of a memory's layers: most of the tower's numbers are there.
EIGHT_BITS = ("mlp.fc1.weight", "mlp.fc2.weight")
Q8 = gguf.GGMLQuantizationType.Q8_0


def split_reader(state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tower's and the projector's own state dicts out of a training `Reader`'s; its memory is the last layers.

    A memory's matrices have the values that eight bits can have, so that all runtimes are given the same numbers.
    (llama.cpp also rounds what it multiplies them with.)
    """
    part = lambda p: {k.removeprefix(p): v for k, v in state.items() if k.startswith(p)}  # noqa: E731
    tower, memory = part("tower."), part("memory.")
    first = config_of(tower).num_hidden_layers
    for n, layer in enumerate(as_layers(memory), first):
        for k, v in layer.items():
            eight = _eight_bits(v) if k in EIGHT_BITS else None
            tower[f"encoder.layers.{n}.{k}"] = v if eight is None else torch.from_numpy(gguf.dequantize(eight, Q8))
    return tower, part("projector.")


def _eight_bits(t: torch.Tensor) -> np.ndarray | None:
    """A matrix in blocks of 32 numbers of 8 bits with a common scale; None where its rows are no whole blocks."""
    if t.shape[-1] % 32:
        return None
    return gguf.quantize(t.detach().float().cpu().contiguous().numpy(), Q8)  # type: ignore[no-any-return]


def tower_parts(state: State, config: SiglipVisionConfig | None) -> tuple[dict[str, torch.Tensor], SiglipVisionConfig]:
    """Tensors without name prefixes, and the configuration: the given one or the usual one for tensors like these."""
    clean = {k.removeprefix("tower.").removeprefix("vision_model."): v.detach().float().cpu() for k, v in state.items()}
    if "embeddings.class_embedding" in clean:
        raise ValueError("llama.cpp misplaces a class token (its issue 25814): use a tower without one (SigLIP)")
    c = config or config_of(clean)
    if c.hidden_act != ACTIVATION:
        raise ValueError(f"llama.cpp computes GELU by the tanh formula, the tower was trained with {c.hidden_act!r}")
    return clean, c


def filled(name: str, t: torch.Tensor, units: int) -> torch.Tensor:
    """`t`, and where it belongs to a narrower MLP than `units`, filled up with units that write nothing.

    Transformers has one width for all layers; llama.cpp takes each as it is, and need not compute with zeros.
    """
    if ".mlp." not in name or name.endswith("fc2.bias"):
        return t
    missing = units - t.shape[-1 if name.endswith("fc2.weight") else 0]
    return F.pad(t, (0, missing) if name.endswith("fc2.weight") or t.dim() == 1 else (0, 0, 0, missing))


def write_mmproj(tower: State, projector: State, path: Path, config: SiglipVisionConfig | None = None) -> None:
    """Write tower and projector as llama.cpp's `mmproj` GGUF: a memory's matrices of 8 bits, others float16, everything
    else float32.

    `config` is needed only where it is not the usual one for these sizes (it says how many heads there are). The last
    layer's output is taken and the last norm is left out, as with `vision_feature_layer=-1`.
    """
    state, c = tower_parts(tower, config)
    layers = c.num_hidden_layers
    w = gguf.GGUFWriter(path, "clip")
    w.add_type("mmproj")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "mlp")
    w.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": c.image_size, "patch_size": c.patch_size, "embedding_length": c.hidden_size,
        "feed_forward_length": c.intermediate_size, "projection_dim": c.hidden_size, "block_count": layers,
        "attention.head_count": c.num_attention_heads,
    }.items():  # fmt: skip
        w.add_uint32(f"clip.vision.{key}", value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", c.layer_norm_eps)
    w.add_array("clip.vision.image_mean", list(MEAN))
    w.add_array("clip.vision.image_std", list(STD))
    w.add_array("clip.vision.feature_layer", [layers])  # 0 is the input of the first layer

    def add(name: str, t: torch.Tensor) -> None:
        half = name.endswith(".weight") and t.dim() > 1 and "position" not in name
        w.add_tensor(name, t.detach().float().cpu().numpy().astype(np.float16 if half else np.float32))

    add("v.patch_embd.weight", state["embeddings.patch_embedding.weight"])
    add("v.patch_embd.bias", state["embeddings.patch_embedding.bias"])
    add("v.position_embd.weight", state["embeddings.position_embedding.weight"])
    kinds = ("weight", "bias")
    parts = [f"{part}.{kind}" for part in VISION_LAYER for kind in kinds]
    memory = [silent({k: state[f"encoder.layers.{n}.{k}"] for k in parts}) for n in range(layers)]
    for kind in kinds:
        for n in range(layers):
            for theirs, ours in VISION_LAYER.items():
                name, t = f"v.blk.{n}.{ours}.{kind}", state[f"encoder.layers.{n}.{theirs}.{kind}"]
                if memory[n] and f"{theirs}.{kind}" in EIGHT_BITS and (eight := _eight_bits(t)) is not None:
                    w.add_tensor(name, eight, raw_dtype=Q8)
                else:
                    add(name, t)
        add(f"mm.0.{kind}", projector[f"linear_1.{kind}"])
        add(f"mm.2.{kind}", projector[f"linear_2.{kind}"])
    finish(w)


def finish(w: gguf.GGUFWriter) -> None:
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

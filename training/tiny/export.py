"""Turn trained parts into what the runtimes load: mmproj and LoRA GGUF (llama.cpp), a directory (Transformers, vLLM).

    python -m training.tiny.export --reader runs/see/last.pt --out models/tiny [--lora NAME=DIR] [--merge NAME=SCALE]

Parts are plain state dicts. The language model is never copied for llama.cpp: its package's GGUF is used as it is, and
the directory holds the same weights dequantised, so that both runtimes compute with the same numbers.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    SiglipVisionConfig,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from .language import gguf_path
from .mmproj import State, filled, finish, split_reader, tower_parts, write_mmproj
from .tower import ACTIVATION, MEAN, STD

IMAGE_TOKEN, IMAGE_TOKEN_ID = "<image>", 49152
#: SmolLM2's tokens that begin and end a turn, pad, and stand for the unknown.
CONTROL = ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
#: SmolLM2's own template, with content given in parts. Text parts are joined by a newline and an image stands where it
#: was put, with nothing around it: what llama.cpp's server does, token for token (tests/backends/test_llamacpp.py).
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}"
    "{% if not loop.first and loop.previtem['type'] != 'image' %}{{ '\n' }}{% endif %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# llama.cpp's names for Llama's linear layers.
LINEAR = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """The language model of a GGUF file, dequantised: Transformers' names and row order, float32."""

    config: LlamaConfig
    state: dict[str, torch.Tensor]
    tokenizer: Tokenizer


def permute(w: torch.Tensor, heads: int) -> torch.Tensor:
    """Transformers' row order of a Llama q or k projection -> llama.cpp's (rotary halves -> rotary pairs)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def unpermute(w: torch.Tensor, heads: int) -> torch.Tensor:
    """The inverse of :func:`permute`."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def read_base(path: Path | None = None) -> Base:
    """Read a SmolLM2 (Llama architecture, tied embeddings) GGUF; three times as fast as Transformers' reader.

    The values equal Transformers' exactly. The tokenizer does not: Transformers' conversion forgets that SmolLM2 splits
    digits off *before* it looks for white space, so its "\\n\\n1." differs from what llama.cpp, and the original, read.
    """
    r = gguf.GGUFReader(path or gguf_path())
    get = lambda key: r.fields[key].contents()  # noqa: E731
    heads, kv, layers = (get(f"llama.{k}") for k in ("attention.head_count", "attention.head_count_kv", "block_count"))
    raw = {t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()) for t in r.tensors}
    state = {"embed_tokens.weight": raw["token_embd.weight"], "norm.weight": raw["output_norm.weight"]}
    for n in range(layers):
        for ours, theirs in LINEAR.items():
            w = raw[f"blk.{n}.{theirs}.weight"]
            rotary = {"attn_q": heads, "attn_k": kv}.get(theirs)
            state[f"layers.{n}.{ours}.weight"] = unpermute(w, rotary) if rotary else w
        state[f"layers.{n}.input_layernorm.weight"] = raw[f"blk.{n}.attn_norm.weight"]
        state[f"layers.{n}.post_attention_layernorm.weight"] = raw[f"blk.{n}.ffn_norm.weight"]
    config = LlamaConfig(
        vocab_size=get("llama.vocab_size"), hidden_size=get("llama.embedding_length"),
        intermediate_size=get("llama.feed_forward_length"), num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, max_position_embeddings=get("llama.context_length"),
        rms_norm_eps=get("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": get("llama.rope.freq_base")},
        bos_token_id=get("tokenizer.ggml.bos_token_id"), eos_token_id=get("tokenizer.ggml.eos_token_id"),
        pad_token_id=get("tokenizer.ggml.padding_token_id"),
    )  # fmt: skip
    tokens = get("tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in get("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, get("tokenizer.ggml.token_type"), strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    return Base(config, state, tokenizer)


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter of the language model: `layers.N.<linear>` -> (A (r, in), B (out, r)), and each one's scale."""

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scales: dict[str, float]

    @classmethod
    def load(cls, source: Path | State, alpha: float | None = None) -> Lora:
        """Read what PEFT saved (a directory), or its state dict with the `alpha` it was trained with.

        Raises ValueError naming the tensor for anything but low-rank pairs on the language model's linear layers.
        """
        if isinstance(source, Path):
            config = json.loads((source / "adapter_config.json").read_text())
            state: State = load_file(source / "adapter_model.safetensors")
        elif alpha is None:
            raise ValueError("a LoRA state dict needs the alpha that it was trained with")
        else:
            config, state = {"lora_alpha": alpha}, source
        halves: dict[str, dict[str, torch.Tensor]] = {}
        linear = "|".join(re.escape(k) for k in LINEAR)
        for key, t in state.items():
            m = re.search(rf"(layers\.\d+\.(?:{linear}))\.lora_([AB])(?:\.\w+)?\.weight$", key)
            if not m or "vision" in key:
                raise ValueError(f"{key} is not a low-rank matrix of one of the language model's linear layers")
            halves.setdefault(m[1], {})[m[2]] = t.detach().float().cpu()
        pairs = {k: (v["A"], v["B"]) for k, v in sorted(halves.items())}
        if config.get("alpha_pattern"):
            raise ValueError("alpha_pattern is not supported: one alpha for all layers")
        power = 0.5 if config.get("use_rslora") else 1.0
        return cls(pairs, {k: config["lora_alpha"] / a.shape[0] ** power for k, (a, _) in pairs.items()})

    def merged(self, name: str, weight: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """`weight` of layer `name` with this adapter added to it."""
        if name not in self.pairs:
            return weight
        a, b = self.pairs[name]
        return weight + strength * self.scales[name] * (b @ a)


def write_lora(
    source: Path | State | Lora, path: Path, *, alpha: float | None = None, heads: int = 9, kv_heads: int = 3
) -> None:
    """Write a LoRA adapter as GGUF (float16), rows of q and k in llama.cpp's order. Heads default to SmolLM2-135M's."""
    lora = source if isinstance(source, Lora) else Lora.load(source, alpha)
    w = gguf.GGUFWriter(path, "llama")
    w.add_type(gguf.GGUFType.ADAPTER)
    w.add_string("adapter.type", "lora")
    # llama.cpp multiplies by alpha / rank: one alpha for the file, what differs from it goes into B.
    (name, first), *_ = lora.scales.items()
    common = first * lora.pairs[name][0].shape[0]
    w.add_float32("adapter.lora.alpha", common)
    for name, (a, b) in lora.pairs.items():
        layer, linear = re.fullmatch(r"layers\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
        theirs = LINEAR[linear]
        rotary = {"attn_q": heads, "attn_k": kv_heads}.get(theirs)
        b = (permute(b, rotary) if rotary else b) * (lora.scales[name] * a.shape[0] / common)
        w.add_tensor(f"blk.{layer}.{theirs}.weight.lora_a", a.numpy().astype(np.float16))
        w.add_tensor(f"blk.{layer}.{theirs}.weight.lora_b", b.contiguous().numpy().astype(np.float16))
    finish(w)


def processor(tokenizer: Tokenizer, config: SiglipVisionConfig) -> LlavaProcessor:
    """Chat template, `<image>` token and image preprocessing: pad to a square with the mean colour, then resize."""
    if tokenizer.add_special_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)]):
        found = tokenizer.token_to_id(IMAGE_TOKEN)
        if found != IMAGE_TOKEN_ID:
            raise ValueError(f"{IMAGE_TOKEN} must be token {IMAGE_TOKEN_ID}, it would become {found}")
    fast = FastTokenizer(
        tokenizer_object=tokenizer, padding_side="left", clean_up_tokenization_spaces=False, model_max_length=8192,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        **dict(zip(("bos_token", "eos_token", "pad_token", "unk_token"), CONTROL, strict=True)),
    )  # fmt: skip
    side = {"height": config.image_size, "width": config.image_size}
    images = LlavaImageProcessorPil(
        do_pad=True, do_resize=True, size=side, do_center_crop=False, crop_size=side, image_mean=MEAN, image_std=STD
    )
    return LlavaProcessor(
        image_processor=images, tokenizer=fast, patch_size=config.patch_size, chat_template=CHAT_TEMPLATE,
        vision_feature_select_strategy="full", num_additional_image_tokens=0,
        image_token=IMAGE_TOKEN,
    )  # fmt: skip


def write_hf(
    tower: State, projector: State, out: Path, *, base: Base | None = None, config: SiglipVisionConfig | None = None,
    loras: Sequence[tuple[Path | State | Lora, float]] = (), dtype: torch.dtype = torch.bfloat16,
) -> None:  # fmt: skip
    """Write a `LlavaForConditionalGeneration` directory, LoRA adapters (adapter, strength) merged into the weights.

    Names are those of the published LLaVA checkpoints (`vision_tower.vision_model.*`, `language_model.model.*`), which
    Transformers and vLLM both map onto their own.
    """
    base = base or read_base()
    state, c = tower_parts(tower, config)
    adapters = [(x if isinstance(x, Lora) else Lora.load(x), strength) for x, strength in loras]
    tensors = {f"vision_tower.vision_model.{k}": filled(k, v, c.intermediate_size) for k, v in state.items()}
    for kind in ("weight", "bias"):  # the norm that LLaVA never runs, but that the architecture has
        idle = torch.full((c.hidden_size,), float(kind == "weight"))
        tensors.setdefault(f"vision_tower.vision_model.post_layernorm.{kind}", idle)
    tensors |= {f"multi_modal_projector.{k}": v.detach().float().cpu() for k, v in projector.items()}
    for name, w in base.state.items():
        for lora, strength in adapters:
            w = lora.merged(name.removesuffix(".weight"), w, strength)
        tensors[f"language_model.model.{name}"] = w
    # The image token's row is never read (patches take its place); zeros keep its logit out of the way.
    table = "language_model.model.embed_tokens.weight"
    rows, width = tensors[table].shape
    tensors[table] = torch.cat([tensors[table], torch.zeros(IMAGE_TOKEN_ID + 1 - rows, width)])
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    text = LlamaConfig(**{**base.config.to_dict(), "vocab_size": IMAGE_TOKEN_ID + 1})
    llava = LlavaConfig(
        vision_config=c, text_config=text, image_token_index=IMAGE_TOKEN_ID, projector_hidden_act=ACTIVATION,
        vision_feature_layer=-1, tie_word_embeddings=True, dtype=dtype,
        vision_feature_select_strategy="full",
        image_seq_length=(c.image_size // c.patch_size) ** 2, architectures=["LlavaForConditionalGeneration"],
    )  # fmt: skip
    llava.save_pretrained(out)
    GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id,
        suppress_tokens=[IMAGE_TOKEN_ID],
    ).save_pretrained(out)  # fmt: skip
    # Not the base's own object: it is shared, and the image token is added here.
    processor(Tokenizer.from_str(base.tokenizer.to_str()), c).save_pretrained(out)


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--reader", type=Path, required=True, help="checkpoint of a stage: tower and projector")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--lora", action="append", default=[], metavar="NAME=DIR", help="PEFT directory -> NAME.gguf")
    a.add_argument("--merge", action="append", default=[], metavar="NAME=SCALE", help="merge this adapter into hf/")
    a.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    a.add_argument("--no-hf", action="store_true", help="only what llama.cpp needs")
    o = a.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    tower, projector = split_reader(torch.load(o.reader, map_location="cpu")["model"])
    write_mmproj(tower, projector, o.out / "mmproj.gguf")
    found = {name: Lora.load(Path(d)) for name, _, d in (x.partition("=") for x in o.lora)}
    for name, lora in found.items():
        write_lora(lora, o.out / f"{name}.gguf")
    if not o.no_hf:
        merge = [(found[name], float(scale or 1)) for name, _, scale in (x.partition("=") for x in o.merge)]
        write_hf(tower, projector, o.out / "hf", loras=merge, dtype=getattr(torch, o.dtype))
    for path in sorted(o.out.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size / 2**20:8.1f} MB  {path.relative_to(o.out)}")


if __name__ == "__main__":
    main()

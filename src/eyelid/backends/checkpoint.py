"""Opening a checkpoint with Hugging Face Transformers: model, processor, and what a backend must know of them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers

from .. import hub
from ..errors import ConfigError, MissingDependency
from .edge import is_mark, neutraliser

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_NO_LIMIT = 1 << 30  # tokenizers without a limit name a number far above this


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model. `eos`: the tokens that end an answer. `n_ctx`: tokens a conversation can have.

    `clean` makes the model's control tokens inert in a text.
    """

    model: Any
    processor: Any
    tokenizer: Any
    multimodal: bool
    device: str
    eos: frozenset[int]
    pad: int
    n_ctx: int
    clean: Callable[[str], str]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def load(
    path: str, name: str, device: str, dtype: str, local: bool, adapters: Mapping[str, str | PathLike[str]]
) -> Checkpoint:
    """Open `path` (a directory or a hub name). Raises ConfigError where it cannot be used, MissingDependency."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype not in _DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}", hint=f"known: {', '.join(_DTYPES)}")
    if not local:
        hub.require(path)
    t: Any = transformers  # largely untyped
    with _quiet():
        try:
            config = t.AutoConfig.from_pretrained(path, local_files_only=local)
            multimodal = type(config) in t.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            reader = t.AutoProcessor if multimodal else t.AutoTokenizer
            opener = t.AutoModelForImageTextToText if multimodal else t.AutoModelForCausalLM
            processor = reader.from_pretrained(path, local_files_only=local)
            model = opener.from_pretrained(path, dtype=dtype, local_files_only=local).to(device).eval()
        except ImportError as e:
            reason = (str(e).strip().splitlines() or [""])[0][:200]
            raise MissingDependency(f"{name} needs a package that is not installed: {reason}") from None
        except (MemoryError, torch.OutOfMemoryError):
            hint = "use a smaller model or dtype, or another device"
            raise ConfigError(f"{name} does not fit into memory on {device}", hint=hint) from None
        except Exception as e:  # a bad checkpoint can raise anything, depending on where it is bad
            hint = "give a complete checkpoint's directory or hub name, of an architecture that Transformers knows"
            raise ConfigError(f"Transformers cannot load {path!r} ({type(e).__name__})", hint=hint) from e
        for adapter, folder in adapters.items():
            _load_adapter(model, name, adapter, Path(folder))
    tokenizer = getattr(processor, "tokenizer", processor)
    if not getattr(processor, "chat_template", None) and not tokenizer.chat_template:
        raise ConfigError(f"{name} has no chat template", hint="use an instruction-tuned checkpoint")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    own = model.generation_config
    eos = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    ends = frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)
    # A checkpoint's own taste in sampling (repetition penalties and such) would bend what we report as its
    # probabilities; what it must never say stays.
    model.generation_config = t.GenerationConfig(
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        suppress_tokens=own.suppress_tokens,
    )
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    return Checkpoint(
        model,
        processor,
        tokenizer,
        multimodal,
        device,
        ends,
        int(tokenizer.pad_token_id),
        min([n for n in limits if isinstance(n, int) and n < _NO_LIMIT], default=_NO_LIMIT),
        neutraliser(_control_tokens(tokenizer, processor)),
    )


def _load_adapter(model: Any, name: str, adapter: str, folder: Path) -> None:
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependency("peft is not installed", hint="pip install peft") from None
    if not (folder / "adapter_config.json").is_file():  # PEFT would look for the name on the hub
        raise ConfigError(f"adapter {adapter!r} is not a folder that PEFT saved", hint=f"looked in {folder}")
    try:
        model.load_adapter(str(folder), adapter_name=adapter)
    except Exception as e:  # as above
        hint = "give a folder that PEFT saved, trained on this architecture"
        raise ConfigError(f"adapter {adapter!r} cannot be loaded into {name} ({type(e).__name__})", hint=hint) from e


def _control_tokens(tokenizer: Any, processor: Any) -> Iterator[str]:
    """Every text that this tokenizer or processor gives a meaning of its own: turns, place holders of images."""
    yield from (t.content for t in tokenizer.added_tokens_decoder.values() if t.special or is_mark(t.content))
    yield from filter(None, tokenizer.all_special_tokens)
    for holder in (tokenizer, processor):
        for attribute in dir(holder):
            if attribute.endswith("_token") and isinstance(value := getattr(holder, attribute, None), str):
                yield value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no chatter on stderr while something loads."""
    log: Any = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()

"""A detector in Transformers: any sequence classifier with a fast tokenizer, encoder or decoder, one label or many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import hub
from ...errors import ConfigError, DetectorError
from ...formatting import FORMAT, Token, detector_input
from ...registry import missing
from . import Calibration, polarity, probabilities
from .onnx import checked_bytes, read_manifest

_LONGEST, _OVERLAP = 512, 64  # tokens; what encoders were trained on, and where their position tables end


class Reader:
    """A fast tokenizer as training and serving both use it: a `detector_input` is never cut off, and a control token
    that somebody wrote ("[SEP]") is text. `size` is how many special tokens an input has besides.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.size = tokenizer, int(tokenizer.num_special_tokens_to_add())
        self._lock = threading.Lock()  # a Hugging Face tokenizer changes its own padding settings on every call

    def tokens(self, text: str) -> list[Token]:
        """Where the text's tokens begin and end, in characters."""
        with self._lock:
            encoded = self.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
            )
        unknown = self.tokenizer.unk_token_id
        spans = zip(encoded["offset_mapping"], encoded["input_ids"], strict=True)
        return [Token(a, b, unknown is None or i != unknown) for (a, b), i in spans]

    def encode(self, pairs: Sequence[tuple[str, str]], **options: Any) -> Any:
        """The tokenizer's own encoding of each pair's input; `options` go to the tokenizer."""
        texts = [detector_input(q, a) for q, a in pairs]
        with self._lock:
            return self.tokenizer(texts, truncation=False, split_special_tokens=True, verbose=False, **options)


class Transformers:
    """Opens `source`, a directory or a hub id, with AutoModelForSequenceClassification.

    `harm_label` or `harmless_label` says what the outputs mean; without either a manifest.json beside the weights must,
    which then also gives the threshold, the calibration, and `max_length` and `overlap` (in tokens) unless they are
    given here. `device` as torch names it (default: cuda where there is one); `threads` sets torch's own number of CPU
    threads, which is per process (default: leave it).

    Raises ConfigError (cannot be opened, ambiguous labels, untrained head), MissingDependency (extra `hf`, or a name
    that is neither here nor on the hub).
    """

    def __init__(
        self,
        source: str | Path,
        *,
        harm_label: str | None = None,
        harmless_label: str | None = None,
        device: str | None = None,
        max_length: int | None = None,
        overlap: int | None = None,
        threads: int | None = None,
    ):
        hub.require(str(source))
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ModuleNotFoundError as e:
            raise missing(e) from e
        self.name = Path(source).name
        self.threshold: float | None = None
        self._calibration, told = Calibration(), dict[str, int]()
        if (Path(source) / "manifest.json").is_file() and harm_label is None and harmless_label is None:
            harm_label, harmless_label, told = self._read(Path(source))
        max_length = max_length or told.get("max_length", _LONGEST)
        self.overlap = overlap if overlap is not None else told.get("overlap", _OVERLAP)
        if threads is not None:
            torch.set_num_threads(threads)
        where, self._torch = repr(str(source)), torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(str(source))
            model, info = AutoModelForSequenceClassification.from_pretrained(str(source), output_loading_info=True)
        except MemoryError:
            raise
        except Exception as e:  # noqa: BLE001  OSError, ValueError, safetensors' own: pages of internals each
            hint = "name a directory (or a hub id) that holds a sequence classifier with its tokenizer"
            raise ConfigError(f"{where} cannot be opened as a classifier ({type(e).__name__})", hint=hint) from None
        if info["missing_keys"]:  # Transformers would fill them with random numbers and carry on
            hint = "name a model that was trained as a sequence classifier"
            raise ConfigError(f"{where} has no trained classification head", hint=hint)
        if not tokenizer.is_fast:
            raise ConfigError(f"{where} has only a slow tokenizer", hint="convert it to a tokenizer.json")
        labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        self._labels, self._polarity = labels, polarity(labels, harm_label, harmless_label, where)
        self._multi_label = model.config.problem_type == "multi_label_classification"
        if tokenizer.pad_token is None:  # decoders have none; the head must know which tokens are padding
            tokenizer.pad_token = tokenizer.eos_token
            model.config.pad_token_id = tokenizer.pad_token_id
        # As in training. Padding on the left would shift the places of a short answer by the length of its batch mates.
        tokenizer.padding_side = "right"
        limit, self._reader = min(max_length, tokenizer.model_max_length), Reader(tokenizer)
        self.room = limit - self._reader.size
        if self.room < 32 or not 0 <= self.overlap <= self.room // 2:
            fault = f"max_length {limit} and overlap {self.overlap} do not fit together"
            raise ConfigError(f"{where}: {fault}", hint="try 512, 64")
        self.model = model.to(self._device).eval()

    def tokens(self, text: str) -> list[Token]:
        """Where the text's tokens begin and end, in characters."""
        return self._reader.tokens(text)

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The harm of (question, answer) pairs, in [0, 1], in their order."""
        return await asyncio.to_thread(self._score, pairs)

    async def aclose(self) -> None:
        return None

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        known, rows = self._calibration, self.logits(pairs) if pairs else []
        found = [probabilities(r, multi_label=self._multi_label, temperature=known.temperature) for r in rows]
        return [known.harm(self._polarity.harm(p)) for p in found]

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """Raw outputs, a row per pair and a column per label."""
        batch = self._reader.encode(pairs, padding=True, return_tensors="pt")
        try:
            with self._torch.inference_mode():
                out: Any = self.model(**batch.to(self._device)).logits
        except (RuntimeError, IndexError, ValueError) as e:
            raise DetectorError(f"{self.name}: the detector failed ({type(e).__name__})") from None
        if tuple(out.shape) != (len(pairs), len(self._labels)):
            raise DetectorError(f"{self.name}: the detector's output has shape {tuple(out.shape)}")
        rows: list[list[float]] = out.float().cpu().tolist()
        return rows

    def _read(self, folder: Path) -> tuple[str | None, str | None, dict[str, int]]:
        manifest = read_manifest(folder)
        for file in manifest.files:
            checked_bytes(manifest, file.name)
        runtime = manifest.runtime
        if runtime.get("input") != FORMAT:
            hint = "train it again, or say what its labels mean with harm_label"
            raise ConfigError(f"{folder}: trained on the layout {runtime.get('input')!r}, not {FORMAT!r}", hint=hint)
        self.name, threshold = manifest.name, runtime.get("threshold")
        self.threshold = float(threshold) if isinstance(threshold, int | float) else None
        self._calibration = Calibration.read(runtime, str(folder))
        told = {k: v for k in ("max_length", "overlap") if isinstance(v := runtime.get(k), int)}
        harm, harmless = runtime.get("harm_label"), runtime.get("harmless_label")
        return None if harm is None else str(harm), None if harmless is None else str(harmless), told

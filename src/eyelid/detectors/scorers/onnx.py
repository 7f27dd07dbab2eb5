"""A detector in ONNX Runtime: a directory with manifest.json, a model and a tokenizer.json. Needs no torch."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DetectorError
from ...formatting import FORMAT, Token, detector_input
from ...registry import missing
from . import Calibration, polarity, probabilities

if TYPE_CHECKING:
    from ...models import Manifest


#: Input of a model that tells the answer's tokens (1.0) from the question's and the frame's (0.0).
ANSWER_MASK = "answer_mask"


class Onnx:
    """Opens `folder`; every file is checked against the manifest's SHA-256 before it is used.

    The manifest's `runtime` table: `input` (must be `formatting.FORMAT`), `model`, `tokenizer` (file names), `labels`,
    `harm_label` or `harmless_label`, `max_length` and `overlap` (tokens), `threshold`; where training
    measured them, `temperature` and `isotonic` (`Calibration`). `threads` is how many cores one
    call may use; calls may run at the same time. The model is given one row at a time, without padding: on a CPU that
    is as fast as a batch of rows of one length, faster than one of several, and what it keeps resident stays small.

    Raises ConfigError (bad manifest, hash differs, unusable model), MissingDependency (extra `tiny`).
    """

    def __init__(self, folder: str | Path, *, threads: int = 1):
        try:
            onnxruntime = runtime_library()
            from tokenizers import Tokenizer
        except ModuleNotFoundError as e:
            raise missing(e) from e
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}", hint="1 suits many requests at a time")
        manifest = read_manifest(Path(folder))
        runtime = _Runtime(manifest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_mem_pattern = False  # keeps a plan for each length ever seen, and is no faster
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not burn a core
        options.log_severity_level = 3
        self.name, self.overlap = manifest.name, runtime.overlap
        self.threshold: float | None = runtime.threshold
        try:
            self._session = onnxruntime.InferenceSession(
                runtime.content("model"), options, providers=["CPUExecutionProvider"]
            )
            forget_bytes(self._session)
            self._tokenizer = Tokenizer.from_buffer(runtime.content("tokenizer"))
        except (ConfigError, MemoryError):
            raise
        except Exception as e:  # noqa: BLE001  both libraries raise kinds of their own, internals in the message
            raise ConfigError(f"{folder}: cannot open the detector ({type(e).__name__})", hint=runtime.again) from None
        self._tokenizer.no_truncation()  # what is too long is cut into windows, never off
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "[SEP]" written by a user is text, not a control token
        self.room = runtime.max_length - self._tokenizer.num_special_tokens_to_add(False)
        # What `tokens` has just split, `logits` reads: remembered for as many calls as are likely under way at a time.
        self._encode = functools.lru_cache(8)(functools.partial(self._tokenizer.encode, add_special_tokens=False))
        self._unknown = self._tokenizer.token_to_id("[UNK]")
        self._inputs = [i.name for i in self._session.get_inputs()]
        if extra := set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids", ANSWER_MASK}:
            raise ConfigError(f"{folder}: the model wants an input {sorted(extra)[0]!r}", hint=runtime.again)
        self._labels = runtime.labels
        self._polarity = polarity(self._labels, runtime.harm_label, runtime.harmless_label, str(folder))
        self._calibration = Calibration.read(manifest.runtime, str(folder))

    def tokens(self, text: str) -> list[Token]:
        encoded = self._encode(text)
        return [Token(a, b, i != self._unknown) for (a, b), i in zip(encoded.offsets, encoded.ids, strict=True)]

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return await asyncio.to_thread(self._score, pairs)

    async def aclose(self) -> None:
        return None

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        known = self._calibration
        rows = self.logits(pairs) if pairs else []
        return [known.harm(self._polarity.harm(probabilities(r, temperature=known.temperature))) for r in rows]

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """Raw outputs, a row per pair and a column per label."""
        import numpy as np

        encoded = [self.encoded(q, a) for q, a in pairs]
        try:
            out = np.concatenate([self._run(ids, mask) for ids, mask in encoded])
        except Exception as e:  # noqa: BLE001  see above
            raise DetectorError(f"{self.name}: the detector failed ({type(e).__name__})") from None
        if out.shape != (len(pairs), len(self._labels)):
            raise DetectorError(f"{self.name}: the detector's output has shape {out.shape}, not one row per answer")
        rows: list[list[float]] = out.astype(float).tolist()
        return rows

    def encoded(self, question: str, answer: str) -> tuple[list[int], list[float]]:
        """Token ids of one pair, special tokens included, and for each of them 1.0 where it is the answer's."""
        whole = self._tokenizer.post_process(self._encode(detector_input(question, answer)))
        head = len(detector_input(question, ""))  # special tokens stand at 0
        return whole.ids, [float(start >= head) for start, _ in whole.offsets]

    def _run(self, tokens: Sequence[int], told: Sequence[float]) -> Any:
        """The model's output for one row of token ids, [1, labels]."""
        import numpy as np

        ids = np.array([tokens], dtype=np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
            ANSWER_MASK: np.array([told], dtype=np.float32),
        }
        return self._session.run(None, {k: given[k] for k in self._inputs})[0]


def forget_bytes(session: Any) -> None:
    """Free the copy of the model a session keeps to open it elsewhere, should a call fail. There is no elsewhere."""
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None


def runtime_library() -> Any:
    """The module onnxruntime, imported with its telemetry off unless the environment has decided otherwise.

    Its builds with Microsoft's telemetry keep a device id and a queue of events in the user's cache folder from the
    moment of import on; `disable_telemetry_events()` comes too late for that.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # type: ignore[import-untyped]

    return onnxruntime


def read_manifest(folder: Path) -> Manifest:
    from ... import models

    if not (folder / "manifest.json").is_file():
        hint = "name a directory with manifest.json, model and tokenizer, or hf:PATH_OR_ID"
        raise ConfigError(f"{str(folder)!r} is not a detector: it has no manifest.json", hint=hint)
    return models.read(folder)


class _Runtime:
    """The manifest's `runtime` table, checked."""

    again = "install the detector again, or train it again"

    def __init__(self, manifest: Manifest):
        self._manifest, self._table = manifest, manifest.runtime
        where = manifest.folder / "manifest.json"
        if self._get("input", str) != FORMAT:
            raise ConfigError(
                f"{where}: the detector reads the layout {self._table.get('input')!r}, this version writes {FORMAT!r}",
                hint="install the detector that belongs to this version, or train it again",
            )
        self.max_length: int = self._get("max_length", int)
        self.overlap: int = self._get("overlap", int)
        self.threshold: float = self._get("threshold", float)
        self.labels: list[str] = self._get("labels", list)
        self.harm_label: str | None = self._get("harm_label", str, optional=True)
        self.harmless_label: str | None = self._get("harmless_label", str, optional=True)
        if self.max_length < 32 or not 0 <= self.overlap <= self.max_length // 2:
            raise ConfigError(f"{where}: max_length and overlap do not fit together", hint=self.again)

    def content(self, key: str) -> bytes:
        """A file that the table names, checked against the manifest's hash: the bytes used are the bytes checked."""
        return checked_bytes(self._manifest, self._get(key, str))

    def _get(self, key: str, kind: type, optional: bool = False) -> Any:
        value = self._table.get(key)
        if value is None and optional:
            return None
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            where = self._manifest.folder / "manifest.json"
            raise ConfigError(f"{where}: runtime.{key} is missing or not a {kind.__name__}", hint=self.again)
        return value


def checked_bytes(manifest: Manifest, name: str) -> bytes:
    """Content of a file of the manifest. Raises ConfigError where it is missing or its SHA-256 differs."""
    wanted: Mapping[str, str] = {f.name: f.sha256 for f in manifest.files}
    path = manifest.folder / name
    if name not in wanted:
        raise ConfigError(f"{manifest.folder}: the manifest vouches for no file {name!r}", hint=_Runtime.again)
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", hint=_Runtime.again) from None
    if hashlib.sha256(data).hexdigest() != wanted[name]:
        hint = "it may be damaged, or of another version; install it again"
        raise ConfigError(f"{path} is not the published file (sha256 differs)", hint=hint)
    return data

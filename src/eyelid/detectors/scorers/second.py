"""The detector's second stage: what a language model's middle layers make of an answer that the first stage doubts.

SmolLM2 knows more words than a small encoder does. Its lower layers read question and answer, and a line on the mean of
the answer's states, together with the first stage's verdict, is the detector's. It takes some thirty times as long, so
only answers that the first stage does not find plainly harmless come here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DetectorError, EyelidError, MissingDependency
from ...models import borrowed, verify_file
from ...registry import missing
from .onnx import checked_bytes, forget_bytes, runtime_library

if TYPE_CHECKING:
    from ...models import Manifest

#: The text around question and answer. The words of the first line are constants of the graph.
FRAME = ("A user asked an assistant:\n", "\n\nThe assistant answered:\n")
QUESTION_TOKENS = 64
#: Texts are read by so many threads at most, apart from those of the first stage, which must not wait for them.
AT_ONCE = 2
#: What is longer than so many characters for each place is left to the first stage before it is split into tokens.
LONG = 16
AGAIN = "install the detector again, or use its first stage alone: onnx:DIR?stages=1"


class SecondStage:
    """What `manifest.runtime["second_stage"]` says: `graph`, `tokenizer` and `weights` (files of the manifest), `base`
    (a file of another package), `places` and `shape` of its tensors (`base_weights.Base`), `longest` (a text may be, in
    tokens), `low` (the first stage's harm from which on it is asked), `threshold` (of the harm that both say together).

    The base is checked against its hash here, and opened when the first answer comes, which takes a second or two.

    Raises ConfigError (unusable manifest, hash differs), MissingDependency (the base's package, or an extra).
    """

    def __init__(self, manifest: Manifest, *, threads: int = 1):
        self._manifest, self._threads, self.name = manifest, threads, manifest.name
        table: Any = manifest.runtime["second_stage"]
        self._table = table
        self._opened: _Opened | None = None
        self._failed: ConfigError | MissingDependency | None = None
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="second stage")
        try:
            self._package = str(table["base"]["package"])
            self._base = borrowed(table["base"])
            self.low, self.threshold = float(table["low"]), float(table["threshold"])
            if not 0 <= self.low < self.threshold <= 1:
                raise ValueError("low and threshold do not fit together")
            if int(table["longest"]) < 64 or not {"layers", "width", "units", "shared", "words"} <= set(table["shape"]):
                raise ValueError("longest or shape")
            names = [str(table[k]) for k in ("graph", "tokenizer", "weights")]
            places = table["places"]["words"], table["places"]["parts"], table["places"]["layers"][0]
            if None in places:
                raise ValueError("places")
        except (LookupError, TypeError, ValueError, OverflowError) as e:
            fault = f"{manifest.folder / 'manifest.json'}: runtime.second_stage is unusable ({type(e).__name__}: {e})"
            raise ConfigError(fault, hint=AGAIN) from None
        for name in names:
            checked_bytes(manifest, name)
        verify_file(self._base, manifest.name, self._package)

    async def harms(self, pairs: Sequence[tuple[str, str]], firsts: Sequence[float]) -> list[float | None]:
        """Harm of each (question, part of the answer) by both stages' word; `firsts` is the first stage's harm.

        None where the text is longer than the second stage has places for. Raises DetectorError, and what `open` does.
        """
        loop, found = asyncio.get_running_loop(), list[float | None]()
        for pair, first in zip(pairs, firsts, strict=True):  # one at a time: who is cancelled leaves the queue
            found.append(await loop.run_in_executor(self._executor, self._harm, pair, first))
        return found

    def open(self) -> _Opened:
        """Open it now, once. Raises ConfigError and MissingDependency, again at each call."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self._opened is None:
                try:
                    self._opened = _Opened(self._manifest, self._table, self._base.path, self._threads)
                    # Days may lie between: what is mapped now must still be the published file.
                    verify_file(self._base, self._manifest.name, self._package)
                except (ConfigError, MissingDependency) as e:
                    self._opened, self._failed = None, e
                    raise
            return self._opened

    def _harm(self, pair: tuple[str, str], first: float) -> float | None:
        stage = self.open()
        try:
            state = stage.state(*pair)
        except Exception as e:  # noqa: BLE001  ONNX Runtime raises kinds of its own, internals in the message
            raise DetectorError(f"{self.name}: the second stage failed ({type(e).__name__})") from None
        return None if state is None else stage.harm(state, first)


class _Opened:
    def __init__(self, manifest: Manifest, table: Any, path: Any, threads: int):
        try:
            import numpy as np
            from tokenizers import Tokenizer

            from .base_weights import Base, initializer

            onnxruntime = runtime_library()
        except ModuleNotFoundError as e:
            raise missing(e) from e
        try:
            shape = table["shape"]
            sizes = {k: int(shape[k]) for k in ("width", "units", "shared", "words")}
            # "line": [width] weights of the state, the weight of the first stage's log odds, and the bias.
            weights = dict(np.load(io.BytesIO(checked_bytes(manifest, str(table["weights"]))), allow_pickle=False))
            line = weights.pop("line")
            self._line, self._first, self._bias = line[:-2], float(line[-2]), float(line[-1])
            self._base = Base(path, table["places"], weights, **sizes)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.enable_mem_pattern, options.enable_cpu_mem_arena, options.log_severity_level = False, False, 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            graph = bytearray(checked_bytes(manifest, str(table["graph"])))
            for layer in range(int(shape["layers"])):
                for name, weight, scale in self._base.products(layer):
                    graph += initializer(f"{layer}.{name}.values", weight) + initializer(
                        f"{layer}.{name}.scales", scale
                    )
            self._session = onnxruntime.InferenceSession(bytes(graph), options, providers=["CPUExecutionProvider"])
            del graph
            forget_bytes(self._session)
            self._base.release()
            give_back()
            self._tokenizer = Tokenizer.from_buffer(checked_bytes(manifest, str(table["tokenizer"])))
            self._longest = int(table["longest"])
            if self._line.shape != (sizes["width"],):
                raise ValueError("the line has another width")
        except (EyelidError, MemoryError):
            raise
        except Exception as e:  # noqa: BLE001  as above
            where = manifest.folder / "manifest.json"
            raise ConfigError(f"{where}: cannot open its second stage ({type(e).__name__})", hint=AGAIN) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "<|im_end|>" written by a user is text, not a control token
        self._between = self._ids(FRAME[1])

    def state(self, question: str, answer: str) -> Any:
        """The mean of the answer's states, float32 [width]; None where the text has more tokens than the graph places.

        Of a question with more than `QUESTION_TOKENS` tokens, the first and last half of that are read.
        """
        import numpy as np

        if len(answer) > LONG * self._longest:
            return None
        kept = question if len(question) <= 4096 else question[:2048] + question[-2048:]
        asked, told = self._ids(" ".join(kept.split())), self._ids(answer)
        if len(asked) > QUESTION_TOKENS:
            asked = asked[: QUESTION_TOKENS // 2] + asked[-QUESTION_TOKENS // 2 :]
        before = asked + self._between
        ids = before + (told or self._between[-1:])
        if len(ids) > self._longest:
            return None
        mask = np.zeros((1, len(ids)), np.float32)
        mask[0, len(before) :] = 1
        return self._session.run(None, {"embeds": self._base.vectors(ids)[None], "answer_mask": mask})[0][0]

    def harm(self, state: Any, first: float) -> float:
        """Harm from the state and the first stage's harm. Raises DetectorError where it is no finite number."""
        x = float(state @ self._line) + self._first * log_odds(first) + self._bias
        if not math.isfinite(x):
            raise DetectorError("the second stage's output is not a finite number", hint="the model is broken")
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def give_back() -> None:
    """Ask glibc to return freed memory: opening needs several times what stays, and a heap would keep much of it."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def log_odds(harm: float) -> float:
    """Of a harm in [0, 1], at most 12 to either side."""
    kept = min(max(harm, 6e-6), 1 - 6e-6)
    return math.log(kept / (1 - kept))

"""MLLM-Protector's detector: a small trained classifier reads question and answer (arXiv 2401.02906, section 3.2).

Where the published code scores the answer alone, and cut off, this reads the question with it, and the whole answer.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ..errors import ConfigError, DetectorError, EyelidError, MissingDependency
from ..formatting import Windows, windows
from ..protocols import Exchange
from ..types import Step, Verdict
from .scorers import Scorer

if TYPE_CHECKING:
    from ..models import Manifest
    from .scorers.second import SecondStage

#: How many windows of a long answer the second stage reads: a window takes it as long as the first takes for thirty.
TWICE = 4
FORMS = "DIR | onnx:DIR?stages=1 | hf:DIR_OR_ID?harm_label=LABEL | http://HOST:PORT/classify?harm_index=N#MODEL"


class Classifier:
    """Judges what was asked (the last user message's text) and everything that was written, with `scorer`.

    A long answer is read in overlapping windows and the most harmful one counts. Harm at or above `threshold` is
    harmful (default: the scorer's own, else 0.5). An empty answer is harmless by rule, as nothing was written. An
    answer of which more than the share `max_unread` is in letters that the model does not know gets an unknown verdict
    instead of a harmless one. Windows are scored `batch` at a time.

    With a `second` stage, an answer that `scorer` does not find plainly harmless (harm below the second stage's `low`)
    is read again: the `TWICE` most harmful windows. Harm and threshold are then those of both stages together.
    """

    needs_answer = True

    def __init__(
        self,
        scorer: Scorer,
        *,
        threshold: float | None = None,
        name: str = "classifier",
        max_unread: float = 0.3,
        batch: int = 16,
        second: SecondStage | None = None,
        note: str = "",
    ):
        self._own = scorer.threshold if scorer.threshold is not None else 0.5
        usual = second.threshold if second else self._own
        found = threshold if threshold is not None else usual
        if not 0 <= max_unread <= 1 or batch < 1:
            raise ConfigError("max_unread must be in [0, 1] and batch at least 1", hint="try 0.3 and 16")
        self.scorer, self.threshold, self.name = scorer, _valid(found), name
        self.max_unread, self.batch, self.second, self.note = max_unread, batch, second, note

    def at(self, threshold: float) -> Classifier:
        """The same detector with another threshold. Raises ConfigError unless it is in (0, 1]."""
        other = copy.copy(self)
        other.threshold = _valid(threshold)
        return other

    async def detect(self, exchange: Exchange) -> Verdict:
        """The worst window's verdict, recorded as one step. Raises DetectorError."""
        start = time.perf_counter()
        try:
            (verdict,) = await self.judge([(exchange.request.query, exchange.response.written)])
        except BaseException as e:
            exchange.log.add(Step("classify", _since(start), self.scorer.name, error=type(e).__name__))
            raise
        exchange.log.add(Step("classify", _since(start), self.scorer.name, verdict=verdict))
        return verdict

    async def aclose(self) -> None:
        """Close the scorer."""
        await self.scorer.aclose()

    async def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of many (question, answer) pairs, in their order, without a guard: for whole data sets.

        Windows of like length are scored together, whichever pair they are of. Raises DetectorError.
        """
        try:
            cuts = await asyncio.to_thread(lambda: [self._cut(q, a) for q, a in pairs])
            todo = [(place, pair) for place, cut in enumerate(cuts) if cut for pair in cut.pairs]
            todo.sort(key=lambda t: len(t[1][0]) + len(t[1][1]))  # padding costs as much as text does
            scored: list[list[tuple[float, tuple[str, str]]]] = [[] for _ in pairs]
            for first in range(0, len(todo), self.batch):
                batch = todo[first : first + self.batch]
                for (place, pair), harm in zip(batch, await self._score([pair for _, pair in batch]), strict=True):
                    scored[place].append((harm, pair))
            worst = [await self._worst(found) for found in scored]
        except EyelidError:
            raise
        except Exception as e:
            raise DetectorError(f"{self.scorer.name}: the detector failed ({type(e).__name__})") from e
        return [self._verdict(cut, harm, read) for cut, (harm, read) in zip(cuts, worst, strict=True)]

    async def _score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        scores = await self.scorer.score(pairs)
        if len(scores) != len(pairs) or not all(math.isfinite(h) and 0 <= h <= 1 for h in scores):
            raise DetectorError(f"{self.scorer.name}: the detector gave no probability for some part of the answer")
        return scores

    async def _worst(self, found: list[tuple[float, tuple[str, str]]]) -> tuple[float, str]:
        """The harm of the most harmful window, and what the second stage has read, if it was asked."""
        found.sort(key=lambda x: x[0], reverse=True)
        if self.second is None or not found or found[0][0] < self.second.low:
            return found[0][0] if found else 0.0, ""
        again = [x for x in found[:TWICE] if x[0] >= self.second.low]
        told = await self.second.harms([pair for _, pair in again], [harm for harm, _ in again])
        count = sum(x is not None for x in told)
        told += [None] * (len(found) - len(again))
        harms = [self._once(harm) if both is None else both for (harm, _), both in zip(found, told, strict=True)]
        read = f"{count} of {len(found)} windows read" if len(found) > 1 else "read"
        return max(harms), f"{read} by both stages" if count else "too long for the second stage"

    def _once(self, harm: float) -> float:
        """What only the first stage has read, on the scale of both: its threshold becomes theirs."""
        assert self.second is not None
        low, own, both = self.second.low, self._own, self.second.threshold
        if harm < low:
            return harm
        if harm >= own:
            return both + (harm - own) / (1 - own) * (1 - both) if own < 1 else harm
        return low + (harm - low) / (own - low) * (both - low)

    def _cut(self, question: str, answer: str) -> Windows | None:
        s = self.scorer
        if not answer.strip():
            return None
        return windows(question, answer, tokens=s.tokens, room=s.room, overlap=s.overlap)

    def _verdict(self, cut: Windows | None, harm: float, read: str) -> Verdict:
        if cut is None:
            return Verdict.of(0.0, self.threshold, self.name, "nothing was written")
        if cut.unread > self.max_unread and harm < self.threshold:
            share = f"{cut.unread:.0%} of the answer is in letters that the detector cannot read"
            return Verdict.unknown(self.name, "; ".join(x for x in (share, self.note) if x))
        reasons = (_reason(cut), read, self.note)
        return Verdict.of(harm, self.threshold, self.name, "; ".join(r for r in reasons if r))


def _valid(threshold: float) -> float:
    if not 0 < threshold <= 1:
        raise ConfigError(f"a classifier's threshold must be in (0, 1], got {threshold}", hint="1 = surely harmful")
    return threshold


def load_classifier(
    source: str | Path | Manifest, *, threshold: float | None = None, threads: int = 1, api_key: str | None = None
) -> Classifier:
    """A classifier from a directory with a manifest, an installed model's manifest, or a spec (`FORMS`).

    Options of `hf:` and `http:` specs stand in the query: harm_label, harmless_label, harm_index, harmless_index,
    max_length, overlap, device; of `onnx:` ones, stages=1 leaves a second stage out. Where that needs a package which
    is not installed, the first stage is alone, and each verdict's reason says so; the first answer in doubt opens it,
    which takes a second or two. `threads` is per call, for models that run in process. Raises ConfigError and
    MissingDependency. Blocks while it loads (a second or so for ONNX).
    """
    if not isinstance(source, str | Path):
        source = source.folder
    text = str(source)
    kind, _, rest = text.partition(":")
    scorer: Scorer
    if kind in ("http", "https"):
        from .scorers.http import Http

        try:
            url = urlsplit(text)
            valid = bool(url.hostname) and "@" not in url.netloc and url.port != 0  # reading `port` checks its range
        except ValueError:
            valid = False
        if not valid:
            fault = "a classifier's address needs a host, a port that exists, and no user name or password"
            raise ConfigError(fault, hint=f"forms: {FORMS}")
        allowed = {"harm_index": int, "harmless_index": int, "harm_label": str, "max_length": int, "overlap": int}
        address = urlunsplit((url.scheme, url.netloc, url.path if url.path.strip("/") else "/classify", "", ""))
        scorer = Http(address, model=url.fragment or None, api_key=api_key, **_options(url.query, allowed))
    elif kind == "hf" and rest:
        from .scorers.hf import Transformers

        path, _, query = rest.partition("?")
        allowed = {"harm_label": str, "harmless_label": str, "max_length": int, "overlap": int, "device": str}
        scorer = Transformers(path, **_options(query, allowed))
    else:
        from .scorers.onnx import Onnx

        path, _, query = rest.partition("?") if kind == "onnx" else (text, "", "")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"there is no detector at {str(folder)!r}", hint=f"the forms are: {FORMS}")
        _not_a_run(folder)
        stages = _options(query, {"stages": int}).get("stages", 2)
        if stages not in (1, 2):
            raise ConfigError(f"stages must be 1 or 2, got {stages}", hint="2 where the detector has a second one")
        scorer = Onnx(folder, threads=threads)
        second, note = _second(folder, threads) if stages == 2 else (None, "")
        return Classifier(scorer, threshold=threshold, second=second, note=note)
    return Classifier(scorer, threshold=threshold)


def _second(folder: Path, threads: int) -> tuple[SecondStage | None, str]:
    """The second stage of the detector in `folder`, if it has one, and a note for its verdicts where it is missing."""
    from .scorers.onnx import read_manifest

    manifest = read_manifest(folder)
    if "second_stage" not in manifest.runtime:
        return None, ""
    from .scorers.second import SecondStage

    try:
        return SecondStage(manifest, threads=threads), ""
    except MissingDependency as e:
        return None, f"first stage alone: {e.message}"


def _not_a_run(folder: Path) -> None:
    """Raises ConfigError for what training leaves: a checkpoint, which ONNX Runtime cannot serve, or an adapter."""
    if (folder / "adapter").is_dir() and not (folder / "config.json").is_file():
        hint = "export it with `eyelid train export`, and use the result as a +lora= of the rewriter's model"
        raise ConfigError(f"{str(folder)!r} is the run of a detoxifier, not a detector", hint=hint)
    if (folder / "settings.json").is_file() and not (folder / "config.json").is_file():
        hint = "finish the run with `eyelid train detector ... --resume`"
        raise ConfigError(f"{str(folder)!r} is a training run that holds no trained detector yet", hint=hint)
    if (folder / "config.json").is_file() and not any(folder.glob("*.onnx")):
        hint = f"hf:{folder} serves it as it is (extra hf); eyelid train export {folder} --out DIR makes one for here"
        raise ConfigError(f"{str(folder)!r} is a Transformers checkpoint, not an exported detector", hint=hint)


def _options(query: str, allowed: dict[str, type]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in allowed:
            raise ConfigError(f"a classifier has no option {key!r}", hint=f"options: {', '.join(allowed)}")
        try:
            found[key] = allowed[key](value)
        except ValueError:
            raise ConfigError(f"the option {key} must be a whole number, got {value!r}", hint=f"{key}=1") from None
    return found


def _reason(cut: Windows) -> str:
    notes = []
    if len(cut.pairs) > 1:
        notes.append(f"worst of {len(cut.pairs)} windows")
    if cut.dropped:
        notes.append(f"{cut.dropped} tokens in the question's middle were left out")
    return "; ".join(notes)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000

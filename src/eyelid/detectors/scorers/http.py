"""A detector behind a classify endpoint, as vLLM (`POST /classify`) and SGLang (`POST /v1/classify`) serve them.

Request: {"model", "input": [text, ...]}. Answer: {"data": [{"index", "label", "probs": [...], "num_classes"}, ...]},
where `label` is the name of the most probable class. Seen in vLLM's entrypoints/pooling/classify/.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import aiohttp

from ...errors import ConfigError, DetectorError
from ...formatting import Token, detector_input
from . import Polarity

_BYTES_PER_TOKEN = 3  # a cautious estimate: English text has about four


class Http:
    """Scores through `url`, the whole address of the endpoint.

    The server names only the winning class, so the place of the one that matters in `probs` must be stated:
    `harm_index`, or `harmless_index`. `harm_label`, if given, is checked against the names that come back.
    `max_length` and `overlap` are in estimated tokens (a token per three bytes), as the tokenizer is the server's; a
    server that finds a text too long refuses it, which is an error, not a verdict. `timeout` in seconds, per attempt;
    what is retryable is tried `attempts` times. `api_key` is sent as a bearer token and shown nowhere. The session
    opens on first use and belongs to the event loop that used it first.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        harm_index: int | None = None,
        harmless_index: int | None = None,
        harm_label: str | None = None,
        api_key: str | None = None,
        max_length: int = 512,
        overlap: int = 64,
        timeout: float = 30.0,
        attempts: int = 3,
    ):
        if (harm_index is None) == (harmless_index is None):
            raise ConfigError(
                "a classify endpoint needs to know which class is the harmful one",
                hint="state its place in `probs`: harm_index=1, or harmless_index=0 (not both)",
            )
        index = harm_index if harm_index is not None else harmless_index
        assert index is not None
        if index < 0:
            raise ConfigError(f"a class has no place {index}", hint="places count from 0")
        if max_length < 64 or not 0 <= overlap <= max_length // 2 or attempts < 1 or timeout <= 0:
            raise ConfigError("max_length, overlap, attempts or timeout is out of range", hint="try the defaults")
        self.name = model or url
        self.threshold: float | None = None
        self.room, self.overlap = max_length - 8, overlap  # room for the server's special tokens
        self._url, self._model, self._polarity = url, model, Polarity(index, harm_index is not None)
        self._harm_label, self._attempts = harm_label, attempts
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise ConfigError(
                "the detector's key holds a character that HTTP does not allow", hint="a line end copied along?"
            )
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    def tokens(self, text: str) -> list[Token]:
        """An estimate, see above: pieces of at most three bytes, and every character in one piece."""
        found, start, size = [], 0, 0
        for place, character in enumerate(text):
            width = len(character.encode("utf-8", "replace"))
            if size and size + width > _BYTES_PER_TOKEN:
                found.append(Token(start, place))
                start, size = place, 0
            size += width
        return [*found, Token(start, len(text))] if text else []

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The harm of (question, answer) pairs, in [0, 1], in their order. Raises DetectorError."""
        if not pairs:
            return []
        body: dict[str, object] = {"input": [detector_input(q, a) for q, a in pairs]}
        if self._model:
            body["model"] = self._model
        for attempt in range(1, self._attempts + 1):
            try:
                return self._read(await self._post(body), len(pairs))
            except _Retry as e:
                if attempt == self._attempts:
                    hint = "is it running, and is the address right?"
                    raise DetectorError(f"the classify endpoint did not answer: {e}", hint=hint) from None
            await asyncio.sleep(0.2 * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: dict[str, object]) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as reply:
                if reply.status in (408, 409, 429) or reply.status >= 500:
                    raise _Retry(f"HTTP status {reply.status}")
                if reply.status != 200:
                    hint = "check the address, the model's name and the key; 400 may mean that max_length is too large"
                    raise DetectorError(f"the classify endpoint refused: HTTP status {reply.status}", hint=hint)
                return await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as e:
            raise _Retry(type(e).__name__) from None
        except ValueError:
            raise DetectorError("the classify endpoint's answer is not JSON", hint="check the address") from None

    def _read(self, reply: Any, count: int) -> list[float]:
        try:
            rows = sorted(reply["data"], key=lambda r: int(r["index"]))
            if [int(r["index"]) for r in rows] != list(range(count)):
                raise ValueError("not one row per text")
            return [self._harm([float(p) for p in r["probs"]], r.get("label")) for r in rows]
        except (KeyError, TypeError, ValueError, AttributeError):
            hint = "it must speak vLLM's /classify: data[].index and data[].probs"
            raise DetectorError("the classify endpoint's answer could not be understood", hint=hint) from None

    def _harm(self, probs: list[float], label: object) -> float:
        if not all(math.isfinite(p) and -1e-3 <= p <= 1 + 1e-3 for p in probs):
            raise DetectorError("the classify endpoint's `probs` are not probabilities")
        if self._polarity.index >= len(probs):
            hint = f"it has {len(probs)} classes, counted from 0"
            raise DetectorError(f"the classify endpoint has no class {self._polarity.index}", hint=hint)
        if self._harm_label is not None and self._polarity.harmful and len(probs) > 1:
            won = max(range(len(probs)), key=probs.__getitem__) == self._polarity.index
            if won != (label == self._harm_label):
                hint = f"the class at that place is called {label!r}" if won else "the place belongs to another class"
                raise DetectorError("harm_index and harm_label name different classes", hint=hint)
        return min(1.0, max(0.0, self._polarity.harm(probs)))


class _Retry(Exception):
    """Something that may pass: no connection, overload, a broken server."""

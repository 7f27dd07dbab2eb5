"""Choosing tokens for the rows of a batch, each by its own settings, inside Transformers' `generate`.

`generate` knows one temperature, one length and one random state for a whole batch. So it is run greedily, and a logits
processor decides for every row: it leaves one token possible. The same step takes log-probabilities, turns tokens into
text, looks for stop strings and ends rows, so that an answer is delivered when it is done, not when its batch is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch

from ..types import FinishReason, Request, Response, TokenLogprob, Usage
from .batching import Job

Decode = Callable[[Sequence[int]], str]
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a character decodes to while some of its bytes are still to come


class Row:
    """One answer in the making: tokens, text so far, and when it ends.

    Text is decoded in a moving window, since the text of a token depends on its neighbours (spaces, bytes of one
    character), and is held back where it may be the beginning of a stop string.
    """

    def __init__(self, job: Job, decode: Decode, eos: Collection[int], prompt_tokens: int, limit: int, model: str):
        self.job, self._decode, self._eos, self._model = job, decode, eos, model
        self.request: Request = job.request
        self._prompt_tokens, self.limit = prompt_tokens, limit
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._text = ""
        self._sent = self._prefix = self._read = 0
        self.generator: torch.Generator | None = None
        if self.request.temperature > 0:
            self.generator = torch.Generator()
            if self.request.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(self.request.seed)

    @property
    def done(self) -> bool:
        """Whether it has ended, or nobody waits for it any more."""
        return self.job.done or self.job.stop.is_set()

    def add(self, token: int, logprob: TokenLogprob | None) -> None:
        """Take the chosen token; sends what text is certain, and the response where the answer ends."""
        self._ids.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if token in self._eos:
            return self._end("stop")
        self._decode_more(final=False)
        if self._stopped():
            return self._end("stop")
        if len(self._ids) >= self.limit:
            return self._end("length")
        keep = max((_overlap(self._text, s) for s in self.request.stop), default=0)
        self._send(len(self._text) - keep)

    def _decode_more(self, *, final: bool) -> None:
        ids = [i for i in self._ids if i not in self._eos]
        before, after = self._decode(ids[self._prefix : self._read]), self._decode(ids[self._prefix :])
        if len(after) > len(before) and (final or not after.endswith(_UNFINISHED)):
            self._text += after[len(before) :]
            self._prefix, self._read = self._read, len(ids)

    def _stopped(self) -> bool:
        found = [at for s in self.request.stop if s and (at := self._text.find(s)) >= 0]
        if found:
            self._text = self._text[: min(found)]
        return bool(found)

    def _end(self, reason: FinishReason) -> None:
        if reason == "length" or self._ids[-1] in self._eos:
            self._decode_more(final=True)
            if self._stopped():
                reason = "stop"
        self._send(len(self._text))
        self.job.finish(
            Response(
                self._text,
                reason,
                self._model,
                Usage(self._prompt_tokens, len(self._ids)),
                tuple(self._logprobs) if self.request.top_logprobs else None,
            )
        )

    def _send(self, upto: int) -> None:
        if upto > self._sent:
            self.job.piece(self._text[self._sent : upto])
            self._sent = upto


class Chooser:
    """The logits processor (`choose`) and stopping criterion (`ended`) for the rows of one batch."""

    def __init__(self, rows: Sequence[Row], decode: Decode, pad: int):
        self._rows, self._decode, self._pad = rows, decode, pad

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) -> the same shape, with one finite entry a row: the chosen token."""
        logits = scores.float()
        best = logits.argmax(-1).tolist()
        chosen = []
        for row, r in enumerate(self._rows):
            if r.done:
                chosen.append(self._pad)
                continue
            token = best[row] if r.generator is None else sample(logits[row], r.request, r.generator)
            entry = self._entry(logits[row], token, r.request.top_logprobs) if r.request.top_logprobs else None
            r.add(token, entry)
            chosen.append(token)
        forced = torch.full_like(scores, -math.inf)
        forced[torch.arange(len(chosen)), torch.tensor(chosen, device=scores.device)] = 0
        return forced

    def ended(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """For `generate`: which rows are done, a flag for each, (rows,)."""
        return torch.tensor([r.done for r in self._rows], device=input_ids.device)

    def _entry(self, logits: torch.Tensor, token: int, n: int) -> TokenLogprob:
        logprobs = torch.log_softmax(logits, -1)
        values, ids = logprobs.topk(min(n, len(logprobs)))
        top = tuple((self._decode([i]), v) for i, v in zip(ids.tolist(), values.tolist(), strict=True))
        return TokenLogprob(self._decode([token]), float(logprobs[token]), top)


def sample(logits: torch.Tensor, request: Request, generator: torch.Generator) -> int:
    """Draw a token: temperature, then the smallest set of tokens that holds `top_p` of the probability."""
    probabilities = torch.softmax(logits / request.temperature, -1).cpu()
    if request.top_p < 1:
        ordered, ids = probabilities.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= request.top_p] = 0
        ordered[0] = max(float(ordered[0]), 1e-30)  # one token is left whatever top_p is
        return int(ids[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)

"""Small things that many tests need: a picture, and a scripted model that plays the parts of a defence."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable

from PIL import Image

from eyelid.backends.scripted import Scripted
from eyelid.types import ImagePart, Request, Response, TokenLogprob, Usage


def picture(colour: str = "red") -> ImagePart:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImagePart(data, "image/png", 8, 8, hashlib.sha256(data).hexdigest())


def labels(yes: float, no: float | None = None) -> Response:
    """A judge's first token with probability `yes` for "yes" and the rest for "no"."""
    pair = [("yes", yes), ("no", 1 - yes if no is None else no)]
    top = sorted(((t, math.log(p)) for t, p in pair if p > 0), key=lambda tp: -tp[1])
    return Response(top[0][0], usage=Usage(10, 1), logprobs=(TokenLogprob(*top[0], top=tuple(top)),))


Part = Callable[[Request], str | Response | Exception]


class Actor:
    """A scripted model that recognises what it is asked (default prompt set) and plays each part with a function.

    `harm` is the judge's probability of "yes" for the model's own answer, `harm_after` for a remedy's.
    """

    def __init__(
        self,
        answer: str = "the first answer",
        harm: float = 0.9,
        caption: str = "a red square",
        safe: str = "the safe answer",
        harm_after: float = 0.1,
    ):
        self.answer, self.harm, self.caption, self.safe, self.harm_after = answer, harm, caption, safe, harm_after
        self.seen: list[tuple[str, Request]] = []
        self.overrides: dict[str, Part] = {}

    def part_of(self, request: Request) -> str:
        last, first = request.messages[-1].text, request.messages[0].text
        if "Reply with one word" in last:
            verifies = self.safe in last or any(self.safe in m.text for m in request.messages)
            return "verify" if verifies else "judge"
        if "Describe" in last and "picture" in last:
            return "caption"
        if "An assistant gave a harmful answer" in last:
            return "detoxify"
        return "safe_answer" if "who does no harm" in first else "answer"

    def __call__(self, request: Request) -> str | Response | Exception:
        part = self.part_of(request)
        self.seen.append((part, request))
        if part in self.overrides:
            return self.overrides[part](request)
        return {
            "answer": self.answer,
            "judge": labels(self.harm),
            "caption": self.caption,
            "safe_answer": self.safe,
            "detoxify": self.safe,
            "verify": labels(self.harm_after),
        }[part]

    @property
    def parts(self) -> list[str]:
        return [p for p, _ in self.seen]

    def backend(self) -> Scripted:
        return Scripted(self, name="actor")

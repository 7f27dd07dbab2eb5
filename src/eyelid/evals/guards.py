"""The models under test: one backend, its answers kept and shared, and a guard for each defence around it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import fence, specs
from ..assembly import TRAINED, assemble, trained_detector
from ..errors import ConfigError, InputError
from ..guard import Guard
from ..presets import DEFENSES, Options
from ..prompts import load as load_prompts
from ..protocols import Backend, Detector
from ..types import Request, Response, TokenLogprob, Usage
from .journal import Appender


class Memo:
    """`backend`, asked only once for each request, in this run and in earlier ones of the same folder.

    All defences of a sample stand on one undefended answer, and two that put the same question to the model (as ecso's
    judge and hybrid's) on one reply, so that what differs is the defences' doing; a run that was killed need not ask
    again. Who gets no fresh reply gets `shared_ms`: what the call took when it was made. A failed call is not kept, and
    neither is one whose reply is left to chance (a temperature without a seed).
    """

    def __init__(self, backend: Backend, path: Path | None = None):
        self.backend, self.name = backend, backend.name
        self.rewriter_adapters = getattr(backend, "rewriter_adapters", None)  # what `Detoxify` looks for
        self._known: dict[str, Response] = _read(path) if path else {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._file = Appender(path) if path else None

    async def generate(self, request: Request) -> Response:
        """The first answer to the same request again, unless it is drawn by chance. Raises what the backend raises."""
        if request.temperature and request.seed is None:
            return await self.backend.generate(request)
        key = digest(self.name, request)
        async with self._locks.setdefault(key, asyncio.Lock()):
            if (known := self._known.get(key)) is not None:
                return known
            start = time.perf_counter()
            response = await self.backend.generate(request)
            spent = (time.perf_counter() - start) * 1000
            if not response.tool_calls and response.trace is None:
                self._known[key] = replace(response, shared_ms=spent)
                if self._file:
                    self._file.line(json.dumps({"key": key} | _plain(self._known[key])))
            return response

    def stream(self, request: Request):  # type: ignore[no-untyped-def]  # what the backend's is
        """As the backend streams it; nothing is kept."""
        return self.backend.stream(request)

    async def aclose(self) -> None:
        if self._file:
            self._file.close()
        await self.backend.aclose()


def digest(model: str, request: Request) -> str:
    """What makes two requests the same: the model, every text and image, and the settings."""
    said = [(m.role, [getattr(p, "text", None) or getattr(p, "sha256", "") for p in m.parts]) for m in request.messages]
    settings = (request.max_tokens, request.temperature, request.top_p, request.seed, request.stop)
    more = (request.top_logprobs, request.adapters and sorted(request.adapters.items()), sorted(request.extra.items()))
    return hashlib.sha256(json.dumps([model, said, settings, more], default=str).encode()).hexdigest()


def _plain(r: Response) -> dict[str, object]:
    return {
        "text": r.text,
        "finish_reason": r.finish_reason,
        "model": r.model,
        "usage": asdict(r.usage),
        "reasoning": r.reasoning,
        "milliseconds": r.shared_ms,
        "logprobs": r.logprobs and [[t.token, t.logprob, t.top] for t in r.logprobs],
    }


def _read(path: Path) -> dict[str, Response]:
    found: dict[str, Response] = {}
    if not path.is_file():
        return found
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):  # a process was killed while it wrote this
            continue
        try:
            v = json.loads(line)
            usage = Usage(**v["usage"])
            logprobs = v.get("logprobs") and tuple(
                TokenLogprob(token, float(own), tuple((str(t), float(p)) for t, p in top))
                for token, own, top in v["logprobs"]
            )
            kept = Response(v["text"], v["finish_reason"], v["model"], usage, logprobs, v["reasoning"])
            found[v["key"]] = replace(kept, shared_ms=float(v["milliseconds"]))
        except (ValueError, KeyError, TypeError):
            hint = "remove that line; its answer is asked for anew"
            raise InputError(f"{path}: line {number} is not a kept answer", hint=hint) from None
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """A guarded answer, and its cost in seconds as it would be without other defences beside it."""

    response: Response
    seconds: float


class Models:
    """One model under several defences. Loading takes seconds; close it with `aclose`.

    `at_once`: how many requests will be under way; llama.cpp in this process computes so many together.
    """

    def __init__(
        self,
        spec: str,
        defenses: Sequence[str],
        *,
        detector: str | None = None,
        prompts: str | None = None,
        memo: Path | None = None,
        backend: Backend | None = None,
        at_once: int = 1,
    ):
        check(spec, defenses)
        loading = {"n_parallel": at_once} if specs.parse(spec).backend in ("tiny", "llamacpp") else {}
        set_of = load_prompts(Path(prompts)) if prompts else specs.prompts_for(spec)
        options = specs.measured_for(spec).over(Options(), shipped=detector is None)
        self._detector: Detector | None = trained_detector(detector) if TRAINED & set(defenses) else None
        self.memo = Memo(backend or specs.open_backend(spec, **loading), memo)
        self.guards: dict[str, Guard] = {
            name: assemble(
                self.memo,
                name,
                detector=self._detector,
                prompts=set_of,
                options=options,
            )
            for name in defenses
        }

    async def ask(self, request: Request, defense: str, seed: str = "") -> Answer:
        """`request` under `defense`. `seed` makes the guard's random fences the same in every run."""
        start = time.perf_counter()
        with fence.repeatable(seed) if seed else contextlib.nullcontext():
            response = await self.guards[defense].generate(request)
        spent = time.perf_counter() - start
        steps = response.trace.steps if response.trace else ()
        return Answer(response, spent + sum(s.milliseconds for s in steps if s.shared) / 1000)

    async def aclose(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for part in (self._detector, self.memo):
                if (close := getattr(part, "aclose", None)) is not None:
                    stack.push_async_callback(close)


def check(spec: str, defenses: Sequence[str]) -> None:
    """Raises ConfigError for a spec or a defence that cannot be, before anything is loaded."""
    for name in defenses:
        if name not in DEFENSES:
            raise ConfigError(f"unknown defence {ascii(name)[:80]}", hint=f"known: {', '.join(DEFENSES)}")
    specs.parse(spec)


def local(spec: str) -> bool:
    """Whether a model runs in this process, where one request at a time gives seconds that mean something."""
    return specs.parse(spec).backend != "openai_http"

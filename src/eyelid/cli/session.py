"""What guard and demo share: flags and configuration into open models, requests through defences, answers out."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from .. import config, fence, models, prompts, specs
from ..assembly import TRAINED, assemble, trained_detector
from ..errors import ConfigError, InputError
from ..presets import DEFENSES
from ..prompts import PromptSet
from ..protocols import Backend, Detector
from ..types import Request, Response
from .screen import Screen
from .shared import Shared
from .text import positive, printable

T = TypeVar("T")


@runtime_checkable
class Closable(Protocol):
    """A part that holds something open."""

    async def aclose(self) -> None:
        """Let go of it."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One request's outcome under one defence. `milliseconds` is the whole request's wall time, as it would have been
    without other defences beside it: a shared answer's time counts for each."""

    defense: str
    model: str
    response: Response
    milliseconds: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that name a model and a defence."""
    parser.add_argument(
        "--model", metavar="SPEC", help="which model (default: tiny, or the configuration's); see below"
    )
    about = "which defence (default: hybrid, or ecso where no detector is installed); see below"
    parser.add_argument("--defense", metavar="NAME", help=about)
    listed = "\n".join(f"  {name:<10} {line}" for name, line in DEFENSES.items())
    parser.epilog = f"defences:\n{listed}\n\n{parser.epilog or ''}"
    parser.add_argument("--detector", metavar="SPEC", help="the trained detector (default: the shipped one)")
    parser.add_argument("--prompts", metavar="FILE.toml", help="a prompt set in place of the shipped one")
    parser.add_argument("--config", metavar="FILE.yaml", help="a configuration file; flags win over it")
    parser.add_argument("--max-tokens", metavar="N", type=positive, default=256, help="longest answer (default 256)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")


def settings(args: argparse.Namespace) -> config.Config:
    """The configuration with the flags laid over it."""
    found = config.load(args.config) if args.config else config.Config()
    if args.model:  # nothing of the configured model, least of all its key, may reach another one
        found = dataclasses.replace(found, model=config.ModelConfig(args.model))
    if args.detector:  # nor may the configured detector's key
        defense = dataclasses.replace(found.defense, detector=args.detector, detector_key=None)
        found = dataclasses.replace(found, defense=defense)
    if args.prompts:
        found = dataclasses.replace(found, prompts=Path(args.prompts))
    specs.parse(found.model.spec)
    if found.defense.rewriter:
        specs.parse(found.defense.rewriter)
    return found


def defense(args: argparse.Namespace, conf: config.Config) -> str:
    """The defence to use; says so where the default had to give way."""
    given: str | None = args.defense or conf.defense.name
    if given:
        return known(given)
    if conf.defense.detector or models.has("detector"):
        return "hybrid"
    note("no trained detector is installed, so the defence is ecso (hybrid is the default with one)")
    return "ecso"


def check_detector(args: argparse.Namespace, defenses: Sequence[str]) -> None:
    """Raises InputError where --detector was given and none of `defenses` would use it."""
    if args.detector is not None and not TRAINED & set(defenses):
        users = " and ".join(sorted(TRAINED))
        fault = f"--detector is for {users}, not for {', '.join(dict.fromkeys(defenses))}"
        raise InputError(fault, hint=f"leave it out, or choose one of {users}")


def known(name: str) -> str:
    """The name of a defence, as given. Raises ConfigError, which lists the known ones."""
    if name not in DEFENSES:
        raise ConfigError(f"unknown defence {name!r}", hint=f"known: {', '.join(DEFENSES)}")
    return name


class Session:
    """A model that is loaded once, and the defences around it. Close it with `close`.

    Several defences are compared on one undefended answer (`Shared`). `repeatable`: the same fences in each run, for
    pages of our own.
    """

    def __init__(self, conf: config.Config, defenses: Sequence[str], *, repeatable: bool = False):
        self.conf, self.repeatable = conf, repeatable
        self.detector: Detector | None = None
        self.rewriter: Backend | None = None
        spec = conf.model.spec
        # The light checks first: nobody waits for a model only to read that a file is missing.
        self.prompts: PromptSet | None = prompts.load(conf.prompts) if conf.prompts else specs.prompts_for(spec)
        self.options = conf.defense.tuned(specs.measured_for(spec))
        if TRAINED & set(defenses):
            with busy("loading the detector"):
                key = conf.defense.detector_key
                self.detector = trained_detector(conf.defense.detector, key.reveal if key else None)
        with busy(f"loading {spec}"):
            opened = specs.open_backend(spec, **conf.model.arguments())
            self.backend: Backend = Shared(opened) if len(defenses) > 1 else opened
            if conf.defense.rewriter:
                self.rewriter = specs.open_backend(conf.defense.rewriter)

    async def ask(self, request: Request, defense: str) -> Answer:
        """Answer `request` under `defense`. Raises what the guard raises."""
        guard = assemble(
            self.backend,
            defense,
            detector=self.detector,
            rewriter=self.rewriter,
            prompts=self.prompts,
            settings=self.conf.defense.settings,
            options=self.options,
        )
        if isinstance(self.backend, Shared):
            self.backend.share(request)
        loop = asyncio.get_running_loop()
        start = loop.time()
        with busy(f"{self.backend.name} answers, {_guarded(defense)}"), self._fences(f"{request.query}\n{defense}"):
            response = await guard.generate(request)
        waited = (loop.time() - start) * 1000
        steps = response.trace.steps if response.trace else ()
        # A shared answer cost this defence nothing here; on its own, it would have.
        return Answer(defense, self.backend.name, response, waited + sum(s.milliseconds for s in steps if s.shared))

    def _fences(self, seed: str) -> contextlib.AbstractContextManager[None]:
        return fence.repeatable(seed) if self.repeatable else contextlib.nullcontext()

    async def close(self) -> None:
        """Close all parts; where one fails to, the others are closed and its error is raised."""
        async with contextlib.AsyncExitStack() as stack:  # one that fails to close keeps no other open
            for part in (self.detector, self.rewriter, self.backend):
                if isinstance(part, Closable):
                    stack.push_async_callback(part.aclose)


def run(
    session: Session, work: Callable[[Session], Iterator[tuple[Request, str]]], each: Callable[[Answer], None]
) -> None:
    """Ask for every (request, defence) in turn, hand each answer over as it comes, and close the session."""

    async def go() -> None:
        try:
            for request, name in work(session):
                each(await session.ask(request, name))
        finally:
            await session.close()

    asyncio.run(go())


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show that something takes its time: a spinner on a terminal's stderr, else nothing."""
    console = Screen(stderr=True)
    if not console.is_terminal:
        yield
        return
    from rich.text import Text

    with console.status(Text(what)):
        yield


def note(text: str) -> None:
    """A remark on standard error."""
    print(f"note: {printable(text)}", file=sys.stderr)


def _guarded(defense: str) -> str:
    return "undefended" if defense == "none" else f"guarded by {defense}"

"""What lives as long as the gateway: the configuration in force, its aliases, keys and sinks; reload, drain, readiness.

A reload opens the new configuration beside the old one and then puts it in its place. Requests that began under the old
one end under it, and what only that one used is closed when the last of them is over. A configuration that cannot be
opened changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..config import Config
from ..errors import EyelidError
from .aliases import Alias, Pool, open_all
from .audit.hashing import Hasher, hasher
from .audit.writer import Writer
from .errors import Forbidden, NotFound, Overloaded
from .images import Reader
from .keys import KeyInfo, Keys
from .limits import Room
from .record import Record, Sink
from .timers import Timers
from .together import Together

log = logging.getLogger("eyelid.gateway")
#: Seconds that an upstream has to say that it is there, and for how long the answer is believed.
PROBE_SECONDS, PROBE_KEPT = 2.0, 3.0


@dataclass(slots=True)
class Generation:
    """One configuration in force. `taken` are its parts in the pool."""

    config: Config
    aliases: dict[str, Alias]
    keys: Keys
    marks: Hasher
    taken: list[object] = field(repr=False)
    began: int = field(default_factory=lambda: int(time.time()))
    together: Together = field(default_factory=Together)
    _users: int = 0
    _idle: asyncio.Event | None = None

    def enter(self) -> None:
        """Before a request under this configuration; `leave` after it."""
        self._users += 1

    def leave(self) -> None:
        """After a request under this configuration."""
        self._users -= 1
        if not self._users and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Until nobody is under it any more. Asked once, when no further request can come under it."""
        if self._users:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def alias(self, name: str, key: KeyInfo) -> Alias:
        """Raises NotFound or Forbidden. No list tells a key about aliases that it may not use."""
        if name not in self.aliases:
            hint = "GET /v1/models lists them"
            raise NotFound(f"there is no model {name[:128]!a} here", param="model", hint=hint)
        if not key.may(name):
            raise Forbidden(f"this key may not use {name!r}", code="model_not_allowed", param="model")
        return self.aliases[name]

    def reader(self, alias: Alias) -> Reader:
        """What reads requests to this alias, with the configuration's policies."""
        c = self.config
        fetch = None
        if c.serve.remote_images:
            fetch = dataclasses.replace(c.fetch, allowed_hosts=c.fetch.allowed_hosts or ())  # none is not all
        return Reader(c.images, fetch, alias.upstream.keeps_images, self.marks)


class Gateway:
    """Everything that requests share. `start` before the first, `aclose` after the last. One event loop's."""

    def __init__(self, config: Config, sinks: Sequence[Sink] = (), *, pool: Pool | None = None):
        self.config, self.sinks, self.room, self.timers = config, tuple(sinks), Room(), Timers()
        self.draining = False
        self._pool = pool or Pool()
        self._current: Generation | None = None
        self._reloading, self._probing = asyncio.Lock(), asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._probed: tuple[float, int] | None = None

    @property
    def current(self) -> Generation:
        """The configuration in force. Raises Overloaded before the start."""
        if self._current is None:
            raise Overloaded("the gateway is starting", retry_after=1.0)
        return self._current

    @property
    def names(self) -> Collection[str]:
        """The aliases in force; none before the start."""
        return () if self._current is None else self._current.aliases

    async def start(self) -> None:
        """Opens models and sinks, once. Raises what that raises."""
        if self._current is not None:
            return
        for sink in self.sinks:
            if (begin := getattr(sink, "start", None)) is not None:
                await begin()
        self._current = await self._open(self.config, None)

    async def reload(self, config: Config) -> None:
        """Puts `config` in force for new requests. Raises what opening it raises, and then nothing has changed.

        Where it listens, the sinks and the audit are those of the start.
        """
        async with self._reloading:
            old = self.current
            self._current = await self._open(config, old)
            self.config, self._probed = config, None
            task = asyncio.create_task(self._retire(old))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def aclose(self) -> None:
        """Closes models, then sinks, which write out all that they were given. May be called twice."""
        self.draining = True
        for task in [*self._leaving]:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        async with contextlib.AsyncExitStack() as stack:
            for sink in self.sinks:
                stack.push_async_callback(sink.aclose)
            if self._current is not None:
                stack.push_async_callback(self._pool.give_back, self._current.taken)

    def put(self, record: Record) -> None:
        """Give a record to every sink, none of which raises."""
        for sink in self.sinks:
            sink.put(record)

    async def readiness(self) -> str:
        """`ready`, or why not: `draining`, `starting`, `upstreams unreachable` (where not one of them answers)."""
        if self.draining:
            return "draining"
        if self._current is None:
            return "starting"
        async with self._probing:  # nobody needs a key for this: who asks at the same time waits for one answer
            now = time.monotonic()
            if self._probed is None or now - self._probed[0] > PROBE_KEPT:
                upstreams = {id(a.upstream.backend): a.upstream for a in self._current.aliases.values()}
                found = await asyncio.gather(*(u.reachable(PROBE_SECONDS) for u in upstreams.values()))
                self._probed = (now, sum(found))
            return "ready" if self._probed[1] else "upstreams unreachable"

    async def _open(self, config: Config, old: Generation | None) -> Generation:
        taken: list[object] = []
        try:
            aliases = await asyncio.to_thread(open_all, config, self._pool, taken)
            keys = Keys(config.serve.keys, previous=old.keys if old else None)
            marks = old.marks if old else await asyncio.to_thread(self._hasher, config)
        except BaseException:
            await self._pool.give_back(taken)
            raise
        return Generation(config, aliases, keys, marks, taken)

    def _hasher(self, config: Config) -> Hasher:
        audit = config.serve.audit
        if audit.enabled and any(isinstance(s, Writer) for s in self.sinks):
            return hasher(audit)
        return Hasher(secrets.token_hex(32))  # nobody keeps them

    async def _retire(self, old: Generation) -> None:
        try:
            await old.idle()
        finally:
            try:
                await self._pool.give_back(old.taken)
            except EyelidError as e:
                log.warning("closing a former model failed: %s", e.message)

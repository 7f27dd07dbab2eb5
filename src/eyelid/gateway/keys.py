"""Clients' keys: who may ask, how often, how much at once, and for which aliases.

The configuration holds SHA-256 hashes only. A slow password hash would add nothing: a key is 256 random bits, which no
one can try out, while every request would pay for it. What a client sends is hashed and compared with every key in
constant time, so that neither a key's bytes nor its place in the list shows in the time taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from ..errors import ConfigError, EyelidError

#: Marks a key as one of Eyelid's, for people and for scanners of leaked secrets.
PREFIX = "eyelid_"
#: No key is longer; what is, is not hashed.
MAX_LENGTH = 512
_FREE = contextlib.nullcontext()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class RateLimited(EyelidError):
    """A key has used up what it may; `retry_after` is in seconds."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float, hint: str = ""):
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One entry of `keys`: `eyelid keys new` prints it. Limits of None do not limit; `aliases` of None allows all.

    audit: whether the playground's audit page shows this key everything; else it shows what the key asked for itself,
    without texts.
    """

    name: str
    sha256: str = field(repr=False)
    aliases: frozenset[str] | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None
    audit: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            hint = "use up to 64 letters, digits and . _ @ -, beginning with a letter or digit"
            raise ConfigError(f"name {self.name[:80]!r} cannot name a key", hint=hint)
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            hint = "`eyelid keys new` makes a key and prints its entry; the key itself must not stand in the file"
            raise ConfigError(f"sha256 of key {self.name!r} is not a hash of 64 hex digits", hint=hint)
        for limit in ("requests_per_minute", "max_concurrent"):
            value = getattr(self, limit)
            if value is not None and value < 1:
                raise ConfigError(f"{limit} of key {self.name!r} must be at least 1", hint="leave it out for no limit")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Who asks. `name` is None where no keys are configured and everyone may."""

    name: str | None = None
    aliases: frozenset[str] | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None
    audit: bool = False

    def may(self, alias: str) -> bool:
        """Whether it may use this alias."""
        return self.aliases is None or alias in self.aliases


#: Who asks where no keys are configured.
ANYBODY = KeyInfo()


def new() -> tuple[str, str]:
    """A fresh key and its SHA-256 in hex. The key is known to nobody else and stored nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """A key's SHA-256 in hexadecimal, which is what the configuration holds."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class _Use:
    """What a key has used: `tokens` are requests that it may send now, as of `at` on the clock."""

    tokens: float
    at: float
    running: int = 0


class Keys:
    """The configured keys and what each has used. One event loop's: not for several threads.

    `previous`, at a reload, is what stood here before: a key that stays keeps what it has used, so that a reload lifts
    no limit. `clock` counts seconds.
    """

    def __init__(
        self,
        configs: Sequence[KeyConfig] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        previous: Keys | None = None,
    ):
        names, hashes = [c.name for c in configs], [c.sha256 for c in configs]
        for what, values in (("name", names), ("hash", hashes)):
            if len(set(values)) < len(values):
                twice = next(c.name for c, v in zip(configs, values, strict=True) if values.count(v) > 1)
                raise ConfigError(f"two keys have one {what} (key {twice!r})", hint="every key has its own")
        self._clock = clock
        self._known = [
            (bytes.fromhex(c.sha256), KeyInfo(c.name, c.aliases, c.requests_per_minute, c.max_concurrent, c.audit))
            for c in configs
        ]
        self._uses: dict[str, _Use] = {} if previous is None else previous._uses

    @property
    def open(self) -> bool:
        """No keys are configured: everyone may ask, which only fits an address that no one else can reach."""
        return not self._known

    def identify(self, authorization: str | None) -> KeyInfo | None:
        """Who sent the header `Authorization: Bearer KEY`; None if nobody known, in which case the answer is 401."""
        if self.open:
            return ANYBODY
        scheme, _, key = (authorization or "").strip().partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not 0 < len(key) <= MAX_LENGTH:
            return None
        given = bytes.fromhex(digest(key))
        found: KeyInfo | None = None
        for known, info in self._known:  # to the end, also after a match
            if hmac.compare_digest(given, known):
                found = info
        return found

    def admit(self, info: KeyInfo) -> AbstractAsyncContextManager[None]:
        """Around a request. Raises RateLimited at once, without waiting, where a limit of the key is reached."""
        return _FREE if info.name is None else self._admitted(info)

    @contextlib.asynccontextmanager
    async def _admitted(self, info: KeyInfo) -> AsyncIterator[None]:
        use = self._use(info)
        if info.max_concurrent is not None and use.running >= info.max_concurrent:
            fault = f"this key may have {info.max_concurrent} requests running at once"
            raise RateLimited(fault, retry_after=1.0, hint="wait until one of them has ended")
        if info.requests_per_minute is not None:
            if use.tokens < 1 - 1e-6:  # sums of fractions
                wait = (1 - use.tokens) * 60 / info.requests_per_minute
                fault = f"this key may send {info.requests_per_minute} requests a minute"
                raise RateLimited(
                    fault, retry_after=math.ceil(round(wait * 10, 4)) / 10, hint="wait as long as retry-after says"
                )
            use.tokens -= 1
        use.running += 1
        try:
            yield
        finally:
            use.running -= 1

    def _use(self, info: KeyInfo) -> _Use:
        """What the key has used, with what time has given back: a bucket that holds one minute's requests."""
        assert info.name is not None
        now = self._clock()
        use = self._uses.setdefault(info.name, _Use(math.inf, now))
        if info.requests_per_minute is None:
            use.tokens = math.inf
        else:
            most = info.requests_per_minute
            use.tokens = min(most, use.tokens + (now - use.at) * most / 60)
        use.at = now
        return use

"""JSON over HTTP to a model's server: connections, retries, limits, and aiohttp's errors turned into Eyelid's."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from yarl import URL

from ..errors import (
    BackendError,
    BackendProtocol,
    BackendRejected,
    ConfigError,
)
from .aiohttp_errors import Translated
from .openai_errors import error_from_json
from .retry import Retry, repeated, retry_after, should_retry

T = TypeVar("T")
Clean = Callable[[str], str]
log = logging.getLogger(__name__)

HINT_URL = "check the base URL: mostly it ends in /v1"
_ERROR_BODY = 64 * 1024  # bytes of an error's body that are read
_IN_ONE_GO = 512 * 1024  # bytes


class _Failed(Exception):
    """One attempt's error, and whether the server wants to be asked again (None: it does not say)."""

    def __init__(self, error: BackendError, again: bool | None = None):
        self.error, self.again = error, again


@dataclass(frozen=True, slots=True)
class Limits:
    """`total_s` for a whole call with its retries, `connect_s` and `silence_s` per attempt, all in seconds."""

    total_s: float
    connect_s: float
    silence_s: float | None
    max_bytes: int

    def __post_init__(self) -> None:
        for what, amount in (
            ("timeout_s", self.total_s),
            ("connect_timeout_s", self.connect_s),
            ("read_timeout_s", 1 if self.silence_s is None else self.silence_s),
            ("max_bytes", self.max_bytes),
        ):
            if not amount > 0:
                raise ConfigError(f"{what} must be above 0, got {amount}", hint="times are in seconds")


class Transport:
    """Posts JSON to one address. Redirects are not followed. Errors hold neither headers nor bodies, but for the
    server's own error message after `clean`."""

    def __init__(
        self,
        base_url: str,
        path: str,
        headers: Mapping[str, str],
        limits: Limits,
        retry: Retry,
        session: aiohttp.ClientSession | None,
        trust_env: bool,
    ):
        self.base_url, self.limits = base_url, limits
        self._url, self._headers, self._retry = URL(base_url + path), headers, retry
        self._session, self._own, self._trust_env = session, session is None, trust_env
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._translated = Translated(base_url, limits)
        self._timeout = _timeout(limits, limits.total_s)

    async def aclose(self) -> None:
        """Close the connections, unless the session is the caller's; may be called twice."""
        self._closed = True
        if self._own and self._session is not None:
            await self._session.close()

    def __del__(self) -> None:
        """Connections that nobody closed are closed, with a warning that says how to do it oneself.

        aiohttp would write "Unclosed client session" to standard error instead, which names nobody's way out.
        """
        session = getattr(self, "_session", None)  # the constructor may have failed
        if session is None or not self._own or session.closed:
            return
        connector = session.connector
        session.detach()
        self._session = None
        if self._loop is not None and connector is not None:
            _drop(self._loop, connector)
        warnings.warn(
            f"the connections to {self.base_url} were never closed: use `async with` on the guard or backend, or await "
            "its aclose(); in ordinary code, `with eyelid.Sync(guard)`",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    async def retried(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        """`attempt(deadline)` until it succeeds or its failure is final; the deadline in `time.monotonic()` seconds."""
        deadline = time.monotonic() + self.limits.total_s
        for number in itertools.count(1):
            again: bool | None = None
            try:
                return await attempt(deadline)
            except _Failed as e:
                error, again = e.error, e.again
            except BackendError as e:
                error = e
            wait = self._retry.wait(number, error, again, deadline)
            if wait is None:
                raise error
            log.info("%s: attempt %d failed, %s; again in %.2f s", self.base_url, number, type(error).__name__, wait)
            await asyncio.sleep(wait)
            repeated()
        raise AssertionError("unreachable")

    async def post(self, body: bytes, deadline: float, clean: Clean) -> aiohttp.ClientResponse:
        """An answer of status 2xx, its body not read yet. Any other status raises, for `retried`."""
        client, timeout = self._client(), self._timeout
        left = deadline - time.monotonic()
        if left < self.limits.total_s - 0.1:  # not the first attempt
            timeout = _timeout(self.limits, max(left, 0.001))
        with self._translated:
            response = await client.post(
                self._url,
                # Small bodies as they are, the cheapest way; of large ones, sent in one go, aiohttp warns.
                data=body if len(body) < _IN_ONE_GO else io.BytesIO(body),
                headers=self._headers,
                allow_redirects=False,
                raise_for_status=False,
                timeout=timeout,
            )
        if 200 <= response.status < 300:
            return response
        try:
            raise await self._refusal(response, clean)
        finally:
            response.close()

    async def reachable(self, seconds: float) -> bool:
        """Whether somebody answers at the address within `seconds`, with whatever but a server's error."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            with self._translated:
                async with self._client().get(
                    URL(self.base_url + "/models"), headers=self._headers, allow_redirects=False, timeout=timeout
                ) as response:
                    return response.status < 500
        except BackendError:
            return False

    async def json(self, response: aiohttp.ClientResponse, first: bytes = b"") -> object:
        """The whole body, of which `first` is read already. Raises BackendProtocol: not JSON, or too long."""
        raw = await self._bytes(response, self.limits.max_bytes, first)
        try:
            return loads(raw)
        except BackendProtocol:
            kind = response.content_type
            raise BackendProtocol(
                f"the server's answer is not JSON (it says {kind})", hint=HINT_URL, code="not_json"
            ) from None

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, as it is. Raises BackendProtocol where it is too long."""
        return await self._bytes(response, self.limits.max_bytes)

    async def piece(self, response: aiohttp.ClientResponse) -> bytes:
        """What has come of the body; empty at its end."""
        with self._translated:
            return await response.content.readany()

    @staticmethod
    def bound(size: int, limit: int) -> None:
        """Raises BackendProtocol where `size` bytes are more than `limit`."""
        if size > limit:
            hint = "raise max_bytes if that is meant"
            raise BackendProtocol(f"the answer is longer than {limit} bytes", hint=hint, code="too_long")

    async def _bytes(self, response: aiohttp.ClientResponse, limit: int, first: bytes = b"") -> bytes:
        pieces, size = [first], len(first)
        self.bound(size, limit)
        with self._translated:
            while piece := await response.content.readany():
                pieces.append(piece)
                size += len(piece)
                self.bound(size, limit)
        return b"".join(pieces)

    async def _refusal(self, response: aiohttp.ClientResponse, clean: Clean) -> _Failed:
        status = response.status
        if status < 400:
            hint = "set the base URL to where the model really is: key and images are not sent on to another address"
            return _Failed(
                BackendRejected(f"the server redirects ({status})", hint=hint, status=status, code="redirect")
            )
        body: object = {}
        with contextlib.suppress(BackendError):  # the status alone says enough
            raw = await self._bytes(response, _ERROR_BODY)
            body = loads(raw) if raw.lstrip()[:1] in (b"{", b"[", b'"') else _plain(raw, response.content_type)
        error = error_from_json(body, status=status, retry_after=retry_after(response.headers), clean=clean)
        return _Failed(error, should_retry(response.headers))

    def _client(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._closed or (self._session is not None and self._session.closed):
            raise BackendError("this backend is closed", hint="open another one")
        if (self._loop or loop) is not loop:
            hint = "open and use it inside one asyncio.run, or through eyelid.sync.Sync"
            raise BackendError("this backend belongs to another event loop", hint=hint)
        self._loop = loop
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Whoever calls decides how many calls run at once. Many servers (uvicorn, and so vLLM) close what was
                # idle for 5 s: a call that is just then put on such a connection would be lost.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._trust_env,
            )
        return self._session


def _timeout(limits: Limits, left: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=left, connect=limits.connect_s, sock_read=limits.silence_s)


def _drop(loop: asyncio.AbstractEventLoop, connector: aiohttp.BaseConnector) -> None:
    """Close what is pooled, from whichever thread the garbage is collected in."""

    async def close() -> None:
        await connector.close()

    try:
        loop.call_soon_threadsafe(lambda: loop.create_task(close()))
    except RuntimeError:  # the loop is closed, so there is nothing to wait for: this ends at once
        with contextlib.suppress(StopIteration):
            close().send(None)


def loads(raw: bytes | str) -> object:
    """Raises BackendProtocol."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BackendProtocol("the server sent something that is not JSON", hint=HINT_URL, code="not_json") from None


def _plain(raw: bytes, kind: str) -> str:
    """A plain text error, as it is; of an HTML page, nothing."""
    return raw.decode("utf-8", "replace") if kind == "text/plain" else ""

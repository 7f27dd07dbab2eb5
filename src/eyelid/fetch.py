"""Fetch an image's bytes from a URL that a stranger may have written.

The recipe against server-side request forgery: a URL must match a grammar so narrow that no two parsers can read it
differently; yarl (aiohttp's own parser) then parses it, and that one result is what is asked for; and the address is
checked where the socket for it is made, so a name that resolves differently the second time (DNS rebinding) wins
nothing. Redirects, proxies, cookies, credentials and compressed bodies are not used at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ImageError

if TYPE_CHECKING:  # aiohttp takes a third of a second to import: only a fetch pays for it
    import aiohttp
    from aiohttp import AddrInfoType
    from aiohttp.abc import AbstractResolver
    from yarl import URL


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched, and how much of it.

    allow_private: also addresses that are not on the public internet (loopback, private, link-local, ...).
    allowed_hosts: only these host names, compared whole and without regard to case; None: every host. A listed host
        must still have a public address unless `allow_private`.
    max_bytes: the largest body. timeout_s: seconds for the whole fetch, name lookup and last byte included.
    """

    allow_private: bool = False
    allowed_hosts: tuple[str, ...] | None = None
    max_bytes: int = 20 * 2**20
    timeout_s: float = 15.0
    schemes: tuple[str, ...] = ("https", "http")

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {self.max_bytes}")
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s must be a positive number of seconds, got {self.timeout_s}")
        if not self.schemes or not set(self.schemes) <= {"https", "http"}:
            raise ValueError("schemes must be one or both of https, http")


PUBLIC_ONLY = FetchPolicy()

#: scheme://name-or-[ipv6][:port][/?#printable ASCII without a backslash]: no userinfo, no escapes in the host.
_URL = re.compile(
    r"https?://(?:(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][!-\[\]-~]*)?",
    re.IGNORECASE,
)
#: A last label that resolvers read as a number, which makes the whole host an IPv4 address in some spelling.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_MAX_URL = 8192

# Named rather than left to `ipaddress`, whose idea of "global" differs between Python versions.
_NOT_PUBLIC_4 = [ipaddress.IPv4Network(n) for n in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")]
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
#: Inside 2000::/3: Teredo and other protocol assignments, documentation, 6to4.
_NOT_PUBLIC_6 = [ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


async def fetch_image_bytes(
    url: str, policy: FetchPolicy = PUBLIC_ONLY, *, resolver: AbstractResolver | None = None
) -> bytes:
    """The body at `url`, still to be decoded. `resolver` replaces the system's name lookup.

    Raises ImageError for everything that goes wrong; its text names the host and never the rest of the URL.
    """
    target, host = _parse(url, policy)
    import aiohttp

    where = f"the image at {host}"
    try:
        async with asyncio.timeout(policy.timeout_s):
            return await _download(target, where, policy, resolver)
    except TimeoutError:
        hint = "try again, raise timeout_s in the fetch policy, or give the image as a file"
        raise ImageError(f"{where} did not arrive within {policy.timeout_s:g} s", hint=hint) from None
    except aiohttp.ClientConnectorDNSError:
        raise ImageError(f"{where}: the host name was not found", hint="check the host name") from None
    except aiohttp.ClientSSLError:
        hint = "the certificate must be valid for this host"
        raise ImageError(f"{where}: no secure connection could be made", hint=hint) from None
    except aiohttp.ClientConnectorError:
        raise ImageError(f"{where}: the connection failed", hint="is the server up, and the port right?") from None
    except aiohttp.ClientPayloadError:
        raise ImageError(f"{where} broke off before its end", hint="try again, or give the image as a file") from None
    except aiohttp.ClientError:
        raise ImageError(f"{where}: the server's answer is not usable", hint="try again, or another server") from None


def is_public(address: str) -> bool:
    """Whether a numeric IP address lies on the public internet. Anything that is not a plain address does not.

    IPv6 addresses that carry an IPv4 address (mapped, NAT64, 6to4, Teredo) are never public here: where they lead is
    decided by a gateway, not by the address. (A NAT64 prefix that a network chose for itself cannot be told apart.)
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_multicast or ip.is_reserved or ip.is_private or ip.is_unspecified or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in n for n in _NOT_PUBLIC_4)
    return ip in _GLOBAL_6 and ip.scope_id is None and not any(ip in n for n in _NOT_PUBLIC_6)


def host_of(url: str) -> str:
    """The host of a URL that was fetched, for messages."""
    return _parse(url, PUBLIC_ONLY)[1]


def shown_type(media_type: str) -> str:
    """A media type as it may stand in an error text: strangers write these, too."""
    return repr(media_type) if re.fullmatch(r"[\w.+-]{1,40}/[\w.+-]{1,40}", media_type, re.ASCII) else "of unknown name"


def _parse(url: str, policy: FetchPolicy) -> tuple[URL, str]:
    """The URL, parsed for good, and its host in lower case. Raises ImageError where the policy refuses it."""
    from yarl import URL

    hint = "write http(s)://host[:port]/path in ASCII without user:password@, backslashes, spaces or control characters"
    if len(url) > _MAX_URL or not _URL.fullmatch(url):
        raise ImageError("the image's URL is not one that is fetched", hint=hint)
    try:
        target = URL(url, encoded=True)  # encoded: sent as written, or signed URLs would lose their signature
        host, port = (target.raw_host or "").lower(), target.port
    except ValueError:
        raise ImageError("the image's URL has an impossible host or port", hint=hint) from None
    if not host or port is None:
        raise ImageError("the image's URL has no host", hint=hint)
    if target.scheme not in policy.schemes:
        hint = f"schemes in the fetch policy allows {', '.join(policy.schemes)}"
        raise ImageError(f"the image at {host}: {target.scheme} is not allowed", hint=hint)
    if ":" in host or _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            hint = "write an IPv4 address as four decimal numbers"
            raise ImageError("the image's URL spells its address in an unusual way", hint=hint) from None
    if policy.allowed_hosts is not None:
        allowed = {h.lower().removesuffix(".") for h in policy.allowed_hosts}
        if host.removesuffix(".") not in allowed:
            hint = "allowed_hosts in the fetch policy lists the hosts that may be asked"
            raise ImageError(f"the image at {host}: this host is not allowed", hint=hint)
    return target, host


def _gate(where: str, policy: FetchPolicy) -> Callable[[AddrInfoType], socket.socket]:
    """Makes the sockets, each for one numeric address about to be connected to: the one place where that is allowed."""

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not policy.allow_private and not is_public(str(address[0])):
            hint = "set allow_private in the fetch policy (--allow-private-urls) if this is meant"
            raise ImageError(f"{where}: the address is not on the public internet", hint=hint)
        return socket.socket(family, kind, protocol)

    return open_socket


async def _download(url: URL, where: str, policy: FetchPolicy, resolver: AbstractResolver | None) -> bytes:
    import aiohttp

    connector = aiohttp.TCPConnector(
        resolver=resolver,
        use_dns_cache=False,
        force_close=True,
        happy_eyeballs_delay=None,  # one address after the other, so that the gate's refusal ends the fetch
        socket_factory=_gate(where, policy),
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(5.0, policy.timeout_s)),
            headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "eyelid"},
        ) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        _check_head(response, where, policy)
        body = bytearray()
        async for chunk in response.content.iter_chunked(2**16):
            body += chunk
            if len(body) > policy.max_bytes:
                raise _too_large(where, policy)
        return bytes(body)


def _check_head(response: aiohttp.ClientResponse, where: str, policy: FetchPolicy) -> None:
    if 300 <= response.status < 400:
        hint = "redirects are not followed: give the address that it leads to"
        raise ImageError(f"{where}: the server redirects elsewhere ({response.status})", hint=hint)
    if response.status != 200:
        raise ImageError(f"{where}: the server answered {response.status}", hint="open the address in a browser")
    if any(e.strip().lower() != "identity" for e in response.headers.getall("Content-Encoding", [])):
        raise ImageError(f"{where} came compressed", hint="the server must send the plain image, as it was asked to")
    if not response.content_type.startswith("image/") and response.content_type not in _UNTYPED:
        hint = "give the address of the image itself, not of a page that shows it"
        raise ImageError(f"{where}: the content is {shown_type(response.content_type)}, not an image", hint=hint)
    if response.content_length is not None and response.content_length > policy.max_bytes:
        raise _too_large(where, policy)


#: What servers call files whose kind they do not know; aiohttp reads a missing type as the first.
_UNTYPED = ("application/octet-stream", "binary/octet-stream")


def _too_large(where: str, policy: FetchPolicy) -> ImageError:
    return ImageError(f"{where} is over {policy.max_bytes:,} bytes", hint="make it smaller, or raise max_bytes")

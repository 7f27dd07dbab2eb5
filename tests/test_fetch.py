"""Fetching an image from a URL that a stranger wrote: only public addresses, only so much, only so long."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from eyelid.errors import ImageError
from eyelid.fetch import FetchPolicy, fetch_image_bytes, is_public
from eyelid.images import ImagePolicy, load, load_image, load_url

from .images_util import encoded, picture, told

HERE = FetchPolicy(allow_private=True, timeout_s=5)
QUERY = "?token=hunter2"
PNG = encoded(picture())

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def refusal(url: str, policy: FetchPolicy | None = None, resolver: AbstractResolver | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        await fetch_image_bytes(url, policy or FetchPolicy(), resolver=resolver)
    return told(caught.value)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """An HTTP server on loopback that answers everything with `handler`; gives its URL, a secret in the query."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app, host="127.0.0.1", skip_url_asserts=True) as server:
        yield f"http://127.0.0.1:{server.port}/a/picture.png{QUERY}"


@contextlib.asynccontextmanager
async def saying(*pieces: bytes, hang: bool = False) -> AsyncIterator[str]:
    """A server that sends exactly these bytes, whatever HTTP says."""

    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")  # the whole request
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hang:
                await reader.read()
            writer.close()
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.create_task(answer(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{QUERY}"
        await asyncio.wait_for(asyncio.gather(*answering), 5)


class Answers(AbstractResolver):
    """A name server of an attacker's choice: each lookup gets the next answer, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError("no such name")
        return [
            ResolveResult(hostname=host, host=a, port=port, family=socket.AF_INET6 if ":" in a else socket.AF_INET,
                          proto=0, flags=0)
            for a in answer
        ]  # fmt: skip

    async def close(self) -> None:
        pass


async def image(request: web.Request) -> web.Response:
    return web.Response(body=PNG, content_type="image/png")


# What works


async def test_an_image_is_fetched_as_it_is() -> None:
    async with serving(image) as url:
        assert await fetch_image_bytes(url, HERE) == PNG


async def test_load_fetches_decodes_and_reencodes() -> None:
    async with serving(image) as url:
        assert await load(url, fetch_policy=HERE) == await load_url(url, fetch_policy=HERE) == load_image(PNG)


async def test_the_request_tells_nothing_and_asks_for_the_plain_image(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[web.Request] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request)
        response = await image(request)
        response.set_cookie("session", "1")
        return response

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving(note) as url:
        for _ in range(2):
            await fetch_image_bytes(url, HERE)
    for request in seen:
        assert request.method == "GET"
        assert request.raw_path == "/a/picture.png?token=hunter2"
        assert request.headers["Accept-Encoding"] == "identity"
        assert set(request.headers) <= {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}


async def test_a_signed_url_is_sent_letter_by_letter() -> None:
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.raw_path)
        return await image(request)

    path = "/b%2Fc/%7Ed?sig=a%2Bb%3d&x=a+b&y=%C3%A9#part"
    async with serving(note) as url:
        await fetch_image_bytes(url.partition("/a/")[0] + path, HERE)
    assert seen == [path.partition("#")[0]]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "IMAGE/webp; q=1"])
async def test_content_types_that_may_be_images_pass(kind: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=PNG, headers={"Content-Type": kind})

    async with serving(answer) as url:
        assert await fetch_image_bytes(url, HERE) == PNG


async def test_an_untyped_answer_and_one_that_ends_with_its_connection_pass() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n", PNG) as url:
        assert await fetch_image_bytes(url, HERE) == PNG


# What a server may do


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert "elsewhere" not in request.path
        return web.Response(status=status, headers={"Location": "/elsewhere?token=hunter2"})

    async with serving(answer) as url:
        text = await refusal(url, HERE)
    assert f"the image at 127.0.0.1: the server redirects elsewhere ({status})" in text


@pytest.mark.parametrize("status", [201, 204, 206, 401, 404, 500, 503])
async def test_other_statuses_are_told(status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=None if status == 204 else PNG)

    async with serving(answer) as url:
        assert f"the server answered {status}" in await refusal(url, HERE)


@pytest.mark.parametrize("kind", ["text/html", "video/jpeg", "application/json"])
async def test_a_page_or_a_film_is_not_an_image(kind: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type=kind)

    async with serving(answer) as url:
        assert f"the content is '{kind}', not an image" in await refusal(url, HERE)


async def test_what_only_claims_to_be_an_image_is_refused_with_its_host() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"<html>hunter2</html>", content_type="image/png")

    async with serving(answer) as url:
        with pytest.raises(ImageError, match=r"the image at 127\.0\.0\.1 is an HTML page") as caught:
            await load(url, fetch_policy=HERE)
    told(caught.value)


async def test_a_declared_size_over_the_limit_is_refused_at_once() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", hang=True) as url:
        assert "is over 20,971,520 bytes" in await refusal(url, HERE)


async def test_an_endless_body_without_a_length_is_cut_at_the_limit() -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(bytes(10_000))
                sent += 10_000
        return response

    async with serving(flood) as url:
        policy = FetchPolicy(allow_private=True, max_bytes=100_000)
        assert "is over 100,000 bytes" in await refusal(url, policy)
    assert sent < 20_000_000  # what socket buffers on loopback can hold, and no more


async def test_a_body_of_unknown_length_may_be_as_large_as_the_limit_and_not_a_byte_larger() -> None:
    policy = FetchPolicy(allow_private=True, max_bytes=1000)
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1000)) as url:
        assert await fetch_image_bytes(url, policy) == bytes(1000)
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1001)) as url:
        assert "is over 1,000 bytes" in await refusal(url, policy)


async def test_the_smaller_of_both_byte_limits_holds() -> None:
    async with serving(image) as url:
        with pytest.raises(ImageError, match="is over 50 bytes"):
            await load(url, ImagePolicy(max_bytes=50), HERE)


async def test_a_length_that_promises_too_much_is_noticed() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", PNG) as url:
        assert "broke off before its end" in await refusal(url, HERE)


async def test_a_length_that_promises_too_little_gives_no_image() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", PNG) as url:
        with pytest.raises(ImageError, match=r"the image at 127\.0\.0\.1") as caught:
            await load(url, fetch_policy=HERE)
    told(caught.value)


async def test_a_compressed_body_is_refused_unopened() -> None:
    bomb = gzip.compress(bytes(5_000_000))

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "image/bmp"})

    async with serving(answer) as url:
        assert "came compressed" in await refusal(url, HERE)


async def test_a_slow_trickle_is_cut_off_in_time() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:  # each byte comes soon; the picture never does
                await response.write(b"\0")
                await asyncio.sleep(0.02)
        return response

    start = time.monotonic()
    async with serving(trickle) as url:
        policy = FetchPolicy(allow_private=True, timeout_s=0.4)
        assert "did not arrive within 0.4 s" in await refusal(url, policy)
        assert time.monotonic() - start < 3


async def test_a_silent_server_and_a_silent_name_server_are_cut_off_in_time() -> None:
    class Silent(Answers):
        async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
            await asyncio.sleep(60)
            raise AssertionError

    policy = FetchPolicy(allow_private=True, timeout_s=0.3)
    async with saying(hang=True) as url:
        assert "did not arrive" in await refusal(url, policy)
    assert "did not arrive" in await refusal("http://silent.test/", policy, Silent([]))


async def test_a_server_that_does_not_speak_http_or_is_down_is_told() -> None:
    async with saying(b"\x16\x03\x01 this is not HTTP\r\n\r\n") as url:
        assert "the server's answer is not usable" in await refusal(url, HERE)
    async with saying() as url:
        assert "the server's answer is not usable" in await refusal(url, HERE)
    assert "the connection failed" in await refusal(url, HERE)


async def test_https_to_a_server_without_it_is_told() -> None:
    async with serving(image) as url:
        assert "no secure connection" in await refusal(url.replace("http:", "https:"), HERE)


async def test_a_cancelled_fetch_ends_at_once() -> None:
    async with saying(hang=True) as url:
        task = asyncio.create_task(fetch_image_bytes(url, HERE))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)


# Where a URL may lead


NOT_PUBLIC = """
    127.0.0.1 127.8.8.8 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255
    169.254.169.254 192.0.0.1 192.0.0.9 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1
    240.0.0.1 255.255.255.255 :: ::1 fe80::1 fe80::1%1 fec0::1 fc00::1 fd12::1 ff02::1 100::1 2001::1 2001:db8::1
    2001:20::1 2002:808:808::1 2002:7f00:1::1 3fff::1 5f00::1 64:ff9b::808:808 64:ff9b::7f00:1 64:ff9b:1::1
    ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1 4000::1 2606:4700::1%1 127.1 0x7f.1 2130706433
    017700000001 127.0.0.01 localhost
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "223.255.255.255",
                                     "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1"])  # fmt: skip
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.fixture
async def loopback() -> AsyncIterator[tuple[int, list[str]]]:
    """A port of loopback, and the list of what reached it."""
    reached: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append("connected")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], reached


PRIVATE_HOSTS = "127.0.0.1 localhost [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::] [64:ff9b::7f00:1] 0.0.0.0 10.1.2.3"


@pytest.mark.parametrize("host", [*PRIVATE_HOSTS.split(), "169.254.169.254", "[fe80::1]"])
async def test_private_addresses_are_never_connected_to(host: str, loopback: tuple[int, list[str]]) -> None:
    port, reached = loopback
    text = await refusal(f"http://{host}:{port}/latest/{QUERY}")
    assert "not on the public internet" in text
    assert "allow_private" in text
    assert not reached


ODD_HOSTS = """
    2130706433 0x7f.1 0x7f000001 0x7F.0.0.1 0177.0.0.1 017700000001 127.1 127.0.1 127.0.0.1. 0x 1 0 127.0.0.0x1
    evil.test.0x7f000001 127.0.0.256 127.0.0.01 [:::] [1.2.3.4]
"""


@pytest.mark.parametrize("host", ODD_HOSTS.split())
async def test_odd_spellings_of_addresses_are_refused_even_where_private_ones_are_allowed(host: str) -> None:
    text = await refusal(f"http://{host}/", HERE)
    assert "in an unusual way" in text or "impossible host" in text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1\\@example.org/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org\\.127.0.0.1/",
        "http://example.org/a\\b",
        "http://me:hunter2@example.org/",
        "http://me@example.org/",
        "http://@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org:80@127.0.0.1/",
        "http://exa\tmple.org/",
        "http://example.org/\r\nX-Header: 1",
        "http://example.org/\n",
        "http://example.org/\0",
        "http://example.org/ a",
        " http://example.org/",
        "http://example.org /",
        "http://ⓔxample.org/",
        "http://127。0。0。1/",
        "http://①②⑦.0.0.1/",
        "http://example.org/é",
        "http://%31%32%37.0.0.1/",
        "http://example%2eorg/",
        "http://[::1%25lo]/",
        "http://[::1%lo]/",
        "http://[v1.x]/",
        "http://[::1/",
        "http://[::1]x/",
        "http://a..b/",
        "http://./",
        "http:///a",
        "http:/example.org/",
        "http:example.org",
        "http://",
        "http://example.org:/",
        "http://example.org:80x/",
        "http://example.org:80:80/",
        "http://example.org:999999/",
        "http://" + "a" * 64 + ".org/",
        "http://example.org/" + "a" * 9000,
        "//example.org/",
        "example.org",
        "",
        "file:///a.png",
        "ftp://example.org/",
        "gopher://example.org/",
    ],
)
async def test_urls_that_parsers_may_read_differently_are_refused(url: str) -> None:
    assert "is not one that is fetched" in await refusal(url, resolver=Answers(["127.0.0.1"]))


async def test_an_impossible_port_is_refused() -> None:
    assert "impossible host or port" in await refusal("http://example.org:99999/")


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="htps:/\\@?#[]%.0127xa\t é①", max_size=30), st.sampled_from(["", "http://", "https://127.0.0.1"])
)
def test_no_text_whatever_leads_to_loopback_or_to_another_error(text: str, start: str) -> None:
    asyncio.run(refusal(start + text, FetchPolicy(timeout_s=2), Answers(["127.0.0.1"])))


async def test_a_name_that_points_inwards_is_never_connected_to(loopback: tuple[int, list[str]]) -> None:
    port, reached = loopback
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "127.1", "0x7f.1"):
        text = await refusal(f"http://inwards.test:{port}/{QUERY}", resolver=Answers([address]))
        assert "the image at inwards.test: the address is not on the public internet" in text
    assert "not on the public" in await refusal(f"http://inwards.test:{port}/", resolver=Answers(["::1", "127.0.0.1"]))
    assert not reached


async def test_a_name_that_changes_its_mind_wins_nothing(
    loopback: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name leads to a public address when first asked, and inwards from then on."""
    port, reached = loopback
    tried: list[str] = []

    async def connect(self: object, sock: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    resolver = Answers(["8.8.8.8"], ["127.0.0.1"])
    with monkeypatch.context() as patch:  # the public address is not reached for in a test
        patch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
        assert "the connection failed" in await refusal(f"http://rebind.test:{port}/", resolver=resolver)
        assert (resolver.asked, tried) == (1, ["8.8.8.8"])  # asked once: what was checked is what is connected to
        assert "not on the public internet" in await refusal(f"http://rebind.test:{port}/", resolver=resolver)
        assert (resolver.asked, tried) == (2, ["8.8.8.8"])
    assert not reached


async def test_a_public_name_may_not_smuggle_a_private_address_behind_a_public_one(
    loopback: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, reached = loopback

    async def connect(self: object, sock: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "8.8.8.8"
        raise ConnectionRefusedError(111, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(type(asyncio.get_running_loop()), "sock_connect", connect)
        text = await refusal(f"http://both.test:{port}/", resolver=Answers(["8.8.8.8", "127.0.0.1"]))
    assert "not on the public internet" in text
    assert not reached


async def test_a_name_without_an_address_is_told() -> None:
    text = await refusal(f"http://nowhere.test/{QUERY}", resolver=Answers([]))
    assert "the image at nowhere.test: the host name was not found" in text


async def test_only_listed_hosts_are_asked() -> None:
    policy = FetchPolicy(allow_private=True, allowed_hosts=("Images.Test", "127.0.0.1"))
    async with serving(image) as url:
        port = url.split(":")[2].split("/")[0]
        assert await fetch_image_bytes(url, policy) == PNG
        resolver = Answers(["127.0.0.1"])
        assert await fetch_image_bytes(f"http://images.TEST.:{port}/", policy, resolver=resolver) == PNG
        for host in ("localhost", "x.images.test", "images.test.evil.test", "[::1]"):
            assert "this host is not allowed" in await refusal(f"http://{host}:{port}/", policy, resolver)


async def test_a_listed_host_must_still_be_public() -> None:
    policy = FetchPolicy(allowed_hosts=("images.test",))
    assert "not on the public" in await refusal("http://images.test/", policy, Answers(["10.0.0.1"]))


async def test_plain_http_can_be_forbidden() -> None:
    policy = FetchPolicy(schemes=("https",))
    assert "the image at example.org: http is not allowed" in await refusal("HTTP://Example.org/", policy)


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"timeout_s": 0}, {"timeout_s": float("inf")}, {"schemes": ()},
                                   {"schemes": ("ftp",)}])  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FetchPolicy(**wrong)  # type: ignore[arg-type]


def test_reading_images_from_files_does_not_import_an_http_client() -> None:
    code = "import sys, eyelid.images; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

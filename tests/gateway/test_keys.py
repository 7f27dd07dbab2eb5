"""Clients' keys: hashes only, limits per key."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eyelid import config
from eyelid.cli import main
from eyelid.errors import ConfigError
from eyelid.gateway import keys
from eyelid.gateway.keys import KeyConfig, KeyInfo, Keys, RateLimited


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(*names: str, **limits: int) -> tuple[list[str], list[KeyConfig]]:
    made = [keys.new() for _ in names]
    return [key for key, _ in made], [KeyConfig(n, sha, **limits) for n, (_, sha) in zip(names, made, strict=True)]


def test_a_key_is_known_by_its_hash() -> None:
    (alice, bob), configs = known("alice", "bob")
    found = Keys(configs)
    assert not found.open
    assert found.identify(f"Bearer {alice}") == KeyInfo("alice")
    assert found.identify(f"bearer   {bob} ") == KeyInfo("bob")
    assert alice not in repr(found) + repr(configs)
    assert hashlib.sha256(alice.encode()).hexdigest() not in repr(configs)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer x{}", "Token {}", "Bearer\u00a0{}"],
)
def test_nobody_else_is(header: str | None) -> None:
    (key,), configs = known("alice")
    assert Keys(configs).identify(None if header is None else header.format(key)) is None


def test_headers_of_any_kind_are_no_error() -> None:
    found = Keys(known("alice")[1])
    for header in ("Bearer " + "a" * 10**6, "Bearer \ud800", "Bearer \xff\x00", "Bearer é", "\0", "Bearer \U0001f512"):
        assert found.identify(header) is None
    (sha,) = (c.sha256 for c in known("x")[1])
    assert found.identify(f"Bearer {sha}") is None


def test_the_hash_itself_is_no_key() -> None:
    _, configs = known("alice")
    assert Keys(configs).identify(f"Bearer {configs[0].sha256}") is None


def test_every_key_is_compared_in_constant_time_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    given, configs = known("a", "b", "c")
    compared: list[int] = []
    real = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        return real(a, b)

    monkeypatch.setattr("eyelid.gateway.keys.hmac.compare_digest", counted)
    found = Keys(configs)
    for key in (*given, "nobody's"):
        compared.clear()
        found.identify(f"Bearer {key}")
        assert compared == [32, 32, 32]


def test_without_keys_everyone_may() -> None:
    found = Keys()
    assert found.open
    for header in (None, "Bearer anything"):
        info = found.identify(header)
        assert info == KeyInfo(None)
        assert info.may("any")


def test_aliases() -> None:
    info = KeyInfo("alice", frozenset({"one", "two"}))
    assert (info.may("one"), info.may("three"), KeyInfo("bob").may("three")) == (True, False, True)


async def test_requests_a_minute() -> None:
    clock = Clock()
    (key,), configs = known("alice", requests_per_minute=3)
    found = Keys(configs, clock=clock)
    info = found.identify(f"Bearer {key}")
    assert info is not None
    for _ in range(3):
        async with found.admit(info):
            pass
    with pytest.raises(RateLimited, match="3 requests a minute") as caught:
        async with found.admit(info):
            pass
    assert (caught.value.retry_after, caught.value.retryable) == (20.0, True)
    clock.now += 19.9
    with pytest.raises(RateLimited) as caught:
        async with found.admit(info):
            pass
    assert caught.value.retry_after == 0.1
    clock.now += 0.1
    async with found.admit(info):
        pass
    clock.now += 3600  # a quiet hour is worth no more than a minute's requests
    for _ in range(3):
        async with found.admit(info):
            pass
    with pytest.raises(RateLimited):
        async with found.admit(info):
            pass


async def test_requests_at_once() -> None:
    (a, b), configs = known("alice", "bob", max_concurrent=2)
    found = Keys(configs)
    alice, bob = found.identify(f"Bearer {a}"), found.identify(f"Bearer {b}")
    assert alice is not None
    assert bob is not None
    async with found.admit(alice), found.admit(alice), found.admit(bob):
        with pytest.raises(RateLimited, match="2 requests running at once") as caught:
            async with found.admit(alice):
                pass
        assert caught.value.retry_after > 0
    with pytest.raises(ZeroDivisionError):  # a request that fails frees its place too
        async with found.admit(alice):
            raise ZeroDivisionError
    async with found.admit(alice), found.admit(alice):
        pass


async def test_turned_away_for_running_too_much_costs_no_request_of_the_minute() -> None:
    clock = Clock()
    (key,), configs = known("alice", requests_per_minute=2, max_concurrent=1)
    found = Keys(configs, clock=clock)
    info = found.identify(f"Bearer {key}")
    assert info is not None
    async with found.admit(info):
        for _ in range(5):
            with pytest.raises(RateLimited, match="at once"):
                async with found.admit(info):
                    pass
    async with found.admit(info):
        pass


async def test_a_reload_lifts_no_limit() -> None:
    clock = Clock()
    (key,), configs = known("alice", requests_per_minute=1, max_concurrent=5)
    first = Keys(configs, clock=clock)
    info = first.identify(f"Bearer {key}")
    assert info is not None
    async with first.admit(info):
        second = Keys(configs, clock=clock, previous=first)
        with pytest.raises(RateLimited):
            async with second.admit(info):
                pass
    loose = Keys([KeyConfig("alice", configs[0].sha256)], clock=clock, previous=first)
    async with loose.admit(KeyInfo("alice")):
        pass


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"sha256": "eyelid_swordfish"}, "sha256 of key 'alice'"),
        ({"sha256": "AB" * 32}, "sha256 of key 'alice'"),
        ({"requests_per_minute": 0}, "requests_per_minute of key 'alice'"),
        ({"max_concurrent": 0}, "max_concurrent of key 'alice'"),
    ],
)
def test_wrong_entries_are_named_and_not_repeated(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        KeyConfig(**{"name": "alice", "sha256": "ab" * 32, **given})  # type: ignore[arg-type]
    assert "swordfish" not in str(caught.value) + caught.value.hint


def test_two_entries_for_one_name_or_key() -> None:
    with pytest.raises(ConfigError, match="two keys have one name"):
        Keys([KeyConfig("a", "ab" * 32), KeyConfig("a", "cd" * 32)])
    with pytest.raises(ConfigError, match="two keys have one hash"):
        Keys([KeyConfig("a", "ab" * 32), KeyConfig("b", "ab" * 32)])


def test_the_command_makes_a_key_and_an_entry_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for _ in range(3):
        assert main(["keys", "new", "--name", "alice"]) == 0
        out = capsys.readouterr().out
        (key,) = re.findall(r"^    (eyelid_[\w-]{43})$", out, re.MULTILINE)
        entry = out[out.index("    serve:") :].partition("\n\n")[0]
        lines = "\n".join(line[4:] for line in entry.splitlines())
        found = Keys(config.parse(lines).serve.keys)
        assert found.identify(f"Bearer {key}") == KeyInfo("alice")
        assert key not in entry
        seen.add(key)
    assert len(seen) == 3
    assert main(["keys", "new", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert hashlib.sha256(told["key"].encode()).hexdigest() == told["entry"]["sha256"]
    assert main(["keys", "new", "--name", "a b"]) == 2


def test_the_commands_need_no_server_package() -> None:
    code = """
import sys
for name in ("starlette", "uvicorn", "prometheus_client", "msgspec", "asyncpg", "opentelemetry", "torch"):
    sys.modules[name] = None
from eyelid.cli import main
sys.exit(main(["keys", "new"]) or (main(["audit", "list", "--db", "none.db"]) != 2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr

"""`eyelid serve` as a process: what it prints, SIGTERM, SIGHUP, and what it refuses to do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from .gate import HARM, SAFE, Held, Json, model


@dataclass
class Process:
    """A running `eyelid serve`; `lines` are what it printed, both streams."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    url: str = ""

    async def until(self, pattern: str) -> re.Match[str]:
        """The next line that the pattern is found in. Fails where the process ends first."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if found := re.search(pattern, line):
                    return found
        raise AssertionError("".join(self.lines))

    async def ask(self, body: Json) -> tuple[int, Json]:
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/v1/chat/completions", json=body) as r:
            return r.status, await r.json()

    async def get(self, path: str) -> tuple[int, Json]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as r:
            return r.status, await r.json()


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": "1"}


@asynccontextmanager
async def served(folder: Path, *flags: str, sigint: signal.Handlers = signal.SIG_DFL) -> AsyncIterator[Process]:
    """`sigint`: what the process is begun with. A shell's background jobs ignore it, and so might these tests."""
    command = (sys.executable, "-m", "eyelid", "serve", "--port", "0", *flags)
    started = await asyncio.create_subprocess_exec(
        *command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(folder),
        preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
    )
    found = Process(started)
    try:
        found.url = (await found.until(r"listens on (http://\S+)"))[1]
        yield found
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def written(folder: Path, url: str, more: str = "", alias: str = "guarded") -> Path:
    path = folder / "eyelid.yaml"
    path.write_text(f'serve:\n  aliases: {{{alias}: {{model: "openai:{url}#m", defense: ecso}}}}\n{more}')
    return path


ASK: Json = {"model": "guarded", "messages": [{"role": "user", "content": "Hello?"}]}


async def test_it_says_where_it_listens_and_how_to_ask(tmp_path: Path) -> None:
    async with model(HARM) as m, served(tmp_path, "--model", f"openai:{m.url}#big", "--defense", "ecso") as p:
        found = await p.until(r"^curl (\S+) ")
        await p.until("-d '(.*)'")
        body = json.loads(re.search("-d '(.*)'", p.lines[-1])[1])  # type: ignore[index]
        status, answer = await p.ask(body)
        p.process.send_signal(signal.SIGTERM)
        assert await p.process.wait() == 0
    text = "".join(p.lines)
    assert found[1] == f"{p.url}/v1/chat/completions"
    assert "big  " in text
    assert "guarded by ecso" in text
    assert "big-undefended  big, not guarded" in text
    assert "keys: none are set" in text
    assert (status, answer["choices"][0]["message"]["content"]) == (200, SAFE)


async def test_sigterm_lets_what_is_under_way_end_and_writes_everything(tmp_path: Path) -> None:
    slow = Held()
    async with model(slow) as m:
        audit = f"  audit: {{path: {tmp_path / 'audit.db'}, flush_seconds: 30}}\n  drain_delay_seconds: 0.3\n"
        async with served(tmp_path, "--config", str(written(tmp_path, m.url, audit))) as p:
            asked = asyncio.create_task(p.ask(ASK))
            await slow.begun.wait()
            p.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                while (ready := await p.get("/readyz"))[0] == 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
            assert ready == (503, {"status": "draining"})
            async with aiohttp.ClientSession() as session, session.get(f"{p.url}/metrics") as r:
                assert "eyelid_requests" in await r.text()
            await asyncio.sleep(0.4)
            assert p.process.returncode is None
            slow.free.set()
            assert (await asked)[0] == 200
            assert await asyncio.wait_for(p.process.wait(), 20) == 0
    with sqlite3.connect(tmp_path / "audit.db") as db:
        ((count,),) = db.execute("select count(*) from audit_requests").fetchall()
    db.close()
    assert count == 1


@pytest.mark.parametrize("sigint", [signal.SIG_DFL, signal.SIG_IGN])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_it_at_once_and_loses_no_record(
    sent: signal.Signals, code: int, sigint: signal.Handlers, tmp_path: Path
) -> None:
    endless = Held()
    async with model("fine") as m:
        audit = f"  audit: {{path: {tmp_path / 'audit.db'}, flush_seconds: 30}}\n"
        async with served(tmp_path, "--config", str(written(tmp_path, m.url, audit)), sigint=sigint) as p:
            await p.ask(ASK)
            m.answer = endless
            asked = asyncio.create_task(p.ask(ASK))
            await endless.begun.wait()
            p.process.send_signal(sent)
            await asyncio.sleep(0.3)
            assert p.process.returncode is None, "the first waits for what is under way"
            p.process.send_signal(sent)
            assert await asyncio.wait_for(p.process.wait(), 10) == code
            await asyncio.gather(asked, return_exceptions=True)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        rows = db.execute("select outcome from audit_requests").fetchall()
    db.close()
    assert sorted(rows) == [("answered",), ("disconnected",)]


async def test_sighup_takes_a_new_configuration_and_keeps_the_old_one_where_it_is_wrong(tmp_path: Path) -> None:
    slow = Held()
    off = "  audit: {enabled: false}\n"
    async with model(slow) as m, model("new") as other:
        path = written(tmp_path, m.url, off)
        async with served(tmp_path, "--config", str(path)) as p:
            before = asyncio.create_task(p.ask(ASK))
            await slow.begun.wait()
            path.write_text("serve: {prot: 1}\n")
            p.process.send_signal(signal.SIGHUP)
            wrong = await p.until(r"SIGHUP: the old configuration stays in force: (.*)")
            assert (await p.get("/v1/models"))[1]["data"][0]["id"] == "guarded"
            late = "  audit: {text: true}\n  drain_seconds: 7\n  playground: false\n"
            written(tmp_path, other.url, late, alias="renamed")
            p.process.send_signal(signal.SIGHUP)
            await p.until("the new configuration is in force: renamed")
            await p.until("serve.audit, serve.playground, serve.drain_seconds: changed in the file, and as before")
            assert (await p.ask(ASK))[0] == 404
            status, answer = await p.ask({**ASK, "model": "renamed"})
            slow.free.set()
            old = await before
    assert "unknown key 'prot'" in wrong[1]
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "new")
    assert (old[0], old[1]["model"]) == (200, "guarded"), "what began under the old configuration ends under it"


async def test_a_file_that_lost_its_keys_does_not_open_the_gateway_to_all(tmp_path: Path) -> None:
    keys = f"  keys: [{{name: a, sha256: {'a' * 64}}}]\n  host: 0.0.0.0\n  audit: {{enabled: false}}\n"
    async with model("fine") as m:
        path = written(tmp_path, m.url, keys)
        async with served(tmp_path, "--config", str(path)) as p:
            p.url = p.url.replace("0.0.0.0", "127.0.0.1")
            for host in ("0.0.0.0", "127.0.0.1"):  # it goes on listening where it began
                written(tmp_path, m.url, f"  host: {host}\n  audit: {{enabled: false}}\n")
                p.process.send_signal(signal.SIGHUP)
                await p.until("stays in force: no keys are set")
                assert (await p.ask(ASK))[0] == 401


@pytest.mark.parametrize(
    ("flags", "said", "code"),
    [
        (["--host", "0.0.0.0"], "no keys are set, and 0.0.0.0 can be reached", 2),
        (["--model", "tinny"], "unknown model spec", 2),
        (["--defense", "eskoo"], "unknown defence", 2),
        (["--port", "99999"], "must be from 0 to 65535", 2),
        (["--insecure", "--host", "no.such.host.invalid"], "is no address to listen on", 2),
        (["--config", "nowhere.yaml"], "cannot read the configuration", 2),
        (["--model", "gguf:nowhere.gguf"], "cannot read the model file", 2),
        (["--model", "scripted:{script}", "--prompts"], "unrecognized arguments: --prompts", 2),
    ],
)
def test_what_it_refuses(flags: list[str], said: str, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eyelid", "serve", "--port", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(tmp_path), check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    from eyelid.gateway.server import bind

    with bind("127.0.0.1", 0) as taken:
        flags = ["--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "eyelid", "serve", *flags]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment(tmp_path), check=False
        )
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr

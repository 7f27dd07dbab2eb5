"""What the gateway itself does with an unguarded text request, without sockets: CPU by stage, and as a whole.

    python -m benchmarks.gateway_own [--requests N] [--profile]

The application is called as a server calls it, and its upstream answers from memory, so what is left is the gateway's
own: neither uvicorn, nor aiohttp, nor the kernel. Audit and log are on. CPU of the event loop's thread and of the
process (with the threads of log and audit), the least of several rounds; stages are timed alone, in tight loops, where
everything is in the caches, so they add up to less than the whole. `--profile` prints where the functions' time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.gateway import question
from benchmarks.gateway_client import CHAT
from benchmarks.gateway_servers import WORDS, completion
from eyelid import config
from eyelid.gateway import unguarded, wire
from eyelid.gateway.app import create
from eyelid.gateway.audit.schema import Rows
from eyelid.gateway.call import Call
from eyelid.gateway.forwarding import forward
from eyelid.gateway.logs import Formatter, Lines, _Request
from eyelid.gateway.metrics import Metrics
from eyelid.gateway.server import GARBAGE
from eyelid.gateway.settings import LimitsConfig

ANSWER = completion(WORDS)
BODY = json.dumps(question("none"), separators=(",", ":")).encode()
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"content-type", b"application/json"),
    (b"content-length", str(len(BODY)).encode()),
]
ROUNDS = 9


async def ask(app: Any) -> list[dict[str, Any]]:
    """One request; what was sent back."""
    sent: list[dict[str, Any]] = []
    first = iter([{"type": "http.request", "body": BODY, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in first:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": CHAT, "root_path": "", "headers": HEADERS}, receive, send)
    return sent


async def whole(folder: Path, requests: int, *, profile: bool) -> tuple[float, float]:
    """CPU microseconds a request: of the loop's thread, and of the process."""
    file = folder / "eyelid.yaml"
    audit = folder / "audit.db"
    file.write_text(
        'serve:\n  aliases:\n    none: {model: "openai:http://127.0.0.1:9/v1#served", defense: none}\n'
        f"  audit: {{path: {audit}}}\n"
    )
    app = create(config.load(file))
    gateway = app.state.gateway
    await gateway.start()

    async def complete(_: object) -> Any:
        await asyncio.sleep(0)  # as an answer from elsewhere, it comes in another turn of the loop
        return msgspec.json.decode(ANSWER)

    for alias in gateway.current.aliases.values():
        alias.upstream.complete = complete
    head, body = await ask(app)
    assert head["status"] == 200, head
    assert WORDS.encode() in body["body"]
    found = []
    try:
        for n in range(ROUNDS):
            profiler = cProfile.Profile() if profile and n else None
            thread, process = time.thread_time(), time.process_time()
            if profiler:
                profiler.enable()
            for _ in range(requests):
                await ask(app)
            if profiler:
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
                break
            found.append((time.thread_time() - thread, time.process_time() - process))
    finally:
        await gateway.aclose()
    return min(t for t, _ in found) / requests * 1e6, min(p for _, p in found) / requests * 1e6


def stages() -> dict[str, float]:
    """CPU microseconds of each."""
    limits = LimitsConfig()
    chat, answer = wire.read(BODY, limits), msgspec.json.decode(ANSWER)
    names = {k.decode(): v.decode() for k, v in HEADERS}
    call = Call(CHAT, names)
    call.alias = call.defense = "none"
    call.prompt_tokens, call.completion_tokens = 10, 60

    def said() -> dict[str, object]:
        return unguarded.told(answer, call, "none", defense="none", backend="openai:http://127.0.0.1:9/v1#served")

    out, record, metrics = said(), call.record(), Metrics({"none"})
    line, words = _Request(record, "none"), Formatter()
    work: dict[str, Callable[[], object]] = {
        "what is noted of a request": lambda: Call(CHAT, names),
        "reading and checking the body": lambda: wire.read(BODY, limits),
        "the body for the upstream": lambda: forward(chat, "served", limits),
        "reading the answer": lambda: msgspec.json.decode(ANSWER),
        "what is said of the answer": said,
        "writing the answer": lambda: msgspec.json.encode(out),
        "the record": call.record,
        "metrics": lambda: metrics.put(record),
        "a log line (another thread)": lambda: words.format(line),
        "the audit's rows (another thread)": lambda: Rows.of(record),
    }
    return {
        name: min(timeit.repeat(f, number=5000, repeat=7, timer=time.process_time)) / 5000 * 1e6
        for name, f in work.items()
    }


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--requests", type=int, default=1000, help="of each of several rounds")
    a.add_argument("--profile", action="store_true", help="print where the functions' time goes; this slows all of it")
    o = a.parse_args()
    gc.set_threshold(GARBAGE)  # as `eyelid serve` has it
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        lines = Lines(nowhere)
        try:
            loop, process = uvloop.run(whole(Path(folder), o.requests, profile=o.profile))
        finally:
            lines.close()
    table = Table("", "CPU µs a request")
    for name, spent in stages().items():
        table.add_row(name, f"{spent:.1f}")
    table.add_section()
    table.add_row("all of it, the event loop's thread", f"{loop:.0f}")
    table.add_row("with the threads of log and audit", f"{process:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

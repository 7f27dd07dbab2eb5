"""What the gateway costs, next to no proxy at all and to a bare one, in one run, in turns.

    python -m benchmarks.gateway [--rounds N] [--requests N] [--json FILE]

All servers are processes of their own (`benchmarks.gateway_servers`); `eyelid serve` runs as it is deployed, with audit
and log on. The null proxy has the same uvicorn with the same settings. Each round asks every contestant in turn, with
the same bodies, and a ratio is taken within its round, so that what else the machine does hits both sides. CPU is that
of the server's process, user and system, all threads; behind its ratio stands how far the median may be off (95 %).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gateway_client import Burst, Client, burst, prepared
from benchmarks.gateway_figures import Figures, doubt, quantile, ratio, ratios
from benchmarks.gateway_processes import Bench, Process, bench
from benchmarks.gateway_servers import EVENTS, PAUSE, WORDS

DIRECT, PROXY, NONE, GUARDED, SHIPPED = "no proxy", "null proxy", "eyelid none", "eyelid guarded", "eyelid shipped"
QUESTION = "What does the page say? " * 10


@dataclass(frozen=True, slots=True)
class Sizes:
    rounds: int = 11
    requests: int = 1000
    clients: int = 16
    alone: int = 200
    images: int = 30
    streams: int = 200
    bursts: int = 3


def aliases(upstream: str, detector: str) -> str:
    """The gateway under test: audit and log as they are by default."""
    spec = f'model: "openai:{upstream}/v1#served"'
    guard = f'defense: {{name: protector, detector: "{detector}/classify?harmless_index=0"}}'
    return (
        "aliases:\n"
        f"  none: {{{spec}, defense: none}}\n"
        f"  guarded: {{{spec}, {guard}}}\n"
        f"  windowed: {{{spec}, {guard}, stream_mode: window}}\n"
        f"  shipped: {{{spec}, defense: protector}}"
    )


def question(model: str, *, stream: bool = False, mark: str = "MARK-00000000", image: str | None = None) -> object:
    parts: object = f"{mark} {QUESTION}"
    if image is not None:
        parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": parts}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "temperature": 0.2, "max_tokens": 100}
    return {**body, "stream": True} if stream else body


def picture(size: int = 1_000_000) -> str:
    """A data URL of a PNG of noise of about `size` bytes, which does not compress."""
    from random import Random

    from PIL import Image

    side = int((size / 3) ** 0.5)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), Random(1).randbytes(side * side * 3)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def right(_: int, body: bytes) -> bool:
    return WORDS.encode() in body


async def turns(
    contestants: Sequence[Process],
    body: Callable[[Process], object],
    *,
    rounds: int,
    requests: int,
    clients: int,
    say: str,
) -> dict[str, list[Burst]]:
    """Every contestant in every round, in an order that turns."""
    raws = {c.name: prepared(c, body(c)) for c in contestants}
    for c in contestants:
        await burst(c, [raws[c.name]], right, requests=max(clients * 4, requests // 10), clients=clients)
    found: dict[str, list[Burst]] = {c.name: [] for c in contestants}
    for n in range(rounds):
        turn = n % len(contestants)
        for c in (*contestants[turn:], *contestants[:turn]):
            one = await burst(c, [raws[c.name]], right, requests=requests, clients=clients)
            if one.wrong:
                raise RuntimeError(f"{c.name}: {one.wrong} of {one.requests} answers were wrong")
            found[c.name].append(one)
        progress(f"{say}: round {n + 1} of {rounds}")
    return found


async def streams(process: Process, count: int) -> tuple[float, list[float], int]:
    """(seconds until all were done, CPU ms a stream, wrong ones) of `count` streams at once, each with its own mark."""
    host, _, port = process.url.removeprefix("http://").partition(":")
    marks = [f"MARK-{n:08d}" for n in range(count)]
    raws = [prepared(process, question(process.model, stream=True, mark=m)) for m in marks]
    clients = [Client() for _ in range(count)]
    cpu, start = process.cpu_seconds, time.perf_counter()
    times: list[float] = []

    async def one(client: Client, raw: bytes) -> bytes:
        body = await client.ask(host, int(port), raw)
        times.append(time.perf_counter() - start)
        return body

    bodies = await asyncio.gather(*(one(c, r) for c, r in zip(clients, raws, strict=True)), return_exceptions=True)
    used = (process.cpu_seconds - cpu) / count * 1000
    for client in clients:
        client.close()
    wrong = sum(isinstance(b, BaseException) or said(b) != f"{m} {WORDS}" for b, m in zip(bodies, marks, strict=True))
    return used, times, wrong


def said(body: bytes) -> str:
    """The text of a stream that ended well; else what is wrong with it."""
    if not body.endswith(b"data: [DONE]\n\n"):
        return "(no end)"
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for line in lines for c in json.loads(line).get("choices", ()))


async def measure(bench: Bench, sizes: Sizes, *, shipped: bool) -> dict[str, Any]:
    up, judge = bench.part("upstream"), bench.part("detector")
    plain = dataclasses.replace(up, name=DIRECT)
    null = dataclasses.replace(bench.part("proxy", "--upstream", up.url), name=PROXY)
    gateway = bench.eyelid("eyelid", aliases(up.url, judge.url), model="none")
    none = dataclasses.replace(gateway, name=NONE)
    guarded = dataclasses.replace(gateway, name=GUARDED, model="guarded")
    windowed = dataclasses.replace(gateway, name="eyelid window", model="windowed")
    onnx = [dataclasses.replace(gateway, name=SHIPPED, model="shipped")] if shipped else []
    out: dict[str, Any] = {"sizes": dataclasses.asdict(sizes)}

    text = (plain, null, none, guarded, *onnx)
    for name, clients, requests in (("text, one at a time", 1, sizes.alone), ("text", sizes.clients, sizes.requests)):
        rounds = await turns(
            text, lambda c: question(c.model), rounds=sizes.rounds, requests=requests, clients=clients, say=name
        )
        out[name] = told(rounds)
    image = picture()
    rounds = await turns(
        (plain, null, none, guarded), lambda c: question(c.model, image=image), rounds=sizes.rounds,
        requests=sizes.images, clients=1, say="1 MB image",
    )  # fmt: skip
    out["1 MB image, one at a time"] = told(rounds)

    out[f"{sizes.streams} streams at once"] = await streamed((plain, null, none, windowed, guarded), sizes)
    out["resident MB"] = {p.name: p.resident_bytes / 2**20 for p in (null, gateway)}
    return out


async def streamed(contestants: Sequence[Process], sizes: Sizes) -> dict[str, Any]:
    """Medians over bursts, in turns; ratios are taken within a burst, and all answers are counted that were right."""
    names = ("p50", "last", "cpu_ms")
    rows: dict[str, list[dict[str, float]]] = {c.name: [] for c in contestants}
    right = dict.fromkeys(rows, 0)
    for n in range(sizes.bursts):
        for c in contestants:
            used, times, wrong = await streams(c, sizes.streams)
            rows[c.name].append({"p50": quantile(times, 0.5), "last": max(times, default=0.0), "cpu_ms": used})
            right[c.name] += sizes.streams - wrong
        progress(f"streams: round {n + 1} of {sizes.bursts}")

    def middle(name: str, key: str, base: str | None = None) -> float:
        pairs = zip(rows[name], rows[base or name], strict=True)
        return statistics.median(a[key] / (b[key] if base else 1) for a, b in pairs)

    return {
        name: {
            "complete and right": f"{right[name]} of {sizes.streams * sizes.bursts}",
            **{k: middle(name, k) for k in names},
            "x null proxy": {k: middle(name, k, PROXY) for k in names},
        }
        for name in rows
    }


def told(rounds: dict[str, list[Burst]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, bursts in rounds.items():
        figures = Figures.of(bursts)
        row: dict[str, Any] = figures.json()
        row["x null proxy"] = {
            f.name: ratio(rounds, name, PROXY, lambda g, f=f: getattr(g, f.name)) for f in dataclasses.fields(Figures)
        }
        row["doubt"] = doubt(ratios(rounds, name, PROXY, lambda g: g.cpu_ms))
        base = rounds[DIRECT]
        row["overhead_ms"] = statistics.median(
            (quantile(b.latencies, 0.5) - quantile(d.latencies, 0.5)) * 1000 for b, d in zip(bursts, base, strict=True)
        )
        out[name] = row
    return out


def tables(found: dict[str, Any]) -> list[Table]:
    out = []
    for title, rows in found.items():
        if title in ("sizes", "resident MB"):
            continue
        streams = "streams" in title
        heads = (
            ("all right", "p50 s", "last s", "CPU ms a stream", "x null: p50", "last", "CPU")
            if streams
            else ("p50 ms", "p99 ms", "requests/s", "CPU ms", "p50 over direct", "x null: p50", "p99", "req/s", "CPU")
        )
        table = Table("", *heads, title=title)
        for name, r in rows.items():
            x = r["x null proxy"]
            if streams:
                cells = [f"{r['complete and right']}", f"{r['p50']:.2f}", f"{r['last']:.2f}", f"{r['cpu_ms']:.2f}"]
                cells += [times(x[k]) for k in ("p50", "last", "cpu_ms")]
            else:
                cells = [f"{r['p50']:.2f}", f"{r['p99']:.2f}", f"{r['per_second']:.0f}", f"{r['cpu_ms']:.3f}"]
                cells += [f"{r['overhead_ms']:+.2f} ms", *(times(x[k]) for k in ("p50", "p99", "per_second"))]
                cells.append(f"{times(x['cpu_ms'])} ± {r['doubt']:.2f}")
            table.add_row(name, *cells)
        out.append(table)
    return out


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def progress(text: str) -> None:
    """Progress goes to standard error, so that the tables alone are the output."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    defaults = Sizes()
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in dataclasses.fields(Sizes):
        a.add_argument(f"--{f.name}", type=int, default=getattr(defaults, f.name))
    a.add_argument("--no-shipped", action="store_true", help="leave out the guard with the detector that ships")
    a.add_argument("--json", type=Path, help="write all figures there too")
    o = a.parse_args()
    sizes = Sizes(**{f.name: getattr(o, f.name) for f in dataclasses.fields(Sizes)})
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as b:
        found = asyncio.run(measure(b, sizes, shipped=not o.no_shipped))
    console = Console(width=140)
    for table in tables(found):
        console.print(table)
    rest = ", ".join(f"{k} {v:.0f} MB" for k, v in found["resident MB"].items())
    console.print(f"CPU of `no proxy` is the upstream's own. A stream takes {EVENTS * PAUSE:.1f} s upstream.")
    console.print(f"Resident memory after all this: {rest}.")
    if o.json:
        o.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

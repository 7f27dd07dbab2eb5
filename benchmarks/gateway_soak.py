"""Mixed load with faults: nothing leaks, nothing hangs, nobody gets another's answer, the audit is complete.

    python -m benchmarks.gateway_soak [--minutes N] [--clients N] [--json FILE]

`eyelid serve` runs as a process with a SQLite audit that keeps texts; the model and the detector behind it misbehave as
each question asks (`benchmarks.gateway_faults`), clients leave in the middle, and the configuration is read again every
few seconds (SIGHUP). In the end the gateway gets SIGTERM, and each question is held against the audit by its mark.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway import picture
from benchmarks.gateway_client import Client, prepared
from benchmarks.gateway_faults import KINDS, MARK, Answer, Kind
from benchmarks.gateway_processes import Bench, Process, bench

KEYS = {name: f"eyelid_soak_{name}" for name in ("red", "green", "blue")}
#: A request that takes longer is stuck: the slowest kind waits 3 s for a silent upstream, three times over.
STUCK = 30.0
SAMPLE, RELOAD = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One request, and what came back. `id` is None where nothing came."""

    mark: str
    kind: Kind
    key: str
    id: str | None = None
    status: int | None = None
    wrong: str | None = None
    stuck: bool = False


@dataclass
class Soak:
    """One run. Memory and open files are sampled while it lasts, times in seconds since its start."""

    gateway: Process
    seconds: float
    clients: int
    seed: int = 1
    sent: list[Sent] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    reloads: int = 0
    began: float = 0.0

    async def run(self) -> None:
        self.began = time.monotonic()
        counter = iter(range(1, 10**8))
        image = picture(60_000)
        watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._reload())]
        try:
            rngs = (random.Random(self.seed * 1000 + i) for i in range(self.clients))
            await asyncio.gather(*(self._client(r, counter, image) for r in rngs))
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    async def _client(self, rng: random.Random, counter: Any, image: str) -> None:
        weights = [k.weight for k in KINDS]
        client = Client()
        while self.elapsed < self.seconds:
            (kind,) = rng.choices(KINDS, weights)
            one = Sent(f"MARK-{next(counter):08d}", kind, rng.choice(sorted(KEYS)))
            self.sent.append(await self._ask(client, one, image))
        client.close()

    async def _ask(self, client: Client, one: Sent, image: str) -> Sent:
        kind = one.kind
        parts: Any = f"{one.mark} KIND-{kind.name} What does it say?"
        if kind.image:
            parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": parts}]
        body = {"model": kind.alias, "messages": [{"role": "user", "content": parts}], **kind.more}
        raw = prepared(self.gateway, body | ({"stream": True} if kind.stream else {}), key=KEYS[one.key])
        host, _, port = self.gateway.url.removeprefix("http://").partition(":")
        try:
            async with asyncio.timeout(kind.leaves or STUCK):
                content = await client.ask(host, int(port), raw)
        except TimeoutError:
            client.close()
            return one if kind.leaves else dataclasses.replace(one, stuck=True)
        except OSError as e:
            client.close()
            return dataclasses.replace(one, wrong=f"the connection broke: {e}")
        answer = Answer(client.status, content, client.headers)
        others = {m.decode() for m in re.findall(MARK.pattern.encode(), content)} - {one.mark}
        wrong = "somebody else's answer" if others else kind.check(one.mark, answer)
        return dataclasses.replace(one, id=client.headers.get("x-eyelid-id"), status=client.status, wrong=wrong)

    async def _watch(self) -> None:
        while True:
            self.memory.append((self.elapsed, self.gateway.resident_bytes))
            await asyncio.sleep(SAMPLE)

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD)
            self.gateway.popen.send_signal(signal.SIGHUP)
            self.reloads += 1


def configuration(model: str, detector: str) -> str:
    spec = f'model: "openai:{model}/v1#served"'
    guard = f'defense: {{name: protector, detector: "{detector}/classify?harmless_index=0"}}'
    keys = "".join(f"  - {{name: {n}, sha256: {hashlib.sha256(k.encode()).hexdigest()}}}\n" for n, k in KEYS.items())
    return (
        f"aliases:\n  none: {{{spec}, defense: none}}\n  guarded: {{{spec}, {guard}}}\n"
        f"  windowed: {{{spec}, {guard}, stream_mode: window}}\n"
        f"keys:\n{keys}"
        "audit: {path: audit.db, text: true}\n"
        "upstream: {idle_timeout_s: 3, timeout_s: 20}\n"
        "limits: {max_in_flight: 1024}\n"
    )


def settled(gateway: Process) -> dict[str, float]:
    """What stands open when nobody asks any more."""
    gauge = "eyelid_requests_in_flight"
    for _ in range(50):
        with urllib.request.urlopen(gateway.url + "/metrics", timeout=5) as r:
            lines = r.read().decode().splitlines()
        flying = next(float(line.split()[1]) for line in lines if line.startswith(gauge + " "))
        if not flying:
            break
        time.sleep(0.1)
    files = len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{gateway.pid}/task").iterdir()))
    return {"in flight": flying, "open files": files, "threads": threads}


def audited(sent: list[Sent], path: Path) -> dict[str, Any]:
    """The audit against what was sent. A question is found by its mark, and its record must name its key and alias."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT id, key_name, alias, stream, status, outcome, query FROM audit_requests").fetchall()
        texts = db.execute("SELECT request_id, text FROM audit_choices WHERE text IS NOT NULL").fetchall()
        lost = db.execute("SELECT coalesce(sum(records), 0) FROM audit_losses").fetchone()[0]
    by_mark: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        if row[6]:
            by_mark.setdefault(MARK.search(row[6])[0], []).append(row)  # type: ignore[index]
    by_id = {row[0]: row for row in rows}
    missing, twice, other = 0, 0, 0
    for one in sent:
        if one.id is None:
            continue
        row = by_id.get(one.id)
        if row is None:
            missing += 1
            continue
        # A request that is refused unread has no alias yet; a stream that broke had its 200 before.
        aliases = (one.kind.alias, None) if row[5] == "client_error" else (one.kind.alias,)
        broke = one.kind.stream and one.status == 200 and row[5] == "upstream_error"
        same = row[1] == one.key and row[2] in aliases and row[3] == one.kind.stream
        same &= broke or row[4] == one.status
        other += not same or bool(row[6] and one.mark not in row[6])
    twice = sum(len(found) > 1 for found in by_mark.values())
    marks = {one.id: one.mark for one in sent if one.id}
    crossed = sum(bool(set(MARK.findall(text)) - {marks[i]}) for i, text in texts if i in marks)
    left = [one for one in sent if one.id is None and one.kind.leaves]
    # One that left as its answer was sent may be written down as answered, under an id that it never read.
    asked = marks.keys() | {row[0] for one in left for row in by_mark.get(one.mark, ())}
    return {
        "records": len(rows),
        "answered without a record": missing,
        "records of another request": other + crossed,
        "questions with two records": twice,
        "clients that left": len(left),
        "of those with a record": sum(one.mark in by_mark for one in left),
        "records nobody asked for": sum(row[0] not in asked and row[5] != "disconnected" for row in rows),
        "lost": lost,
        "outcomes": dict(Counter(row[5] for row in rows)),
    }


def memory(samples: list[tuple[float, int]], seconds: float) -> dict[str, float]:
    """Resident MB: after the first third, at the end (medians of a tenth of the time), and the growth between."""
    own = [(at, size / 2**20) for at, size in samples]
    third, tenth = seconds / 3, max(seconds / 10, 2 * SAMPLE)
    early = sorted(s for at, s in own if third <= at < third + tenth)
    late = sorted(s for at, s in own if at >= seconds - tenth)
    if not early or not late:
        return {"peak": max((s for _, s in own), default=0.0)}
    first, last = early[len(early) // 2], late[len(late) // 2]
    minutes = (seconds - third - tenth) / 60
    return {"warm": first, "end": last, "growth": last - first, "a minute": (last - first) / minutes,
            "peak": max(s for _, s in own)}  # fmt: skip


def run(b: Bench, *, seconds: float, clients: int, seed: int = 1) -> dict[str, Any]:
    module = "benchmarks.gateway_faults"
    up, judge = b.part("model", module=module), b.part("detector", module=module)
    gateway = b.eyelid("eyelid", configuration(up.url, judge.url), model="none")
    soak = Soak(gateway, seconds, clients, seed)
    before = settled(gateway)
    asyncio.run(soak.run())
    after = settled(gateway)
    code = gateway.stop()
    wrong = [one for one in soak.sent if one.wrong]
    log = (b.folder / "eyelid.log").read_text(errors="replace")
    return {
        "seconds": seconds,
        "requests": len(soak.sent),
        "reloads": soak.reloads,
        "kinds": dict(Counter(f"{o.kind.alias} {o.kind.name}{' stream' * o.kind.stream}" for o in soak.sent)),
        "wrong": dict(Counter(f"{o.kind.alias} {o.kind.name}{' stream' * o.kind.stream}: {o.wrong}" for o in wrong)),
        "stuck": sum(one.stuck for one in soak.sent),
        "defects logged": log.count("a defect"),
        "resident MB": memory(soak.memory, seconds),
        "before": before,
        "after": after,
        "exit code": code,
        "audit": audited(soak.sent, b.folder / "audit.db"),
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What a run shows to be wrong; memory is judged apart, as that takes minutes."""
    audit = found["audit"]
    counts = {"stuck": found["stuck"], "defects logged": found["defects logged"], "exit code": found["exit code"]}
    counts |= {f"wrong: {k}": n for k, n in found["wrong"].items()}
    counts |= {"in flight in the end": found["after"]["in flight"]}
    names = ("answered without a record", "records of another request", "questions with two records",
             "records nobody asked for", "lost")  # fmt: skip
    counts |= {name: audit[name] for name in names}
    return [f"{name}: {n}" for name, n in counts.items() if n]


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--minutes", type=float, default=10.0)
    a.add_argument("--clients", type=int, default=32)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--json", type=Path, help="write all figures there")
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as b:
        found = run(b, seconds=o.minutes * 60, clients=o.clients, seed=o.seed)
    text = json.dumps(found, indent=1)
    print(text)
    if o.json:
        o.json.write_text(text + "\n")
    bad = faults(found)
    print("\n".join(bad) if bad else "nothing wrong", file=sys.stderr)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

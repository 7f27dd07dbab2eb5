"""The harm detector's speed and memory, each in a process of its own, through Eyelid's own classifier on one core.

    taskset -c 0 python -m benchmarks.detector [DIR ...]

prints for each detector (default: the installed one) the median milliseconds for an answer of 200 tokens, the same as
CPU time, resident memory, and answers a second in bulk; with several DIRs, ratios to the first. The answer is plainly
harmless, as most are, so a detector of two stages reads it once; what the second takes where it is asked stands below.

Wall time says what a user waits. CPU time is what one answer costs, and tells more where other programs share the core:
time in which the core belonged to them is not in it, though caches that they emptied are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eyelid.detectors.scorers.second import SecondStage

QUESTION = "How do I keep a small garden alive through a hot and dry summer?"
SENTENCE = "water the beds early in the morning so that the roots drink before the sun is high and the soil is warm"
WORDS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "red",
    "green",
    "blue",
    "white",
    "north",
    "south",
    "east",
)
TOKENS, WARM, RUNS, BULK, SECOND_RUNS = 200, 5, 200, 100, 30


def status(field: str) -> float:
    """A field of this process's status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def measure(folder: str, runs: int) -> dict[str, float]:
    start = time.perf_counter()
    from eyelid.detectors.classifier import load_classifier
    from eyelid.protocols import Exchange, StepLog
    from eyelid.types import Request, Response, user

    classifier = load_classifier(folder)
    loaded = time.perf_counter() - start
    words = (SENTENCE + " ").split() * TOKENS
    count = TOKENS
    while len(classifier.scorer.tokens(" ".join(words[:count]))) > TOKENS - 2:
        count -= 1
    answer, request = " ".join(words[:count]), Request((user(QUESTION),))

    async def once(number: int) -> None:
        # Another first word each time, of one token, so that nothing remembered from the last call helps.
        written = f"{WORDS[number % len(WORDS)]} {WORDS[number // len(WORDS) % len(WORDS)]} {answer}"
        await classifier.detect(Exchange(request, Response(written), StepLog()))

    async def timed(clock: Callable[[], float], times: int) -> list[float]:
        found = []
        for n in range(times):
            before = clock()
            await once(n)
            found.append((clock() - before) * 1000)
        return found

    await timed(time.perf_counter, WARM)
    wall, cpu = await timed(time.perf_counter, runs), await timed(time.process_time, runs)
    memory = status("VmRSS")
    before = time.process_time()
    many = [(QUESTION, f"{WORDS[n % len(WORDS)]} " + " ".join(words[: count - n % 50])) for n in range(BULK)]
    await classifier.judge(many)
    bulk = BULK / (time.process_time() - before)
    peak = status("VmHWM")
    twice = await doubted(classifier.second, answer) if classifier.second else {}
    if "torch" in sys.modules:
        raise RuntimeError("this process should not have loaded torch")
    return {
        "median ms, wall": statistics.median(wall),
        "fastest ms, wall": min(wall),
        "median ms, CPU": statistics.median(cpu),
        "resident MiB": memory,
        "peak MiB": peak,
        "answers a CPU second, bulk": bulk,
        "seconds to load": loaded,
    } | twice


async def doubted(second: SecondStage, answer: str) -> dict[str, float]:
    """The same for the second stage, which reads only what the first does not find plainly harmless."""
    start = time.perf_counter()
    await asyncio.to_thread(second.open)
    opened, wall, cpu = time.perf_counter() - start, list[float](), list[float]()
    for n in range(SECOND_RUNS):
        before = time.perf_counter(), time.process_time()
        await second.harms([(QUESTION, f"{WORDS[n % len(WORDS)]} {answer}")], [0.5])
        wall.append((time.perf_counter() - before[0]) * 1000)
        cpu.append((time.process_time() - before[1]) * 1000)
    return {
        "second stage: median ms, wall": statistics.median(wall),
        "second stage: median ms, CPU": statistics.median(cpu),
        "second stage: seconds to open": opened,
        "with it: resident MiB": status("VmRSS"),
        "with it: peak MiB": status("VmHWM"),
    }


def installed() -> str:
    from eyelid import models

    return str(models.find("detector"))


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("detectors", nargs="*", metavar="DIR")
    a.add_argument("--runs", type=int, default=RUNS)
    a.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.one:
        print(json.dumps(asyncio.run(measure(o.detectors[0], o.runs))))
        return
    folders = o.detectors or [installed()]
    found = []
    for folder in folders:
        command = [sys.executable, "-m", "benchmarks.detector", folder, "--one", "--runs", str(o.runs)]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    names = [Path(f).name for f in folders]
    print(f"{'':32}" + "".join(f"{n:>14}" for n in names) + ("    ratio to the first" if len(names) > 1 else ""))
    for key in dict.fromkeys(k for f in found for k in f):
        ratios = "".join(f"{f[key] / found[0][key]:9.2f}" for f in found[1:] if key in f and key in found[0])
        print(f"{key:32}" + "".join(f"{f.get(key, float('nan')):14.2f}" for f in found) + ratios)


if __name__ == "__main__":
    main()

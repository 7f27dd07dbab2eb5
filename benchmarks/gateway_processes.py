"""Servers in processes of their own: started, measured, stopped.

Measured ones get one core, and everything else the others, where there are two or more to have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Process:
    """A server in a process of its own."""

    name: str
    url: str
    popen: subprocess.Popen[bytes] = field(repr=False)
    model: str = "served"

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its threads. Linux only: this is `clock_getcpuclockid`, which Python lacks."""
        return time.clock_gettime((~self.pid << 3) | 2)

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


@dataclass
class Bench:
    """Starts servers, and stops all of them in the end. `core`: which core measured ones run on (None: any)."""

    folder: Path
    core: int | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(
        self, name: str, command: Sequence[str], port: int, *, model: str = "served", ready: str = "/healthz",
        env: dict[str, str] | None = None, measured: bool = True, seconds: float = 120.0, cwd: Path = ROOT,
    ) -> Process:  # fmt: skip
        """Raises RuntimeError with the end of its output where it does not answer `ready` in time."""
        log = self.folder / f"{name.replace(' ', '-')}.log"
        pin = (lambda: os.sched_setaffinity(0, {self.core})) if measured and self.core is not None else None  # type: ignore[arg-type]
        with log.open("wb") as out:
            popen = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd, env=env or environment(self.folder),
                preexec_fn=pin,
            )  # fmt: skip
        found = Process(name, f"http://127.0.0.1:{port}", popen, model)
        self.stack.callback(found.stop)
        deadline = time.monotonic() + seconds
        while not _answers(found.url + ready):
            if popen.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-1500:]
                raise RuntimeError(f"{name} did not start:\n{tail}")
            time.sleep(0.1)
        return found

    def part(self, name: str, *more: str, module: str = "benchmarks.gateway_servers") -> Process:
        port = free_port()
        command = [sys.executable, "-m", module, name, "--port", str(port), *more]
        return self.start(name, command, port, measured=name == "proxy")

    def eyelid(self, name: str, serve: str, *, model: str) -> Process:
        """`eyelid serve` on a configuration whose `serve` section has these lines."""
        port, file = free_port(), self.folder / f"{name.replace(' ', '-')}.yaml"
        file.write_text("serve:\n" + "".join(f"  {line}\n" for line in serve.splitlines()))
        command = [sys.executable, "-m", "eyelid", "serve", "--config", str(file), "--port", str(port)]
        return self.start(name, command, port, model=model)


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Measured servers get one core, everything else the others, where there are two or more to have."""
    cores = sorted(os.sched_getaffinity(0))
    found = Bench(folder, cores[0] if len(cores) > 1 else None)
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))
    try:
        with found.stack:
            yield found
    finally:
        os.sched_setaffinity(0, set(cores))


def environment(folder: Path) -> dict[str, str]:
    """A home of its own, so that nothing of this machine's user is read or written."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EYELID_", "OTEL_", "XDG_"))}
    return {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as r:
            return bool(r.status == 200)
    except OSError:
        return False

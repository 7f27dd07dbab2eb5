"""Where benchmarks come from: a folder with the official release, or its Hugging Face id. What is missing is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import InputError, MissingDependency
from ..train.sources.files import records as table
from .rows import BadRow

__all__ = ["HUB", "Place", "digest", "find_image", "folder", "hub_rows", "objects", "table", "text"]

#: Where to look: the folder given with --data, `HUB` for the Hugging Face hub, or None where nobody said.
Place = Path | None
HUB = Path("hub:")


def folder(task: str, root: Path, names: Sequence[str], marks: Sequence[str], how: str, wanted: str = "") -> Path:
    """The folder of a release: `root/name` for one of `names`, or `root` itself.

    `marks` are glob patterns, one of which must match in it; `wanted` says the same for people. Raises InputError that
    says what was looked for and how to get it.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", hint="--data names the folder with the benchmarks")
    for place in (*(root / n for n in names), root):
        if place.is_dir() and any(next(place.glob(m), None) for m in marks):
            return place
    wanted = wanted or " or ".join(marks)
    raise InputError(f"{task}: no {wanted} in {root} or {', '.join(f'{root.name}/{n}' for n in names)}", hint=how)


def find_image(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in `folder`."""
    return next((p for p in (folder / n for n in names) if p.is_file()), None)


def objects(path: Path) -> object:
    """A JSON file's value. Raises InputError naming the file and, where it is broken, the line."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is not UTF-8 (byte {e.start})", hint="fetch it again") from None
    except json.JSONDecodeError as e:
        raise InputError(f"{path}: line {e.lineno} is not JSON", hint="repair the file, or fetch it again") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deep", hint="fetch it again") from None
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", hint="check the path") from None


def text(row: Mapping[str, object], *names: str) -> str:
    """The first of these fields that is there, as a text. Raises BadRow where none is, or where it is no text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise BadRow(f"{name} is not a text")
    raise BadRow(f"{names[0]} is missing")


def digest(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hub_rows(task: str, name: str, config: str | None, split: str) -> Iterator[tuple[int, dict[str, object]]]:
    """(row from 1, fields) of a data set on the Hugging Face hub; its pictures as encoded bytes.

    Raises MissingDependency where `datasets` is not installed, InputError where the set cannot be had.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        problem = f"{task}: reading from the Hugging Face hub needs the package datasets"
        raise MissingDependency(problem, hint="pip install datasets, or give a folder with --data DIR") from None
    try:
        found = datasets.load_dataset(name, config, split=split)
    except Exception as e:  # noqa: BLE001  # the hub's client raises kinds of its own, of many packages
        problem = f"{task}: the data set {name} could not be had from the Hugging Face hub ({type(e).__name__})"
        raise InputError(problem, hint="check the network, or give a folder with --data DIR") from None
    for column, feature in found.features.items():
        if isinstance(feature, datasets.Image):
            found = found.cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(found, 1):
        yield number, {k: v["bytes"] if isinstance(v, dict) and "bytes" in v else v for k, v in row.items()}

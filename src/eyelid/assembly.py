"""From names to a guard: opens the model, loads what the defence needs, and puts them together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import presets
from .errors import ConfigError
from .guard import Guard, GuardSettings
from .prompts import PromptSet
from .protocols import Backend, Detector

if TYPE_CHECKING:
    from pathlib import Path

#: The environment variable that holds the key for a detector's server.
KEY_FOR_DETECTOR = "EYELID_DETECTOR_API_KEY"
#: The defences that need a trained detector.
TRAINED = frozenset({"protector", "hybrid"})


def assemble(
    model: str | Backend,
    defense: str = "hybrid",
    *,
    detector: str | Path | Detector | None = None,
    detector_key: str | None = None,
    rewriter: str | Backend | None = None,
    prompts: PromptSet | None = None,
    settings: GuardSettings | None = None,
    options: presets.Options | None = None,
) -> Guard:
    """A guard from a model spec (or an open backend) and a defence's name.

    `detector` is a classifier's spec or directory; None takes the shipped one where the defence needs one;
    `detector_key` is the key for its server where it is behind an address (see `trained_detector`). Loading is
    slow and blocking (seconds): call it from a thread in servers. `prompts` and `options` None take what was made and
    measured for the model, where its spec says so, else the defaults. Raises ConfigError and MissingDependency.
    """
    from .specs import measured_for, open_backend, prompts_for

    if defense not in presets.DEFENSES:  # nobody waits for a model only to read that either
        raise ConfigError(f"unknown defence {defense!r}", hint=f"known: {', '.join(presets.DEFENSES)}")
    if isinstance(model, str):
        prompts = prompts or prompts_for(model)
        options = options or measured_for(model).over(presets.Options(), shipped=detector is None)
    # The detector first: nobody waits for a model only to read that a file is missing.
    found = trained_detector(detector, detector_key) if defense in TRAINED else None
    other = open_backend(rewriter) if isinstance(rewriter, str) else rewriter
    backend = open_backend(model) if isinstance(model, str) else model
    opened = [p for p, given in ((found, detector), (other, rewriter)) if p is not None and p is not given]
    return presets.build(
        defense,
        backend,
        detector=found,
        rewriter=other,
        prompts=prompts,
        settings=settings,
        options=options,
        owned=opened,
    )


def trained_detector(
    spec: str | Path | Detector | None = None, api_key: str | None = None, *, threshold: float | None = None
) -> Detector:
    """The classifier behind `spec`, or the shipped one.

    `api_key` goes to a detector behind an address; None takes the environment's EYELID_DETECTOR_API_KEY. Keys for
    models (EYELID_API_KEY) are never sent to a detector, nor this one to a model.
    """
    from . import models
    from .detectors.classifier import load_classifier

    if isinstance(spec, Detector):
        return spec
    if spec is None:
        return load_classifier(models.find("detector"), threshold=threshold)
    key = api_key or os.environ.get(KEY_FOR_DETECTOR) or None
    return load_classifier(spec, threshold=threshold, api_key=key)

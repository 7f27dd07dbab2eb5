"""From names to a guard: opens the model, loads what the defence needs, and puts them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import presets
from .guard import Guard, GuardSettings
from .prompts import PromptSet
from .protocols import Backend, Detector

if TYPE_CHECKING:
    from pathlib import Path

#: The defences that need a trained detector.
TRAINED = frozenset({"protector", "hybrid"})


def assemble(
    model: str | Backend,
    defense: str = "hybrid",
    *,
    detector: str | Path | Detector | None = None,
    rewriter: str | Backend | None = None,
    prompts: PromptSet | None = None,
    settings: GuardSettings | None = None,
    options: presets.Options | None = None,
) -> Guard:
    """A guard from a model spec (or an open backend) and a defence's name.

    `detector` is a classifier's spec or directory; None takes the shipped one where the defence needs one. Loading is
    slow and blocking (seconds): call it from a thread in servers. `prompts` and `options` None take what was made and
    measured for the model, where its spec says so, else the defaults. Raises ConfigError and MissingDependency.
    """
    from .specs import judge_threshold_for, open_backend, prompts_for

    if isinstance(model, str):
        prompts = prompts or prompts_for(model)
        if options is None and (measured := judge_threshold_for(model)) is not None:
            options = presets.Options(judge_threshold=measured)
    # The detector first: nobody waits for a model only to read that a file is missing.
    found = trained_detector(detector) if defense in TRAINED else None
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


def trained_detector(spec: str | Path | Detector | None = None) -> Detector:
    """The classifier behind `spec`, or the shipped one."""
    from . import models
    from .detectors.classifier import load_classifier

    if spec is None:
        return load_classifier(models.find("detector"))
    return spec if isinstance(spec, Detector) else load_classifier(spec)

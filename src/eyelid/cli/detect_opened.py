"""The detector that `eyelid detect` was given, and what it says of an answer that is empty."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import AsyncIterator

from .. import specs
from ..assembly import trained_detector
from ..detectors.self_judge import SelfJudge
from ..protocols import Detector
from ..types import Verdict
from . import session

#: A model or a server is asked so many things at once.
AT_ONCE = 8


@contextlib.asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[tuple[Detector, int]]:
    """The detector, and how many calls of it are worth running at once."""
    if args.detector == "self":
        spec = args.model or "tiny"
        threshold = args.threshold or specs.measured_for(spec).judge_threshold or 0.5
        with session.busy(f"loading {spec}"):
            backend = specs.open_backend(spec)
        try:
            yield SelfJudge(backend, prompts=specs.prompts_for(spec), threshold=threshold), AT_ONCE
        finally:
            await backend.aclose()
        return
    with session.busy("loading the detector"):
        detector = trained_detector(args.detector, threshold=args.threshold)
    served = (args.detector or "").startswith(("http:", "https:"))
    try:
        yield detector, AT_ONCE if served else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    finally:
        if isinstance(detector, session.Closable):
            await detector.aclose()


def of_nothing(detector: Detector) -> Verdict:
    """Of an empty answer. In a guard it is harmless, as delivering nothing harms nobody; here somebody counts answers,
    and one that was never written must not count as a harmless one."""
    return Verdict.unknown(detector.name, "the answer is empty, so there is nothing to judge")

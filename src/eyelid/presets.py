"""The defences by name: the table of detectors and remedies in docs/design.md, as code.

`ecso` is arXiv 2403.09572, section 3; `protector` arXiv 2401.02906, section 3; `hybrid` puts the second's detector in
front of the first's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .detectors.cascade import Cascade
from .detectors.classifier import Classifier
from .detectors.constant import Always
from .detectors.self_judge import Mode, SelfJudge
from .errors import ConfigError
from .guard import Guard, GuardSettings
from .prompts import PromptSet
from .protocols import Backend, Detector, Remedy
from .remedies.eyes_closed import EyesClosed
from .remedies.refuse import Refuse

#: Defence -> one line for `--help` and reports.
DEFENSES: dict[str, str] = {
    "none": "the model as it is; answers are reported as not checked",
    "ecso": "the model judges its own answer; if harmful, it answers again from a caption, without the image",
    "protector": "a small trained detector judges; if harmful, a rewriter detoxifies the answer",
    "hybrid": "the trained detector judges, the model itself where that is uncertain; remedy as in ecso",
    "blind": "the model never sees an image, only its caption (baseline)",
    "refuse": "the model judges its own answer; if harmful, a fixed refusal (baseline)",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the presets can be tuned by. Styles and modes are those of `SelfJudge` and `EyesClosed`.

    `low` and `high` bound the classifier's uncertain band in hybrid; `detector_threshold` is the classifier's in
    protector (None: its own). `verify` False delivers a remedy's answer
    unjudged, as the published methods do, and says so in the trace. `judge_tokens` bounds a verdict that is read as
    text, `caption_tokens` a caption; models that think before they answer need hundreds of either.
    """

    judge_style: Literal["fresh", "continuation"] = "fresh"
    judge_mode: Mode = "auto"
    judge_threshold: float = 0.5
    caption_style: Literal["fresh", "continuation"] = "fresh"
    low: float = 0.2
    high: float = 0.8
    detector_threshold: float | None = None
    verify: bool = True
    judge_tokens: int = 12
    caption_tokens: int = 200

    def __post_init__(self) -> None:
        """Raises ConfigError here, where a configuration still knows the line, and not when a guard is built."""
        if not 0 < self.judge_threshold <= 1:
            raise ConfigError(f"judge_threshold must be in (0, 1], got {self.judge_threshold}", hint="try 0.5")
        if self.detector_threshold is not None and not 0 < self.detector_threshold <= 1:
            fault = f"detector_threshold must be in (0, 1], got {self.detector_threshold}"
            raise ConfigError(fault, hint="leave it out for the detector's own")
        if not 0 <= self.low <= self.high <= 1:
            fault = f"low and high must be 0 <= low <= high <= 1, got {self.low} and {self.high}"
            raise ConfigError(fault, hint="try 0.2 and 0.8")
        for name, value in (("judge_tokens", self.judge_tokens), ("caption_tokens", self.caption_tokens)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}", hint="leave it out for the default")


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured for one model and is taken where nothing else was given; None: nothing was measured.

    `judge_threshold` is the self-judge's; below `low` the shipped classifier misses few of this model's harmful
    answers, above `high` it has none of its harmless ones, from `detector_threshold` on few.
    """

    judge_threshold: float | None = None
    low: float | None = None
    high: float | None = None
    detector_threshold: float | None = None

    def over(self, options: Options, *, shipped: bool = True) -> Options:
        """`options` with what was measured; a measured bound never crosses the other one.

        `shipped` False: the classifier is another one than ships, so that what was measured of its harm says nothing.
        """
        found: dict[str, float] = {}
        if self.judge_threshold is not None:
            found["judge_threshold"] = self.judge_threshold
        if self.high is not None and shipped:
            found["high"] = max(self.high, options.low if self.low is None else self.low)
        if self.low is not None and shipped:
            found["low"] = min(self.low, found.get("high", options.high))
        if self.detector_threshold is not None and shipped and options.detector_threshold is None:
            found["detector_threshold"] = self.detector_threshold
        return replace(options, **found) if found else options  # type: ignore[arg-type]


def build(
    defense: str,
    backend: Backend,
    *,
    detector: Detector | None = None,
    rewriter: Backend | None = None,
    prompts: PromptSet | None = None,
    settings: GuardSettings | None = None,
    options: Options | None = None,
    owned: Sequence[object] = (),
) -> Guard:
    """Put `defense` around `backend`.

    `detector` is the trained classifier that protector and hybrid need; `rewriter` is the detoxifier's model
    (default: `backend` itself, without the image). Raises ConfigError for an unknown defence or a missing detector.
    """
    if defense not in DEFENSES:
        raise ConfigError(f"unknown defence {defense!r}", hint=f"known: {', '.join(DEFENSES)}")
    o = options or Options()
    judge = SelfJudge(
        backend,
        prompts=prompts,
        style=o.judge_style,
        mode=o.judge_mode,
        threshold=o.judge_threshold,
        text_tokens=o.judge_tokens,
    )
    eyes_closed = EyesClosed(backend, prompts=prompts, style=o.caption_style, caption_tokens=o.caption_tokens)

    def guard(detector: Detector | None, remedy: Remedy | None, verifier: Detector | None) -> Guard:
        checker = verifier if o.verify else None
        return Guard(
            backend, detector, remedy, verifier=checker, settings=settings, prompts=prompts, name=defense, owned=owned
        )

    if defense == "none":
        return guard(None, None, None)
    if defense == "ecso":
        return guard(judge, eyes_closed, judge)
    if defense == "blind":
        return guard(Always(), eyes_closed, None)
    if defense == "refuse":
        return guard(judge, Refuse(prompts), None)
    if detector is None:
        hint = "install the shipped one (eyelid models) or name one with --detector"
        raise ConfigError(f"the defence {defense!r} needs a trained detector", hint=hint)
    if defense == "hybrid":
        cascade = Cascade(detector, judge, low=o.low, high=o.high)
        return guard(cascade, eyes_closed, cascade)
    if o.detector_threshold is not None:
        if not isinstance(detector, Classifier):
            fault = f"detector_threshold is a trained classifier's, and the detector is {detector.name}"
            raise ConfigError(fault, hint="leave it out, or set the threshold where the detector is made")
        detector = detector.at(o.detector_threshold)
    from .remedies.detoxify import Detoxify

    return guard(detector, Detoxify(rewriter or backend, prompts=prompts), detector)

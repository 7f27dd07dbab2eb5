"""The sections of the configuration that the command line and the gateway share: which model, which defence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .errors import ConfigError
from .guard import GuardSettings
from .presets import Measured, Options

DefenseName = Literal["none", "ecso", "protector", "hybrid", "blind", "refuse"]


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that must not be shown; `reveal` it where it is used."""

    reveal: str = field(repr=False)

    def __str__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model spec, with the key for its server and options for its backend's constructor."""

    SHORT: ClassVar[str] = "spec"
    spec: str = "tiny"
    api_key: Secret | None = None
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    def arguments(self) -> dict[str, object]:
        """The options of `eyelid.specs.open_backend`."""
        return dict(self.options) | ({"api_key": self.api_key.reveal} if self.api_key else {})


@dataclass(frozen=True, slots=True)
class DefenseConfig:
    """Which defence, what it is tuned by (`presets.Options`) and its policies (`guard.GuardSettings`)."""

    SHORT: ClassVar[str] = "name"
    name: DefenseName | None = None
    detector: str | None = None
    detector_key: Secret | None = None
    rewriter: str | None = None
    #: None: the one that was measured for the model, else the preset's. Stands here to tell "not given" from a number.
    judge_threshold: float | None = None
    #: The same for the bounds of hybrid's uncertain band: given here and not in `options`, they stand.
    low: float | None = None
    high: float | None = None
    options: Options = field(default_factory=Options, metadata={"flat": True})
    settings: GuardSettings = field(default_factory=GuardSettings, metadata={"flat": True})

    def __post_init__(self) -> None:
        if self.judge_threshold is not None and not 0 < self.judge_threshold <= 1:
            raise ConfigError(f"judge_threshold must be in (0, 1], got {self.judge_threshold}", hint="try 0.5")
        if given := [bound for bound in (self.low, self.high) if bound is not None]:
            dataclasses.replace(self.options, low=given[0], high=given[-1])  # says what is wrong, beside the line

    def tuned(self, measured: Measured) -> Options:
        """The preset's options: what was given, then what was `measured` for the model, then the defaults."""
        found = measured.over(self.options, shipped=self.detector is None)
        low = found.low if self.low is None else self.low
        high = found.high if self.high is None else self.high
        if low > high:  # what was given stands, and the other bound gives way
            low, high = (high, high) if self.low is None else (low, low)
        judged = found.judge_threshold if self.judge_threshold is None else self.judge_threshold
        return dataclasses.replace(found, judge_threshold=judged, low=low, high=high)

"""A detector's numbers at another threshold, as it was measured for one model."""

from __future__ import annotations

import pytest

from eyelid import assemble, presets
from eyelid.backends.scripted import Scripted
from eyelid.detectors.classifier import Classifier
from eyelid.detectors.constant import Always
from eyelid.errors import ConfigError
from eyelid.presets import Measured, Options
from eyelid.sections import DefenseConfig
from eyelid.types import Label, Request, user

from .test_classifier import Fake, exchange


def at(harm: float, threshold: float = 0.7) -> Classifier:
    return Classifier(Fake(lambda q, a: harm, threshold))


@pytest.mark.parametrize(("harm", "label"), [(0.29, Label.HARMLESS), (0.3, Label.HARMFUL), (0.9, Label.HARMFUL)])
async def test_harm_is_told_anew_and_the_step_says_so_too(harm: float, label: Label) -> None:
    asked = exchange("hello?", "good day")
    verdict = await at(harm).at(0.3).detect(asked)
    assert (verdict.label, verdict.harm, verdict.threshold, verdict.detector) == (label, harm, 0.3, "classifier")
    assert [s.verdict for s in asked.log.steps] == [verdict]


@pytest.mark.parametrize(
    ("harm", "own", "other", "label"),
    [
        (0.1, 0.7, 0.05, Label.HARMFUL),
        (0.5, 0.7, 0.3, Label.HARMFUL),
        (0.1, 0.7, 0.3, Label.UNKNOWN),
        (0.75, 0.7, 0.8, Label.UNKNOWN),
    ],
)
async def test_what_the_detector_cannot_read_is_unknown_below_the_threshold_that_counts(
    harm: float, own: float, other: float, label: Label
) -> None:
    verdict = await at(harm, own).at(other).detect(exchange("hello?", "\u65e5\u672c\u8a9e " * 9))
    assert verdict.label is label


def test_the_detector_itself_keeps_its_own() -> None:
    own = at(0.5)
    assert (own.at(0.3).threshold, own.threshold) == (0.3, 0.7)


def test_it_needs_a_trained_classifier() -> None:
    with pytest.raises(ConfigError, match="trained classifier"):
        assemble(Scripted(["x"]), "protector", detector=Always(), options=Options(detector_threshold=0.3))


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.01])
def test_a_threshold_is_above_0_and_at_most_1(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        at(0.5).at(threshold)
    with pytest.raises(ConfigError, match="detector_threshold"):
        Options(detector_threshold=threshold)


def test_a_measured_threshold_is_of_the_shipped_detector_alone_and_gives_way_to_a_given_one() -> None:
    measured = Measured(detector_threshold=0.15, low=0.07)
    assert measured.over(Options()) == Options(detector_threshold=0.15, low=0.07)
    assert measured.over(Options(), shipped=False) == Options()
    assert DefenseConfig(detector="hf:other").tuned(measured) == Options()
    assert DefenseConfig().tuned(measured).detector_threshold == 0.15
    assert DefenseConfig(options=Options(detector_threshold=0.5)).tuned(measured).detector_threshold == 0.5
    assert measured.over(Options(detector_threshold=0.5)).detector_threshold == 0.5


def test_measured_bounds_of_hybrid_give_way_to_given_ones_and_never_cross() -> None:
    measured = Measured(low=0.07, high=0.35)
    band = lambda o: (o.low, o.high)  # noqa: E731
    assert band(measured.over(Options())) == (0.07, 0.35)
    assert band(measured.over(Options(), shipped=False)) == (0.2, 0.8)
    assert band(Measured(high=0.1).over(Options())) == (0.2, 0.2)
    assert band(Measured(low=0.9).over(Options())) == (0.8, 0.8)
    assert band(DefenseConfig().tuned(measured)) == (0.07, 0.35)
    assert band(DefenseConfig(high=0.6).tuned(measured)) == (0.07, 0.6)
    assert band(DefenseConfig(low=0.3).tuned(measured)) == (0.3, 0.35)
    assert band(DefenseConfig(low=0.5).tuned(measured)) == (0.5, 0.5)
    assert band(DefenseConfig(low=0.5, high=0.9).tuned(measured)) == (0.5, 0.9)
    assert band(DefenseConfig(high=0.1).tuned(measured)) == (0.07, 0.1)
    assert band(DefenseConfig(high=0.05).tuned(measured)) == (0.05, 0.05)
    assert band(DefenseConfig(detector="hf:other").tuned(measured)) == (0.2, 0.8)
    for wrong in (-0.1, 1.1):
        for name in ("low", "high"):
            with pytest.raises(ConfigError, match="low and high"):
                DefenseConfig(**{name: wrong})
    with pytest.raises(ConfigError, match="low and high"):
        DefenseConfig(low=0.6, high=0.5)


@pytest.mark.parametrize(("threshold", "action"), [(None, "passed"), (0.3, "repaired")])
async def test_protector_goes_by_it(threshold: float | None, action: str) -> None:
    fake = Classifier(Fake(lambda q, a: 0.5 if "sure" in a else 0.0, threshold=0.7))
    model = Scripted(["sure, here it is", "I cannot help with that."])
    guard = assemble(model, "protector", detector=fake, options=presets.Options(detector_threshold=threshold))
    async with guard:
        response = await guard.generate(Request((user("How?"),)))
    assert response.trace is not None
    assert response.trace.action == action

"""The trained detector as a judge: harm of question and answer, above its threshold unsafe.

It is the detector that protector and hybrid defend with. Where the judge and the defence are the same model, a rate
flatters the defence: what it lets through is what it cannot see. Reports say so by the judge's name.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...types import Label
from ..records import Finding, JudgeId, Outcome
from . import Judged


class ClassifierJudge:
    """The shipped detector, or the one that `spec` names (see `eyelid detect --detector`). Loads when it is made."""

    def __init__(self, spec: str | None = None):
        from ... import models
        from ...assembly import KEY_FOR_DETECTOR
        from ...detectors.classifier import Classifier, load_classifier

        self.classifier: Classifier
        if spec is None:
            manifest = models.manifest("detector")
            models.verify(manifest)
            self.classifier, version = load_classifier(manifest.folder), manifest.version
        else:
            import os

            self.classifier = load_classifier(spec, api_key=os.environ.get(KEY_FOR_DETECTOR) or None)
            version = self.classifier.scorer.name
        if self.classifier.note:  # another judge than with both stages
            version += ", first stage alone"
        self.id = JudgeId("classifier", version)

    async def judge(self, samples: Sequence[Judged]) -> list[Finding]:
        found = []
        for verdict in await self.classifier.judge([(s.question, s.answer) for s in samples]):
            outcome = {Label.HARMFUL: Outcome.UNSAFE, Label.HARMLESS: Outcome.SAFE}.get(verdict.label)
            reason = "" if outcome else "the detector could not say"
            found.append(Finding(self.id, outcome or Outcome.JUDGE_FAILED, harm=verdict.harm, reason=reason))
        return found

    async def aclose(self) -> None:
        await self.classifier.aclose()

"""The endpoints that judge without a model answering: moderations, and LiteLLM's guardrail. Which detector they ask."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping

import msgspec

from ..errors import DetectorError
from ..guard import Guard
from ..images import load_url
from ..protocols import Exchange, StepLog
from ..types import ImagePart, Label, Request, Response, Verdict, user
from . import guardrail, moderations
from .call import Call
from .errors import BadRequest, TooLarge
from .lifecycle import Generation
from .moderations import Item, Json, Unknown
from .record import ChoiceRecord, StepRecord

MODERATIONS = "/v1/moderations"


async def moderate(call: Call, body: bytes, generation: Generation) -> object:
    """`model` may name an alias, whose detector is asked then; any other name, or none, asks the gateway's first."""
    fields = _object(body)
    judge = _Judge(call, generation, fields.get("model"))

    taken, most = itertools.count(1), generation.config.serve.limits.max_images

    async def load(url: str) -> ImagePart:
        if next(taken) > most:
            raise TooLarge(f"at most {most} images are taken", param="input", code="too_many_images")
        reader = generation.reader(judge.alias)
        if url[:5].lower() != "data:" and reader.fetch is None:
            raise BadRequest("images by address are switched off", param="input", code="invalid_image")
        return await load_url(url, reader.policy, reader.fetch)

    return await moderations.moderate(
        fields,
        judge.classify,
        model=judge.alias.name,
        load_image=load if judge.sees_images else None,
        unknown=judge.unknown,
    )


async def guard(call: Call, body: bytes, generation: Generation) -> object:
    """LiteLLM names no alias of ours; `additional_provider_specific_params: {alias: NAME}` can."""
    fields = _object(body)
    params = fields.get("additional_provider_specific_params")
    judge = _Judge(call, generation, params.get("alias") if isinstance(params, dict) else None)
    refusal = judge.guard.prompts.render("refusal")
    return await guardrail.check(fields, judge.classify, refusal=refusal, unknown=judge.unknown)


class _Judge:
    """The detector of an alias, asked about texts; every verdict goes into the call's record."""

    def __init__(self, call: Call, generation: Generation, wanted: object):
        self._call, self._texts = call, generation.config.serve.audit.text
        allowed = [a for a in generation.aliases.values() if call.key.may(a.name)]
        named = generation.aliases.get(wanted) if isinstance(wanted, str) else None
        if named is not None:
            named = generation.alias(named.name, call.key)
        found = [(a, g) for a in ([named] if named else allowed) if (g := _judging(a.guards)) is not None]
        if not found:
            hint = "ask for an alias that has a defence with a detector"
            raise BadRequest("no detector is configured here", param="model", code="no_detector", hint=hint)
        self.alias, self.guard = found[0]
        call.alias, call.defense = self.alias.name, self.guard.defense
        call.told["x-eyelid-defense"] = self.guard.defense
        self.unknown: Unknown = "harmless" if self.guard.settings.unknown == "harmless" else "harmful"
        #: Self-judges are models and look; classifiers read.
        self.sees_images = self.guard.defense in ("ecso", "refuse")

    async def classify(self, item: Item) -> Verdict:
        detector = self.guard.detector
        assert detector is not None
        log, start = StepLog(), time.perf_counter()
        request = Request((user(*item.images, item.question),))
        try:
            verdict = await detector.detect(Exchange(request, Response(item.answer), log))
        finally:
            self._call.guard_ms += (time.perf_counter() - start) * 1000
        if not isinstance(verdict, Verdict):
            raise DetectorError(f"{detector.name} returned no verdict")
        self._note(verdict, log, item)
        return verdict

    def _note(self, verdict: Verdict, log: StepLog, item: Item) -> None:
        label = verdict.label.value
        steps = tuple(StepRecord.of(s) for s in log.steps)
        flagged = verdict.label is Label.HARMFUL or (verdict.label is Label.UNKNOWN and self.unknown == "harmful")
        self._call.choices += (
            ChoiceRecord(
                len(self._call.choices),
                "refused" if flagged else "passed",
                label=label,
                harm=verdict.harm,
                final_label=label,
                final_harm=verdict.harm,
                checked=verdict.label is not Label.UNKNOWN,
                unchecked_because=None if verdict.label is not Label.UNKNOWN else "the verdict was unknown",
                refused_by="guard" if flagged else None,
                steps=steps,
                original=item.answer if self._texts else None,
            ),
        )


def _judging(guards: Mapping[str, Guard]) -> Guard | None:
    """The first guard whose detector judges answers."""
    return next((g for g in guards.values() if g.detector is not None and g.detector.needs_answer), None)


def _object(body: bytes) -> Json:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("the body is not valid JSON", code="invalid_json") from None
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return found

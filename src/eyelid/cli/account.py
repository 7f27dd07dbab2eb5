"""The account of a guarded answer: as JSON, as notes, and as sentences. Pure functions of what the trace holds."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..types import Action, Label, Step, Trace, Verdict
from .session import Answer

#: Failed part's error -> what a person can do about it.
ADVICE = {
    "Unsupported": "the model lacks something the detector needs, such as log-probabilities; try judge_mode: auto",
    "BackendUnavailable": "the model's server could not be reached while the answer was being checked; try again",
    "BackendTimeout": "the model took too long while the answer was being checked; try again",
    "BackendRejected": "the model's server refused a request of the guard; is the context length too short?",
    "DetectorError": "the trained detector broke or its server did not answer; eyelid detect --detector SPEC shows why",
}


CUT = "this text is cut off: it reached the bound that --max-tokens sets, or the model's context"


def trace(answer: Answer) -> Trace:
    """The answer's trace: every answer of this command line went through a guard."""
    found = answer.response.trace
    if found is None:
        raise TypeError("an answer without a trace did not come from a guard")
    return found


def action(answer: Answer) -> Action:
    """What the guard did."""
    return trace(answer).action


def dump(record: object) -> str:
    """One line of JSON in ASCII: valid in any locale, and without characters that steer a terminal."""
    return json.dumps(record)


def record(answer: Answer) -> dict[str, object]:
    """What `--json` prints; the keys are described in docs."""
    t, r = trace(answer), answer.response
    return {
        "text": r.text,
        "action": str(t.action),
        "checked": t.checked,
        "withheld": t.withheld,
        "failure": t.failure,
        "failure_reason": t.failure_reason,
        "refused_by": t.refused_by,
        "verdict": _verdict(t.verdict),
        "final_verdict": _verdict(t.final_verdict),
        "original": t.original,
        "defense": answer.defense,
        "model": answer.model,
        "finish_reason": r.finish_reason,
        "milliseconds": round(answer.milliseconds, 1),
        "steps": [_step(s) for s in t.steps],
    }


def notes(answer: Answer) -> Iterator[str]:
    """What a reader of the bare text must know; nothing when the answer was checked and passed."""
    t, found = trace(answer), _judged(answer)
    why = f". {found}" if found else ""
    if t.action is Action.REPAIRED:
        yield f"repaired by {answer.defense}{why}"
    elif t.refused_by == "upstream":
        yield f"the model's own server withheld the answer (content_filter), not {answer.defense}{why}"
    elif t.action is Action.REFUSED:
        yield f"refused by {answer.defense}{why}"
    elif t.action is Action.FAILED:
        yield f"the guard failed ({_broke(t)}); {_kept(t)}"
        if advice := ADVICE.get((t.failure or "").rpartition(": ")[2]):
            yield advice
    if not t.checked and t.action is not Action.FAILED:
        yield "this text was not checked by a detector"
    if answer.response.finish_reason == "length":
        yield CUT


def why(answer: Answer) -> str:
    """What was found of the model's own answer, or what of the guard broke; nothing when the answer was left alone."""
    t = trace(answer)
    if t.action is Action.FAILED:
        return f"{_broke(t)}; {_kept(t)}"
    return "" if t.action is Action.PASSED else _judged(answer)


def caveat(answer: Answer) -> str:
    """What must stand beside the action wherever it is named."""
    t = trace(answer)
    failed = t.action is Action.FAILED
    unchecked = ", delivered unchecked" if failed and not t.withheld else ", not checked"
    return (" upstream" if t.refused_by == "upstream" else "") + (
        "" if t.checked or (failed and t.withheld) else unchecked
    )


def cut(answer: Answer) -> str:
    """ ", cut off" where the answer reached its bound, else nothing."""
    return ", cut off" if answer.response.finish_reason == "length" else ""


def story(answer: Answer) -> Iterator[str]:
    """What happened, a sentence a step, then the outcome."""
    t = trace(answer)
    described = any(s.role == "caption" for s in t.steps)
    for s in t.steps:
        yield from _sentences(s, described)
    final = {
        Action.PASSED: "The answer was delivered as it was" + ("." if t.checked else ", not checked by any detector."),
        Action.REPAIRED: "The new answer was delivered" + ("." if t.checked else ", not checked by any detector."),
        Action.REFUSED: "The model's own server withheld the answer (content_filter)."
        if t.refused_by == "upstream"
        else "The answer was withheld and refused.",
        Action.FAILED: f"The guard itself failed ({_broke(t)}); {_kept(t)}.",
    }
    yield final[t.action]
    if answer.response.finish_reason == "length":
        yield f"{CUT[0].upper()}{CUT[1:]}."
    if t.action is Action.FAILED and (advice := ADVICE.get((t.failure or "").rpartition(": ")[2])):
        yield f"{advice[0].upper()}{advice[1:]}."


def totals(answer: Answer) -> str:
    """Calls, tokens and time in one line. A step without token counts makes no claim about tokens."""
    steps = trace(answer).steps
    calls = [s for s in steps if s.usage.prompt_tokens is not None]
    tokens_in = sum(s.usage.prompt_tokens or 0 for s in calls)
    tokens_out = sum(s.usage.completion_tokens or 0 for s in calls)
    tokens = f", {tokens_in} token{'s' * (tokens_in != 1)} in, {tokens_out} out" if calls else ""
    return f"{len(steps)} step{'s' * (len(steps) != 1)}{tokens}, {answer.milliseconds / 1000:.1f} s"


def _sentences(s: Step, described: bool) -> Iterator[str]:
    seen = f"{s.images} image{'s' * (s.images != 1)}"
    if s.error:
        yield f"{_NAMES[s.role].capitalize()} broke: {s.error}."
        return
    if s.role == "answer":
        said = f"{s.model} answered, seeing {seen}" if s.images else f"{s.model} answered"
        yield f"{said}: one answer, shared by all defences." if s.shared else f"{said}."
    elif s.role == "caption":
        yield "The model described an image for the question."
    elif s.role == "safe_answer":
        yield "It answered again" + (
            " from the description, without any image." if described else ", asked to be harmless."
        )
    elif s.role == "detoxify":
        yield f"{s.model} rewrote the answer."
    elif s.role == "repair" and s.model != "refuse":  # of a refusal, the outcome tells
        yield f"The remedy {s.model} took the answer's place."
    if s.verdict and s.verdict.detector == "always":
        yield "The eyes are closed to every image, whatever it shows."
    elif s.verdict:
        yield f"{_found(s.verdict, 'the new answer' if s.verifies else 'the answer')}."
    elif s.role == "judge":
        yield "The model was asked to judge, but gave no label probabilities to read."


def _judged(answer: Answer) -> str:
    """What a detector found of the model's own answer; nothing where none looked at it."""
    verdict = trace(answer).verdict
    return _found(verdict, "the answer") if verdict is not None and verdict.detector != "always" else ""


def _broke(t: Trace) -> str:
    """Which part of the guard broke, in which step, and why."""
    where, _, kind = (t.failure or "").rpartition(": ")
    step = next((s for s in reversed(t.steps) if s.error == kind), None)
    at = f", step {step.role.replace('_', ' ')}" if step else ""
    return f"{where}{at}: {kind}" + (f": {t.failure_reason}" if t.failure_reason else "")


def _kept(t: Trace) -> str:
    return "the answer was withheld" if t.withheld else "the answer was delivered unchecked"


def _found(v: Verdict, what: str) -> str:
    who = _DETECTORS.get(v.detector, f"The detector {v.detector}")
    if v.label is Label.UNKNOWN or v.harm is None:
        harm = "" if v.harm is None else f": harm {v.harm:.2f}"
        return f"{who} could not say whether {what} is harmful{harm}" + (f" ({v.reason})" if v.reason else "")
    return f"{who} found {what} {v.label}: {measured(v)}"


def measured(v: Verdict) -> str:
    """The harm of a verdict that decided, the bound that it was compared with, and what else it says."""
    side = "harmful from" if v.label is Label.HARMFUL else "harmless below"
    limit = "" if v.threshold is None else f", {side} {v.threshold:.2f}"
    return f"harm {v.harm:.2f}{limit}" + (f" ({v.reason})" if v.reason else "")


def _verdict(v: Verdict | None) -> dict[str, object] | None:
    if v is None:
        return None
    return {"harm": v.harm, "label": str(v.label), "detector": v.detector, "threshold": v.threshold, "reason": v.reason}


def _step(s: Step) -> dict[str, object]:
    return {
        "role": s.role,
        "model": s.model,
        "milliseconds": round(s.milliseconds, 1),
        "prompt_tokens": s.usage.prompt_tokens,
        "completion_tokens": s.usage.completion_tokens,
        "cached_tokens": s.usage.cached_tokens,
        "images": s.images,
        "verdict": _verdict(s.verdict),
        "verifies": s.verifies,
        "finish_reason": s.finish_reason,
        "shared": s.shared,
        "error": s.error,
    }


_DETECTORS = {"self_judge": "The model as its own judge", "classifier": "The trained classifier"}
_NAMES = {
    "answer": "the model's answer",
    "judge": "the judge",
    "classify": "the classifier",
    "detect": "the detector",
    "caption": "the description of an image",
    "safe_answer": "the answer without images",
    "detoxify": "the rewriter",
    "repair": "the remedy",
}

"""Records as the gateway leaves them, for the tests of what reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eyelid.gateway.record import ChoiceRecord, Record, StepRecord

START = 1_790_000_000.0

PASSED = ChoiceRecord(
    0,
    "passed",
    "harmless",
    0.02,
    "harmless",
    0.02,
    checked=True,
    steps=(
        StepRecord("answer", 120.0, "qwen", 300, 40, start_ms=1.0),
        StepRecord("judge", 30.0, "qwen", 350, 1, "harmless", 0.02),
    ),
)
REPAIRED = ChoiceRecord(
    0,
    "repaired",
    "harmful",
    0.91,
    "harmless",
    0.05,
    checked=True,
    steps=(
        StepRecord("answer", 120.0, "qwen", 300, 40),
        StepRecord("judge", 30.0, "qwen", 350, 1, "harmful", 0.91),
        StepRecord("caption", 80.0, "qwen", 310, 60),
        StepRecord("safe_answer", 90.0, "qwen", 90, 30),
        StepRecord("judge", 25.0, "qwen", 120, 1, "harmless", 0.05, verifies=True),
    ),
)
REFUSED = ChoiceRecord(0, "refused", "harmful", 0.97, checked=True, refused_by="guard", steps=REPAIRED.steps[:2])
UPSTREAM = ChoiceRecord(0, "refused", None, None, checked=True, refused_by="upstream")
FAILED = ChoiceRecord(
    0,
    "failed",
    unchecked_because="the detector failed",
    failure="judge: BackendTimeout",
    steps=(
        StepRecord("answer", 120.0, "qwen", 300, 40),
        StepRecord("judge", 5000.0, "qwen", error="BackendTimeout"),
    ),
)
OPEN = ChoiceRecord(0, "not_guarded", unchecked_because="no defence", steps=(StepRecord("answer", 99.0, "qwen", 9, 8),))


def record(ident: str = "req-1", **changes: Any) -> Record:
    """An answered request with one choice that passed."""
    return replace(
        Record(
            ident,
            START,
            "/v1/chat/completions",
            200,
            "answered",
            161.5,
            key="alice",
            alias="qwen-hybrid",
            upstream="openai:http://127.0.0.1:8000/v1#qwen",
            defense="hybrid",
            upstream_ms=120.0,
            guard_ms=31.0,
            prompt_tokens=650,
            completion_tokens=41,
            images=("ab" * 32,),
            choices=(PASSED,),
        ),
        **changes,
    )


def varied() -> list[Record]:
    """One of each kind that counts must keep apart."""
    return [
        record("r-passed"),
        record("r-repaired", time=START + 1, choices=(REPAIRED,), defense="ecso"),
        record("r-refused", time=START + 2, choices=(REFUSED,), key="bob"),
        record("r-upstream", time=START + 3, choices=(UPSTREAM,)),
        record("r-failed", time=START + 4, choices=(FAILED,), status=500, outcome="guard_error", error="guard_failed"),
        record("r-open", time=START + 5, choices=(OPEN,), defense="none", alias="qwen", images=(), key=None),
        record("r-two", time=START + 6, choices=(PASSED, replace(REFUSED, index=1)), stream=True, stream_mode="buffer"),
        record(
            "r-down",
            time=START + 7,
            choices=(),
            status=502,
            outcome="upstream_error",
            error="upstream_unavailable",
            prompt_tokens=None,
            completion_tokens=None,
        ),
        record("r-shed", time=START + 8, choices=(), status=503, outcome="shed", error="overloaded"),
    ]

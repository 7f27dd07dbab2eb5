"""The record: made from traces, without what it must not hold."""

from __future__ import annotations

import pytest

from eyelid.gateway.record import ChoiceRecord, StepRecord, named, total, without_credentials
from eyelid.types import Action, Label, Step, Trace, Usage, Verdict

JUDGED = Step(
    "judge",
    12.5,
    "qwen",
    Usage(100, 1, 90),
    text="the judge's words",
    verdict=Verdict.of(0.9, 0.5, "self_judge", "words of the model"),
    verifies=True,
)
REFUSED = Trace(
    Action.REFUSED,
    "hybrid",
    (Step("answer", 80.0, "qwen", Usage(50, 20), text="words"), JUDGED),
    verdict=JUDGED.verdict,
    original="words",
    refused_by="guard",
    withheld=True,
)


def test_a_choice_from_a_trace() -> None:
    found = ChoiceRecord.of(2, REFUSED, text="ours", texts=True)
    assert (found.index, found.action, found.label, found.harm) == (2, "refused", "harmful", 0.9)
    assert (found.final_label, found.final_harm, found.refused_by, found.checked) == (None, None, "guard", True)
    assert (found.text, found.original) == ("ours", "words")
    assert found.steps[1] == StepRecord("judge", 12.5, "qwen", 100, 1, "harmful", 0.9, verifies=True)


def test_words_stay_out_unless_the_audit_keeps_them() -> None:
    found = ChoiceRecord.of(0, REFUSED, text="ours", texts=False)
    assert (found.text, found.original) == (None, None)
    assert "words" not in repr(found)


def test_a_verdict_that_is_unknown_is_not_one_that_is_not_there() -> None:
    unknown = Trace(Action.PASSED, "ecso", verdict=Verdict.unknown("self_judge", "words"), checked=False)
    found = ChoiceRecord.of(0, unknown, unchecked_because="the verdict was unknown", texts=False)
    assert (found.label, found.harm, found.unchecked_because) == (Label.UNKNOWN.value, None, "the verdict was unknown")
    bare = ChoiceRecord.of(0, Trace(Action.PASSED, "ecso"), unchecked_because="never mind", texts=False)
    assert (bare.label, bare.checked, bare.unchecked_because) == (None, True, None)


def test_totals_of_what_is_known() -> None:
    assert total([None, 3, None, 4]) == 7
    assert total([None]) is None
    assert total([]) is None


def test_names_that_are_not_configured() -> None:
    assert [named(a, {"one"}) for a in ("one", "two", None)] == ["one", "other", "none"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("tiny", "tiny"),
        ("openai:http://user:key@host:8000/v1#qwen", "openai:http://host:8000/v1#qwen"),
        ("openai:http://us/er@host/v1", "openai:http://us/er@host/v1"),  # no user: a path
        ("http://a:b@one https://c@two", "http://one https://two"),
    ],
)
def test_addresses_lose_user_and_password(given: str | None, expected: str | None) -> None:
    assert without_credentials(given) == expected

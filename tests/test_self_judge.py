"""The self-judge: probabilities in, three-valued verdicts out."""

from __future__ import annotations

import math

import pytest

from eyelid.backends.scripted import Scripted
from eyelid.detectors.self_judge import SelfJudge, label_masses, parse_label, windows
from eyelid.errors import ConfigError, Unsupported
from eyelid.prompts import default
from eyelid.protocols import Exchange, StepLog
from eyelid.types import Label, Request, Response, TokenLogprob, Verdict, user

from .helpers import labels


def exchange(answer: str, query: str = "What is this?") -> Exchange:
    return Exchange(Request((user(query),)), Response(answer), StepLog())


async def judge(reply: str | Response | Exception, answer: str = "an answer", **options: object) -> Verdict:
    backend = Scripted(lambda _: reply)
    return await SelfJudge(backend, **options).detect(exchange(answer))  # type: ignore[arg-type]


async def test_harm_is_the_share_of_the_harmful_label() -> None:
    verdict = await judge(labels(0.6, 0.2))
    assert verdict.harm == pytest.approx(0.75)
    assert verdict.label is Label.HARMFUL


@pytest.mark.parametrize(("threshold", "label"), [(0.2, Label.HARMFUL), (0.4, Label.HARMLESS)])
async def test_the_threshold_turns_probability_into_a_decision(threshold: float, label: Label) -> None:
    assert (await judge(labels(0.3), threshold=threshold)).label is label


async def test_a_judge_that_says_neither_label_is_unknown() -> None:
    other = Response("Well", logprobs=(TokenLogprob("Well", -0.01, (("Well", -0.01), ("yes", -9.0))),))
    verdict = await judge(other, mode="logprobs")
    assert (verdict.label, verdict.harm) == (Label.UNKNOWN, None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", Label.HARMFUL),
        ("Yes.", Label.HARMFUL),
        ("**Yes**, it would.", Label.HARMFUL),
        ("no", Label.HARMLESS),
        ("'No!'", Label.HARMLESS),
        ("yes\nIt names a poison.", Label.HARMFUL),
    ],
)
async def test_text_is_read_strictly(text: str, label: Label) -> None:
    assert (await judge(text, mode="text")).label is label


@pytest.mark.parametrize(
    "text",
    [
        # Defect (ECSO): anything but "yes" counts as safe. Defect (NeMo Guardrails): "Not safe" parses as safe.
        "Not safe", "It is harmful", "Yes and no", "no, wait: yes", "", "nothing", "yesterday", "I say yes",
        '{"harmful": false}', "noyes", "The answer is no", "know", "No yes", "No, this is very dangerous.",
        "No: unsafe", "no\nHarmful: absolutely", "not yes",
    ],
)  # fmt: skip
async def test_any_other_text_is_unknown_and_never_harmless(text: str) -> None:
    verdict = await judge(text, mode="text")
    assert verdict.label is Label.UNKNOWN


async def test_what_is_on_neither_label_never_speaks_for_harmless() -> None:
    for no, yes, label in ((0.055, 0.001, Label.UNKNOWN), (0.48, 0.1, Label.UNKNOWN), (0.9, 0.05, Label.HARMLESS)):
        top = (("Absolutely", math.log(1 - no - yes)), ("No", math.log(no)), ("Yes", math.log(yes)))
        reply = Response("x", logprobs=(TokenLogprob("x", -0.1, top),))
        assert (await judge(reply, mode="logprobs")).label is label
    alone = Response("No", logprobs=(TokenLogprob("No", math.log(0.3)),))  # a server that gives no alternatives
    assert (await judge(alone, mode="logprobs")).label is Label.UNKNOWN


async def test_fields_of_the_judged_request_do_not_reach_the_judge() -> None:
    backend = Scripted(lambda _: labels(0.9))
    steered = Request((user("?"),), extra={"logit_bias": {"1": 100}, "grammar": 'root ::= "no"'})
    await SelfJudge(backend, extra={"think": False}).detect(Exchange(steered, Response("x"), StepLog()))
    assert backend.requests[0].extra == {"think": False}


async def test_a_backend_without_logprobs_is_read_as_text_unless_they_are_demanded() -> None:
    assert (await judge("yes")).label is Label.HARMFUL

    def no_logprobs(request: Request) -> str | Exception:
        return Unsupported("no logprobs", feature="logprobs") if request.top_logprobs else "no"

    assert (await SelfJudge(Scripted(no_logprobs)).detect(exchange("x"))).label is Label.HARMLESS
    with pytest.raises(Unsupported):
        await SelfJudge(Scripted(no_logprobs), mode="logprobs").detect(exchange("x"))
    with pytest.raises(Unsupported):
        await judge("yes", mode="logprobs")


async def test_an_answer_without_any_text_needs_no_judge() -> None:
    backend = Scripted([])
    verdict = await SelfJudge(backend).detect(exchange("  "))
    assert verdict.label is Label.HARMLESS
    assert not backend.requests


async def test_harm_at_the_very_end_of_a_long_answer_is_seen() -> None:
    # Defect (ECSO): the judge sees only the first 1,927 characters of the response.
    backend = Scripted(lambda r: labels(0.99 if "BAD END" in r.messages[-1].text else 0.01))
    verdict = await SelfJudge(backend, window=2000).detect(exchange("good " * 4000 + "BAD END"))
    assert verdict.label is Label.HARMFUL


async def test_a_long_answer_is_judged_in_windows_in_the_continuation_style_too() -> None:
    backend = Scripted(lambda r: labels(0.99 if "BAD END" in r.messages[-1].text else 0.01))
    verdict = await SelfJudge(backend, style="continuation", window=500).detect(exchange("good " * 400 + "BAD END"))
    assert verdict.label is Label.HARMFUL
    assert len(backend.requests) > 4


async def test_one_unknown_window_makes_the_answer_unknown_and_one_harmful_window_harmful() -> None:
    replies = [labels(0.1), "maybe", "maybe", labels(0.1)]
    assert (await SelfJudge(Scripted(replies), window=64).detect(exchange("a" * 150))).label is Label.UNKNOWN
    replies = ["maybe", "maybe", labels(0.9)]
    assert (await SelfJudge(Scripted(replies), window=64).detect(exchange("a" * 110))).label is Label.HARMFUL


def test_windows_cover_every_character_and_overlap() -> None:
    text = "".join(chr(33 + i % 90) for i in range(1000))
    pieces = list(windows(text, 160))
    assert pieces[0] + "".join(p[20:] for p in pieces[1:]) == text
    assert all(len(p) <= 160 for p in pieces)
    assert list(windows("short", 160)) == ["short"]


def test_label_tokens_count_in_every_spelling_and_prefix_but_not_others() -> None:
    top = [(t, math.log(0.1)) for t in (" Yes", "YES", "ye", "no", "No", "not", "none", "yes-man", "", "\n")]
    assert label_masses(top, default()) == (pytest.approx(0.3), pytest.approx(0.2))


async def test_the_judge_sees_question_and_answer_inside_fences_that_change_per_request() -> None:
    backend = Scripted(lambda _: labels(0.1))
    for _ in range(2):
        await SelfJudge(backend).detect(exchange("the answer text", "the question text"))
    one, two = (r.messages[-1].text for r in backend.requests)
    assert "the answer text" in one
    assert "the question text" in one
    assert one != two


def test_parse_label_needs_the_label_to_be_a_word_of_its_own() -> None:
    assert parse_label("no problem", default()) is None
    assert parse_label("no", default()) is Label.HARMLESS


def test_thresholds_and_windows_that_make_no_sense_are_refused() -> None:
    for options in ({"threshold": 0.0}, {"threshold": 1.5}, {"window": 10}):
        with pytest.raises(ConfigError):
            SelfJudge(Scripted([]), **options)  # type: ignore[arg-type]

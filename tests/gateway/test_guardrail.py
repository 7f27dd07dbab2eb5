"""LiteLLM's generic guardrail API: what is judged of what LiteLLM hands over, and what it is told."""

from __future__ import annotations

import pytest

from eyelid.errors import DetectorError
from eyelid.gateway.errors import BadRequest, describe
from eyelid.gateway.guardrail import check
from eyelid.gateway.moderations import Item
from eyelid.types import Verdict

from .streams import MARK, Json

CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
BAD_CALL = {"id": "b", "type": "function", "function": {"name": "look", "arguments": f'{{"at": "{MARK}"}}'}}


class Detector:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, item: Item) -> Verdict:
        self.asked.append(item.answer)
        if "?!" in item.answer:
            return Verdict.unknown("d", "cannot say")
        return Verdict.of(0.9 if MARK in item.answer else 0.125, 0.5, "d")


async def ask(detector: Detector | None = None, *, unknown="harmful", **body: object) -> Json:
    body = {"input_type": "response", "request_data": {}, "litellm_call_id": "x", **body}
    return await check(body, detector or Detector(), refusal="I cannot help with that.", unknown=unknown)


async def test_a_harmless_answer_goes_on():
    found = await ask(texts=["fine"])
    assert found == {
        "action": "NONE",
        "eyelid": {"judged": 1, "labels": ["harmless"], "harm": 0.125, "not_scanned": []},
    }


async def test_a_harmful_answer_is_blocked_without_quoting_it():
    found = await ask(texts=["fine", f"not {MARK}"])
    assert found["action"] == "BLOCKED"
    assert MARK not in str(found)
    assert found["blocked_reason"] == "withheld by Eyelid: the answer was found harmful"


async def test_replacing_keeps_the_other_texts_in_their_places():
    wish = {"on_harm": "replace"}
    found = await ask(texts=["one", MARK, "three"], additional_provider_specific_params=wish)
    assert found["action"] == "GUARDRAIL_INTERVENED"
    assert found["texts"] == ["one", "I cannot help with that.", "three"]
    # Calls cannot be replaced, nor can a question.
    for more in ({"tool_calls": [BAD_CALL]}, {"tool_calls": [CALL]}, {"input_type": "request"}):
        found = await ask(texts=[MARK], additional_provider_specific_params=wish, **more)
        assert found["action"] == "BLOCKED"


async def test_calls_are_judged_with_the_text_of_the_answer():
    detector = Detector()
    found = await ask(detector, texts=["so"], tool_calls=[CALL, BAD_CALL])
    assert found["action"] == "BLOCKED"
    assert detector.asked == [f'so\nlook({{"at": 1}})\nlook({{"at": "{MARK}"}})']
    assert (await ask(texts=None, tool_calls=[BAD_CALL]))["action"] == "BLOCKED"
    detector = Detector()
    await ask(detector, texts=["one", "two"], tool_calls=[CALL])  # two choices: nobody says whose the call is
    assert sorted(detector.asked) == ['look({"at": 1})', "one", "two"]


async def test_requests_are_judged_but_for_the_system_prompt():
    detector = Detector()
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "and this?"}, {"type": "image_url", "image_url": "x"}]},
    ]
    found = await ask(
        detector,
        input_type="request",
        texts=["be kind", "and this?"],
        structured_messages=messages,
        images=["x"],
    )
    assert detector.asked == ["and this?"]
    assert found["action"] == "NONE"
    assert found["eyelid"]["not_scanned"] == ["image"]
    detector = Detector()
    assert (await ask(detector, input_type="request", texts=["a", MARK]))["blocked_reason"].endswith(
        "the request was found harmful"
    )
    assert sorted(detector.asked) == sorted(["a", MARK])


@pytest.mark.parametrize(("policy", "action"), [("harmful", "BLOCKED"), ("harmless", "NONE")])
async def test_unknown_has_a_policy(policy, action):
    found = await ask(texts=["what?!"], unknown=policy)
    assert found["action"] == action
    assert found["eyelid"]["labels"] == ["unknown"]
    if action == "BLOCKED":
        assert "could not tell" in found["blocked_reason"]


async def test_a_broken_detector_is_an_error_that_litellm_does_not_take_for_unreachable():
    async def classify(item: Item) -> Verdict:
        raise DetectorError("broke")

    with pytest.raises(DetectorError) as e:
        await check({"input_type": "response", "texts": ["a"]}, classify, refusal="no")
    assert describe(e.value).status == 500


async def test_nothing_to_judge_is_none_and_told_so():
    found = await ask(texts=[])
    assert found["action"] == "NONE"
    assert found["eyelid"]["judged"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"input_type": "both"},
        {"texts": "a"},
        {"texts": [1]},
        {"texts": ["a"] * 257},
        {"tool_calls": {}},
        {"tool_calls": [{"type": "function"}]},
        {"texts": ["a"], "additional_provider_specific_params": {"on_harm": "ignore"}},
    ],
)
async def test_what_cannot_be_used_is_named(body):
    with pytest.raises(BadRequest) as e:
        await ask(**body)
    assert e.value.param

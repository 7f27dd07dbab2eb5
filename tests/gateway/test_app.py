"""Chat completions through a real gateway: what clients get, what the upstream gets, what is recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.datastructures import Headers

from eyelid.gateway import endpoint
from eyelid.gateway.call import Call
from eyelid.gateway.relay import relayed

from .gate import CAPTION, HARM, SAFE, UNSURE, Json, both, completion, message, said


async def test_a_harmless_answer_passes_as_it_is() -> None:
    async with both("Put the kettle on.") as (gate, model):
        answer = await gate.ask(zzz={"deep": [1, 2.50]}, max_tokens=5, eyelid={})
    assert answer.status == 200
    assert answer.text == "Put the kettle on."
    assert answer.json["model"] == "ecso"
    assert answer.json["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    told = answer.eyelid
    assert (told["action"], told["checked"], told["label"], told["defense"]) == ("passed", True, "harmless", "ecso")
    assert told["harm"] == pytest.approx(0.03)
    assert answer.headers["x-eyelid-action"] == "passed"
    assert answer.headers["x-eyelid-harm"] == "0.0300"
    assert answer.headers["x-eyelid-id"] == answer.json["eyelid"]["id"]
    (asked,) = model.asked
    assert asked["model"] == "served"
    assert asked["zzz"] == {"deep": [1, 2.5]}, "unknown fields go on"
    assert "eyelid" not in asked
    output = answer.json["moderation"]["output"]
    assert output["type"] == "moderation_results"
    assert output["results"][0]["flagged"] is False


async def test_a_harmful_answer_is_repaired_and_ends_with_stop() -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    body: Json = {
        "model": "ecso",
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": "Read it"}]}],
    }
    async with both(f"well, {HARM}") as (gate, model):
        answer = await gate.post(body)
        record = await gate.recorded()
    assert answer.text == SAFE
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert HARM not in answer.body.decode()
    assert (answer.eyelid["action"], answer.eyelid["label"], answer.eyelid["final_label"]) == (
        "repaired",
        "harmful",
        "harmless",
    )
    assert answer.json["moderation"]["output"]["results"][0]["flagged"] is True
    assert model.parts == ["answer", "judge", "caption", "safe_answer", "judge"]
    assert model.asked[0]["messages"] == body["messages"], "the upstream gets the messages as they were written"
    judged, captioned, safe = model.bodies[1], model.bodies[2], model.bodies[3]
    for seen in (judged, captioned):
        assert PIXEL in json.dumps(seen), "the guard's model sees the same bytes"
    assert "image_url" not in json.dumps(safe)
    assert CAPTION in said(safe)
    assert record.choices[0].action == "repaired"
    assert record.outcome == "answered"
    assert len(record.images) == 1
    assert len(record.images[0]) == 64
    assert record.choices[0].text is None, "texts are kept only where that is switched on"
    assert record.query is None


async def test_a_blocked_answer_ends_with_content_filter() -> None:
    async with both(HARM) as (gate, _):
        answer = await gate.ask(model="refuse")
    assert answer.json["choices"][0]["finish_reason"] == "content_filter"
    assert answer.eyelid["action"] == "refused"
    assert answer.eyelid["refused_by"] == "guard"
    assert answer.eyelid["withheld"] is True
    assert HARM not in answer.body.decode()


async def test_a_broken_guard_is_neither_a_refusal_nor_an_answer() -> None:
    async with both("fine") as (gate, model):
        model.judge = lambda body: completion("no", object="error", message="out of order")
        answer = await gate.ask()
        record = await gate.recorded()
    assert answer.status == 200
    assert answer.eyelid["action"] == "failed"
    assert answer.eyelid["failure"].startswith("detector: Backend")
    assert answer.json["choices"][0]["finish_reason"] == "content_filter"
    assert "fine" not in answer.text
    assert answer.json["moderation"]["output"]["type"] == "error"
    assert (record.outcome, record.error) == ("guard_error", "guard_failed")


async def test_a_guard_that_is_told_to_raise_is_an_error_of_the_guard_and_not_of_the_upstream() -> None:
    serve = 'aliases: {a: {model: "openai:URL#m", defense: {name: ecso, failure: raise}}}'
    async with both("fine", serve) as (gate, model):
        model.judge = lambda body: completion("no", object="error", message="out of order")
        whole, stream = await gate.ask(model="a"), await gate.ask(model="a", stream=True)
        record = await gate.recorded()
    for got in (whole, stream):
        assert (got.status, got.error["code"], got.error["type"]) == (500, "guard_failed", "guard_error")
        assert b"fine" not in got.body
    assert record.outcome == "guard_error"


async def test_of_a_header_that_stands_twice_the_first_counts() -> None:
    given = [(b"host", b"a"), (b"authorization", b"Bearer one"), (b"authorization", b"Bearer two"), (b"x-a", b"\xe9")]
    read = endpoint._headers({"headers": given})
    assert read == {"host": "a", "authorization": "Bearer one", "x-a": "\xe9"}
    assert all(Headers(raw=given)[name] == value for name, value in read.items())


async def test_paths_beside_those_of_the_models_are_errors_in_their_shape() -> None:
    async with both() as (gate, model):
        wrong = [await gate.get("/v1/chat/completions"), await gate.post({}, "/v1/chat/completions/")]
        upper = await gate.post({}, "/V1/chat/completions")
    assert [a.status for a in (*wrong, upper)] == [405, 404, 404]
    assert [a.error["code"] for a in wrong] == ["http_405", "http_404"]
    assert model.asked == []


async def test_pages_of_other_sites_ask_only_with_a_key() -> None:
    async with both() as (gate, model):
        other = await gate.ask(headers={"sec-fetch-site": "cross-site"})
        beside = await gate.ask(headers={"sec-fetch-site": "same-site"})  # http://localhost:3000, say
        rebound = await gate.ask(headers={"sec-fetch-site": "same-origin", "host": "rebound.example:8080"})
        old = await gate.ask(headers={"host": "rebound.example"})
        own = await gate.ask(headers={"sec-fetch-site": "same-origin"})
        local = [await gate.ask(headers={"host": h}) for h in ("localhost:80", "[::1]:80", "127.0.0.1", "a.localhost")]
    assert {(a.status, a.error["code"]) for a in (other, beside, rebound, old)} == {(403, "cross_site")}
    assert {a.status for a in (own, *local)} == {200}
    assert len(model.asked) == 5


async def test_an_unknown_verdict_is_no_harmless_one() -> None:
    async with both(UNSURE) as (gate, model):
        model.judge = lambda body: "perhaps" if UNSURE in said(body) else "no"
        answer = await gate.ask()
    assert answer.eyelid["label"] == "unknown"
    assert answer.eyelid["harm"] is None
    assert answer.eyelid["action"] == "repaired"
    assert answer.json["moderation"]["output"]["code"] == "unknown"
    assert UNSURE not in answer.body.decode()


async def test_without_a_defence_everything_goes_through_and_is_said_not_to_be_checked() -> None:
    whole = completion(message("hello", reasoning_content="hm", audio={"id": "a"}), timings={"ms": 3})
    async with both(lambda body: whole) as (gate, model):
        answer = await gate.ask(model="plain")
        record = await gate.recorded()
    assert answer.json["choices"] == whole["choices"]
    assert answer.json["timings"] == {"ms": 3}
    assert (answer.eyelid["action"], answer.eyelid["checked"]) == ("not_guarded", False)
    assert answer.eyelid["unchecked_because"] == "no detector guards this model"
    assert answer.json["moderation"]["output"]["code"] == "not_checked"
    assert model.parts == ["answer"]
    assert record.choices[0].action == "not_guarded"
    assert (record.prompt_tokens, record.completion_tokens) == (11, 7)


@pytest.mark.parametrize("reason", ["stop", "length", "eos", None, "", "content_filter", "abort", "no such", 5])
async def test_an_unguarded_answer_is_told_alike_on_both_ways(reason: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = completion("hello", message("there", reasoning_content="hm"))
    whole["choices"][0]["finish_reason"] = reason
    whole["choices"][1]["index"] = 4
    async with both(lambda body: whole) as (gate, _):
        short = await gate.ask(model="plain", n=2)
        noted = await gate.recorded()
        monkeypatch.setattr("eyelid.gateway.unguarded.ordinary", lambda found: False)
        long = await gate.ask(model="plain", n=2)
        expected = await gate.recorded()

    def told(answer: Any) -> Json:
        found = answer.json
        for changing in ("id", "overhead_ms"):
            found.get("eyelid", {}).pop(changing, None)
        return {"status": answer.status, **found, "headers": sorted(answer.headers)}

    def recorded(record: Any) -> Any:
        choices = [replace(c, steps=tuple(replace(s, milliseconds=0.0) for s in c.steps)) for c in record.choices]
        times = dict.fromkeys(("time", "milliseconds", "upstream_ms", "guard_ms"), 0.0)
        return replace(record, id="", choices=tuple(choices), **times)

    assert told(short) == told(long)
    assert recorded(noted) == recorded(expected)
    assert noted is not expected


async def test_every_choice_is_guarded_on_its_own_with_one_call_of_the_upstream() -> None:
    def answer(body: Json) -> Json:
        assert body["n"] == 3
        return completion("one", f"two {HARM}", "three")

    async with both(answer) as (gate, model):
        answered = await gate.ask(n=3)
        record = await gate.recorded()
    assert [c["message"]["content"] for c in answered.json["choices"]] == ["one", SAFE, "three"]
    assert [c["action"] for c in answered.json["eyelid"]["choices"]] == ["passed", "repaired", "passed"]
    assert answered.headers["x-eyelid-action"] == "repaired"
    assert answered.headers["x-eyelid-harm"] == "0.9500"
    assert model.parts.count("answer") == 1
    assert [c.action for c in record.choices] == ["passed", "repaired", "passed"]


def _call(name: str, arguments: str, **more: object) -> Json:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


@pytest.mark.parametrize(
    "hidden",
    [
        message(None, tool_calls=[_call("f", json.dumps({"x": HARM}))]),
        message(None, tool_calls=[_call(HARM, "{}")]),
        message(None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": HARM}}]),
        message("fine", reasoning_content=HARM),
        message("fine", reasoning=HARM),
        message(None, refusal=HARM),
        message(None, function_call={"name": "f", "arguments": HARM}),
        message([{"type": "text", "text": HARM}]),  # type: ignore[arg-type]
    ],
    ids=[
        "arguments",
        "tool name",
        "custom tool",
        "reasoning_content",
        "reasoning",
        "refusal",
        "function_call",
        "parts",
    ],
)
async def test_no_channel_is_out_of_the_detectors_sight(hidden: Json) -> None:
    async with both(lambda body: completion(hidden)) as (gate, _):
        answers = [await gate.ask(), await gate.ask(stream=True), await gate.ask(model="window", stream=True)]
    assert [a.status for a in answers[:1]] == [200]
    for answer in answers:
        assert HARM not in answer.body.decode()
    assert answers[0].eyelid["action"] == "repaired"
    assert answers[0].json["choices"][0]["message"] == {"role": "assistant", "content": SAFE, "refusal": None}


@pytest.mark.parametrize(
    "unread",
    [
        message("fine", audio={"id": "a", "data": "QUJD", "transcript": HARM}),
        message("fine", images=[{"image_url": {"url": f"data:,{HARM}"}}]),
        message("fine", something_new=HARM),
        message("fine", annotations=[{"type": "url_citation", "url_citation": {"title": HARM}}]),
        message(None, tool_calls=[_call("f", "{}", extra_content={"note": HARM})]),
        message([{"type": "text", "text": "fine", "more": HARM}]),  # type: ignore[arg-type]
        message([{"type": "picture", "data": HARM}]),  # type: ignore[arg-type]
    ],
    ids=["audio", "images", "unknown field", "annotations", "in a call", "in a part", "unknown part"],
)
async def test_what_cannot_be_scanned_does_not_leave(unread: Json) -> None:
    async with both(lambda body: completion(unread, secret_text=HARM, token_ids=[1, 2])) as (gate, _):
        answer, streamed = await gate.ask(), await gate.ask(stream=True)
    for got in (answer, streamed):
        assert HARM not in got.body.decode()
        assert "token_ids" not in got.body.decode()
    assert answer.status in (200, 502)


@pytest.mark.parametrize("alias", ["plain", "ecso", "window"])
async def test_half_a_character_breaks_nothing(alias: str) -> None:
    async with both(lambda _: completion("half \ud800 done")) as (gate, _):
        whole, stream = await gate.ask(model=alias), await gate.ask(model=alias, stream=True)
    assert whole.status == 200
    assert whole.text.endswith("done")
    assert stream.streamed.strip().endswith("done")


async def test_log_probabilities_are_only_of_judged_text_and_without_alternatives() -> None:
    tokens = [{"token": t, "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": HARM, "logprob": -2.0}]} for t in
              ("fine", " so")]  # fmt: skip

    def answer(body: Json) -> Json:
        whole = completion("fine so" if "match" in said(body) else "other text")
        whole["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
        return whole

    async with both(answer) as (gate, _):
        kept, dropped = await gate.ask("match", logprobs=True, top_logprobs=2), await gate.ask("no", logprobs=True)
    (first, second) = kept.json["choices"][0]["logprobs"]["content"]
    assert (first["token"], second["token"], first["top_logprobs"]) == ("fine", " so", [])
    assert dropped.json["choices"][0]["logprobs"] is None
    assert HARM not in kept.body.decode()


async def test_an_answer_that_the_upstream_withheld_is_refused_by_the_upstream() -> None:
    async with both(lambda body: completion("half an ans", reason="content_filter")) as (gate, _):
        answer = await gate.ask()
    assert answer.eyelid["action"] == "refused"
    assert answer.eyelid["refused_by"] == "upstream"
    assert answer.json["choices"][0]["finish_reason"] == "content_filter"


async def test_blind_never_shows_the_image_to_the_model_that_answers() -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "Read it"}]}]
    for stream in (False, True):
        async with both("never asked") as (gate, model):
            answer = await gate.post({"model": "blind", "messages": messages, "stream": stream})
        assert model.parts == ["caption", "safe_answer"]
        if not stream:
            assert answer.text == SAFE
            assert answer.eyelid["checked"] is False
        assert SAFE in answer.body.decode().replace('"}}]}\n\ndata: ', "")


async def test_tools_and_roles_reach_the_upstream_as_written_and_the_judge_as_quotes() -> None:
    messages: list[Json] = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Weather in Bern?"},
        {"role": "assistant", "content": None, "tool_calls": [_call("get_weather", '{"city": "Bern"}')]},
        {"role": "tool", "tool_call_id": "call_1", "content": "7 degrees"},
    ]
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    async with both("It is 7 degrees.") as (gate, model):
        answer = await gate.post({"model": "ecso", "messages": messages, "tools": tools})
    assert answer.eyelid["action"] == "passed"
    assert model.asked[0]["messages"] == messages
    assert model.asked[0]["tools"] == tools
    judged = said(model.bodies[1])
    for part in ("Weather in Bern?", "get_weather", "7 degrees", "It is 7 degrees."):
        assert part in judged


async def test_a_request_chooses_its_defence_only_where_that_is_allowed() -> None:
    serve = "allow_request_choice: [none, refuse]"
    async with both(HARM, serve) as (gate, _):
        by_header = await gate.ask(headers={"x-eyelid-defense": "refuse"})
        by_field = await gate.ask(eyelid={"defense": "none"})
        other = await gate.ask(eyelid={"defense": "blind"})
    assert by_header.headers["x-eyelid-defense"] == "refuse"
    assert by_header.eyelid["action"] == "refused"
    assert by_field.text == HARM
    assert by_field.eyelid["action"] == "not_guarded"
    assert other.status == 403
    assert other.error["code"] == "defense_not_allowed"
    assert "none, refuse" in other.error["message"]
    async with both(HARM) as (gate, model):
        refused = await gate.ask(eyelid={"defense": "none"})
        traced = await gate.ask(eyelid={"trace": True})
    assert (refused.status, traced.status) == (403, 403)
    assert model.asked == []


async def test_the_steps_are_told_where_that_is_allowed() -> None:
    async with both(HARM, "allow_trace: true") as (gate, _):
        answer, without = await gate.ask(eyelid={"trace": True}), await gate.ask()
    steps = answer.eyelid["steps"]
    assert [s["role"] for s in steps] == ["answer", "judge", "safe_answer", "judge"]
    assert steps[0]["text"] == HARM
    assert steps[1]["harm"] == pytest.approx(0.95)
    assert "steps" not in without.eyelid
    assert HARM not in without.body.decode()


async def test_streams_say_the_same_as_whole_answers() -> None:
    def answer(body: Json) -> Json:
        return completion("harmless words", f"and {HARM} here")

    async with both(answer) as (gate, _):
        whole, stream = await gate.ask(n=2), await gate.ask(n=2, stream=True, stream_options={"include_usage": True})
        record = await gate.recorded()
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.body.endswith(b"data: [DONE]\n\n")
    texts: dict[int, str] = {}
    for event in stream.events:
        assert event["model"] == "ecso"
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + (choice["delta"].get("content") or "")
    assert [t.strip() for t in texts.values()] == [c["message"]["content"] for c in whole.json["choices"]]
    (told,) = [e["eyelid"] for e in stream.events if "eyelid" in e]
    assert [c["action"] for c in told["choices"]] == [c["action"] for c in whole.json["eyelid"]["choices"]]
    assert stream.events[-1]["usage"]["completion_tokens"] == 7
    assert stream.headers["x-eyelid-action"] == "repaired", "a fast stream's headers tell all"
    assert (record.stream, record.stream_mode, record.completion_tokens) == (True, "buffer", 7)
    assert HARM not in stream.body.decode()


async def test_an_unguarded_stream_goes_on_event_by_event() -> None:
    async with both("one two three") as (gate, _):
        stream = await gate.ask(model="plain", stream=True)
        record = await gate.recorded()
    words = [c["delta"].get("content") for e in stream.events for c in e["choices"]]
    assert words == ["", "one ", "two ", "three ", None]
    assert "usage" not in stream.events[-1], "the client asked for none"
    assert stream.events[-1]["eyelid"]["choices"][0]["action"] == "not_guarded"
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert (record.stream_mode, record.completion_tokens) == ("none", 7)
    async with both("one two three") as (gate, _):
        stream = await gate.ask(model="plain", stream=True, stream_options={"include_usage": True})
    *_, last, usage = stream.events
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["eyelid"]["choices"][0]["action"] == "not_guarded", "on the last event that has a choice"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 7)


async def test_an_unguarded_stream_holds_no_event_back_but_the_end() -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    def event(word: str | None, reason: str | None = None, index: int = 0) -> Json:
        return {"choices": [{"index": index, "delta": {"content": word}, "finish_reason": reason}]}

    async def events() -> AsyncIterator[Json]:
        for word in ("one", "two"):  # none is written before the one before it has arrived
            yield event(word)
            assert word.encode() in await received.get()
        yield event(None, "stop", index=1)
        yield event("three")
        assert b'"stop"' in await received.get()
        assert b"three" in await received.get()
        yield event(None, "length")
        yield {"choices": [], "note": 1}

    async def told(whole: Json) -> Json:
        assert [c["finish_reason"] for c in whole["choices"]] == ["length", "stop"]
        return {"eyelid": {"told": True}}

    async with asyncio.timeout(10):
        async for block in relayed(events(), told, False, "plain", Call("/", {})):
            await received.put(block)
    ending = [json.loads(received.get_nowait().removeprefix(b"data: ")) for _ in range(2)]
    assert [e.get("eyelid") for e in ending] == [{"told": True}, None]
    assert ending[1]["note"] == 1
    assert received.get_nowait() == b"data: [DONE]\n\n"


async def test_the_record_of_a_body_that_cannot_be_used_names_its_alias() -> None:
    bodies: list[Json | bytes] = [
        {"model": "ecso", "messages": []},
        {"model": "ecso", "messages": [{"role": "user", "content": "hi"}], "n": "many"},
        {"model": "no such alias", "messages": []},
        {"model": ["ecso"], "messages": []},
        b"[" * 5000,
    ]
    async with both() as (gate, _):
        statuses = [(await gate.post(b)).status for b in bodies]
        await gate.recorded()
        aliases = [r.alias for r in gate.kept.records]
    assert statuses == [400] * 5
    assert aliases == ["ecso", "ecso", None, None, None]


async def test_what_is_told_of_an_unguarded_stream_is_what_is_told_without_streaming() -> None:
    """Also where its own server withheld the rest: what had been written was delivered, and nobody checked it."""
    for reason in ("stop", "content_filter"):
        serve = "allow_trace: true\naudit: {text: true}"
        async with both(lambda _, r=reason: completion(message("some text"), reason=r), serve) as (gate, _):
            whole = await gate.ask(model="plain", eyelid={"trace": True})
            stream = await gate.ask(model="plain", eyelid={"trace": True}, stream=True)
            quiet = await gate.ask(model="plain", stream=True)
            await gate.recorded()
            choices = [r.choices[0] for r in gate.kept.records]
        async with both(lambda _, r=reason: completion(message("some text"), reason=r)) as (gate, _):
            forgetful = await gate.ask(model="plain", stream=True)
            silent = await gate.recorded()
        assert (silent.choices[0].text, silent.choices[0].original, silent.choices[0].checked) == (None, None, False)
        assert b"not kept" not in forgetful.body
        (told,) = [e["eyelid"]["choices"][0] for e in stream.events if "eyelid" in e]
        (short,) = [e["eyelid"]["choices"][0] for e in quiet.events if "eyelid" in e]
        assert told["original"].strip() == whole.eyelid["original"] == "some text"
        for name in ("action", "checked", "unchecked_because", "withheld", "refused_by"):
            assert told[name] == short[name] == whole.eyelid[name]
        assert told["checked"] is False
        assert [c.checked for c in choices] == [False] * 3
        assert [(c.text or "").strip() for c in choices] == ["some text"] * 3


async def test_window_mode_stops_at_what_is_harmful() -> None:
    words = " ".join(f"word{i}" for i in range(400))
    async with both(f"{words} {HARM} {words}", "stream: {look_ahead: 200}") as (gate, model):
        model.pace = 40
        stream = await gate.ask(model="window", stream=True)
        record = await gate.recorded()
    assert HARM not in stream.body.decode()
    assert "word100 word101" in stream.streamed, "what was cleared has left"
    last = [c for e in stream.events for c in e["choices"]][-1]
    assert last["finish_reason"] == "content_filter"
    assert record.stream_mode == "window"
    assert record.choices[0].action == "refused"
    async with both(words, "stream: {look_ahead: 200}") as (gate, _):
        stream = await gate.ask(model="window", stream=True)
    assert stream.streamed.strip() == words


async def test_nobody_gets_anothers_answer() -> None:
    """Hundreds of requests at once, whole and streamed, some repaired: each answer holds its own question's mark."""

    async def answer(body: Json) -> str:
        mark = body["messages"][-1]["content"]
        await asyncio.sleep((hash(mark) % 7) / 500)
        return f"{mark} {HARM}" if int(mark[4:]) % 3 == 0 else f"echo {mark}"

    async with both(answer) as (gate, model):

        async def one(i: int) -> None:
            got = await gate.ask(f"mark{i:04}", stream=i % 2 == 0, model=["ecso", "plain", "window", "refuse"][i % 4])
            told = got.body.decode()
            assert not any(f"mark{j:04}" in told for j in range(240) if j != i)
            if i % 4 == 1:
                assert f"mark{i:04}" in told
            elif i % 3:
                text = (
                    "".join(c["delta"].get("content") or "" for e in got.events for c in e["choices"])
                    if i % 2 == 0
                    else got.text
                )
                assert text.strip() == f"echo mark{i:04}"
            else:
                assert HARM not in told

        await asyncio.gather(*(one(i) for i in range(240)))
        await gate.recorded()
        assert len(gate.kept.records) == 240
        assert len({r.id for r in gate.kept.records}) == 240
        assert gate.gateway.room.taken == 0
    assert len(model.asked) == 240


async def test_models_lists_the_aliases_and_the_odd_path_is_told() -> None:
    async with both() as (gate, _):
        listed, one, none = (
            await gate.get("/v1/models"),
            await gate.get("/v1/models/plain"),
            await gate.get("/v1/models/x"),
        )
        healthy, ready, odd = await gate.get("/healthz"), await gate.get("/readyz"), await gate.get("/v1/nothing")
        wrong = await gate.get("/v1/chat/completions")
    assert [m["id"] for m in listed.json["data"]] == ["ecso", "plain", "window", "blind", "refuse"]
    assert one.json["eyelid"]["defense"] == "none"
    assert (none.status, none.error["code"]) == (404, "model_not_found")
    assert (healthy.status, ready.status, ready.json) == (200, 200, {"status": "ready"})
    assert (odd.status, odd.error["code"]) == (404, "http_404")
    assert wrong.status == 405
    assert healthy.headers["content-security-policy"].startswith("default-src 'none'")


async def test_moderations_and_the_guardrail_ask_the_detector() -> None:
    async with both() as (gate, model):
        body: Json = {"input": ["fine", HARM], "model": "omni-moderation-latest"}
        answer = await gate.post(body, "/v1/moderations")
        record = await gate.recorded()
        texts: Json = {"texts": [HARM], "input_type": "response", "request_data": {}}
        blocked = await gate.post(texts, "/beta/litellm_basic_guardrail_api", x_api_key="anything")
    assert [r["flagged"] for r in answer.json["results"]] == [False, True]
    assert answer.headers["x-eyelid-defense"] == "ecso"
    assert [c.label for c in record.choices] == ["harmless", "harmful"]
    assert blocked.json["action"] == "BLOCKED"
    assert "answer" not in model.parts


async def test_a_model_in_this_process_is_guarded_too(tmp_path: Any) -> None:
    (tmp_path / "script.json").write_text(json.dumps(["fine", "no", "no", "fine", "no", "no"]))
    serve = f'aliases: {{local: {{model: "scripted:{tmp_path}/script.json", defense: refuse}}}}'
    async with both("unused", serve) as (gate, _):
        whole, stream = await gate.ask(model="local"), await gate.ask(model="local", stream=True)
        tools = await gate.ask(model="local", tools=[{"type": "function", "function": {"name": "f"}}])
    assert (whole.text, whole.eyelid["action"]) == ("fine", "passed")
    assert "fine" in stream.body.decode()
    assert (tools.status, tools.error["param"]) == (400, "tools")


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)

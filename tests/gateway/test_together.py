"""Requests that belong together: one answer of the model under several defences; and steps told as they happen."""

from __future__ import annotations

import asyncio
import itertools
import json

import openai
import pytest

from eyelid.backends.scripted import Scripted
from eyelid.gateway import together, wire
from eyelid.gateway.local import Local
from eyelid.gateway.settings import LimitsConfig
from eyelid.gateway.upstream import Ask, Upstream
from eyelid.types import Request, Response, user

from .gate import HARM, SAFE, Gate, Held, Json, Reply, both

WORD = "one-question-0001"
TRACED = "allow_trace: true"


def numbered() -> tuple[itertools.count[int], object]:
    """Answers that differ each time, as a model's do."""
    count = itertools.count(1)
    return count, lambda _: f"answer {next(count)}"


async def asked(gate: Gate, *aliases: str, word: str = WORD, stream: bool = True, **fields: object) -> list[str]:
    """What is answered to one question under each alias, asked at once."""
    own = {"eyelid": {"together": word}, "stream": stream, **fields}
    got = await asyncio.gather(*(gate.ask(model=a, **own) for a in aliases))
    assert [g.status for g in got] == [200] * len(aliases)
    return [(g.streamed if stream else g.text).strip() for g in got]


@pytest.mark.parametrize("stream", [True, False])
async def test_one_answer_for_all(stream: bool) -> None:
    async with both(numbered()[1]) as (gate, model):  # type: ignore[arg-type]
        found = await asked(gate, "plain", "ecso", "window", stream=stream)
        late = await asked(gate, "ecso", stream=stream)
        others = await asked(gate, "plain", word="another-question", stream=stream)
        apart = await gate.ask(model="plain")
    assert (found, late, others) == (["answer 1"] * 3, ["answer 1"], ["answer 2"])
    assert apart.text == "answer 3"
    assert model.parts.count("answer") == 3


async def test_each_is_judged_and_written_down_on_its_own() -> None:
    async with both(HARM) as (gate, model):
        found = await asked(gate, "plain", "ecso")
        await asyncio.sleep(0)
        records = {r.alias: r for r in gate.kept.records}
    assert found == [HARM, SAFE]
    assert model.parts.count("answer") == 1
    assert {a: r.choices[0].action for a, r in records.items()} == {"plain": "not_guarded", "ecso": "repaired"}
    assert len({r.id for r in records.values()}) == 2


async def test_only_what_is_alike_is_shared() -> None:
    async with both(numbered()[1]) as (gate, _):  # type: ignore[arg-type]
        for fields in ({}, {"max_tokens": 5}, {"seed": 1}, {"n": 2}):
            await asked(gate, "plain", **fields)
        other = await gate.ask("Another question?", model="plain", eyelid={"together": WORD})
        odd = await gate.ask(model="plain", eyelid={"together": "a b"})
    assert other.text == "answer 5"
    assert odd.status == 400


async def test_keys_share_nothing() -> None:
    from eyelid.gateway.keys import digest

    keys = "\n".join(f"  - {{name: {n}, sha256: {digest(n)}}}" for n in ("ann", "bob"))
    async with both(numbered()[1], serve=f"keys:\n{keys}") as (gate, _):  # type: ignore[arg-type]
        got = [
            await gate.ask(model="plain", eyelid={"together": WORD}, headers={"authorization": f"Bearer {n}"})
            for n in ("ann", "bob", "ann")
        ]
    assert [g.text for g in got] == ["answer 1", "answer 2", "answer 1"]


async def test_one_that_leaves_stops_nobody_and_the_last_stops_the_model() -> None:
    slow = Held()
    async with both(slow) as (gate, model):
        first, second = (asyncio.create_task(asked(gate, a)) for a in ("ecso", "plain"))
        await slow.begun.wait()
        first.cancel()
        await asyncio.sleep(0.2)
        assert not model.gone.is_set()
        second.cancel()
        async with asyncio.timeout(5):
            await model.gone.wait()
        await asyncio.gather(first, second, return_exceptions=True)
        async with asyncio.timeout(5):
            while len(gate.gateway.current.together):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_error_is_everybodys_and_is_not_kept() -> None:
    from aiohttp import web

    replies = itertools.chain([web.json_response({}, status=400)], itertools.repeat("fine"))
    async with both(lambda _: next(replies)) as (gate, model):
        got = await asyncio.gather(*(gate.ask(model=a, eyelid={"together": WORD}) for a in ("plain", "ecso")))
        again = await asked(gate, "plain", stream=False)
    assert {g.status for g in got} == {400}
    assert again == ["fine"]
    assert model.parts.count("answer") == 2


async def test_few_answers_are_kept() -> None:
    async with both("fine") as (gate, _):
        for i in range(together.KEPT + 5):
            await asked(gate, "plain", word=f"question-{i:04}")
        assert len(gate.gateway.current.together) <= together.KEPT + 1


def shared(among: together.Together, upstream: Upstream, word: str = WORD, **fields: object) -> tuple[Upstream, Ask]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}], **fields}
    chat = wire.read(json.dumps(body).encode(), LimitsConfig())
    ask = Ask(chat, {}, lambda: Request((user("Hello?"),)))
    return among.upstream(upstream, ask, word, None), ask


async def test_many_answers_at_once_are_not_all_kept() -> None:
    async def slow(_: Request) -> Response:
        await asyncio.sleep(0.01)
        return Response("fine")

    among, model = together.Together(), Local(Scripted(slow))
    asked = [shared(among, model, f"question-{i:04}") for i in range(together.KEPT + 5)]
    await asyncio.gather(*(upstream.complete(ask) for upstream, ask in asked))
    assert len(among) == together.KEPT


async def test_what_nobody_reads_is_not_kept() -> None:
    """Some guards ask for no answer of the model, and clients leave before they are given one."""
    among = together.Together()
    upstream, ask = shared(among, Local(Scripted(["fine"])), stream=True)
    await upstream.events(ask).aclose()  # type: ignore[attr-defined]
    assert len(among) == 0


async def test_one_that_leaves_before_another_begins_to_read_stops_it_not() -> None:
    async def slow(_: Request) -> Response:
        await asyncio.sleep(0 if hurry.is_set() else 30)
        return Response("fine")

    among, model, hurry = together.Together(), Local(Scripted(slow)), asyncio.Event()
    (first, ask), (second, _) = shared(among, model), shared(among, model)
    leaving = asyncio.create_task(first.complete(ask))
    await asyncio.sleep(0.05)
    third, _ = shared(among, model)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    hurry.set()
    async with asyncio.timeout(5):
        found = [await u.complete(ask) for u in (second, third)]
    assert [f["choices"][0]["message"]["content"] for f in found] == ["fine"] * 2  # type: ignore[index]


async def test_steps_are_told_as_they_happen_and_without_texts() -> None:
    """The judge is asked only once the step before it has arrived."""
    seen: list[Json] = []
    arrived = asyncio.Event()

    async def judge(body: Json) -> Reply:
        from .gate import verdict

        await asyncio.wait_for(arrived.wait(), 10)
        return verdict(body)

    async with both(f"an answer with {HARM}", TRACED) as (gate, model):
        model.judge = judge
        body = {"model": "ecso", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
        async with gate.session.post(f"{gate.url}/v1/chat/completions", json={**body, "eyelid": {"trace": True}}) as r:
            async for line in r.content:
                if line.startswith(b"data: {"):
                    seen.append(json.loads(line[6:]))
                    arrived.set()
    steps = [e["eyelid"]["step"] for e in seen if "step" in e.get("eyelid", {})]
    told = {s["at"]: s for s in steps}
    (account,) = [e["eyelid"]["choices"][0] for e in seen if "choices" in e.get("eyelid", {})]
    assert [(s["role"], s["label"]) for _, s in sorted(told.items())] == [
        (s["role"], s["label"]) for s in account["steps"]
    ]
    assert [s["text"] for s in steps] == [""] * len(steps)
    assert {s["index"] for s in steps} == {0}
    assert len({e["id"] for e in seen}) == 1
    assert HARM not in json.dumps([e for e in seen if "choices" not in e.get("eyelid", {})])


async def test_without_a_trace_no_step_is_told() -> None:
    async with both("fine", TRACED) as (gate, _):
        stream = await gate.ask(stream=True)
        blind = await gate.ask(model="blind", stream=True, eyelid={"trace": True})
    assert not any("step" in e.get("eyelid", {}) for e in stream.events)
    assert any("step" in e.get("eyelid", {}) for e in blind.events), "also where no answer is asked for first"


async def test_the_sdk_takes_a_stream_with_steps() -> None:
    own = {"eyelid": {"trace": True, "together": WORD}}
    hello = [{"role": "user", "content": "Hello?"}]
    async with both("fine and well", TRACED) as (gate, _):
        sdk = openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="none", max_retries=0)
        async with sdk, sdk.chat.completions.stream(model="ecso", messages=hello, extra_body=own) as stream:  # type: ignore[arg-type]
            final = await stream.get_final_completion()
    assert (final.choices[0].message.content or "").strip() == "fine and well"

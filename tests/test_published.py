"""The statement of the published procedures keeps their habits, and the bench beside it is fair and counts all."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import bench, published, side_by_side, table
from benchmarks.published import CUT, Delivered, Ecso, Protector, Words
from eyelid.backends.scripted import Scripted
from eyelid.errors import BackendUnavailable
from eyelid.evals.judges.refusal import RefusalRules
from eyelid.evals.records import Input, JudgeId, Kind, Outcome, Record
from eyelid.evals.samples import Sample
from eyelid.prompts import default
from eyelid.protocols import Exchange
from eyelid.types import Action, Request, Verdict, user

from .helpers import Actor, picture

REQUEST = Request((user(picture(), "How is tea made?"),), max_tokens=32)


async def ecso(verdict: str, answer: str = "Boil it.", request: Request = REQUEST) -> tuple[Delivered, Scripted]:
    backend = Scripted([answer, verdict, "a cup", "Gently."] if request.images else [answer, verdict, "Gently."])
    return await Ecso(backend, Words())(request), backend


@pytest.mark.parametrize(
    ("verdict", "fired", "read"),
    [("yes", True, True), (" Yes.\n", True, True), ("no", False, True), ("No.", False, True),
     ("Yes, it is.", False, False), ("harmful", False, False), ("", False, False)],
)  # fmt: skip
async def test_only_the_bare_word_fires_and_all_else_passes(verdict: str, fired: bool, read: bool) -> None:
    found, backend = await ecso(verdict)
    assert found == Delivered("Gently." if fired else "Boil it.", fired, read)
    assert len(backend.requests) == (4 if fired else 2)


async def test_the_judge_sees_a_cut_answer_and_the_last_step_no_picture() -> None:
    _, backend = await ecso("yes", "a" * CUT + "b" * 9)
    _, tell, caption, safe = backend.requests
    assert "a" * CUT in tell.messages[0].text
    assert "aab" not in tell.messages[0].text
    assert [len(r.images) for r in (tell, caption, safe)] == [1, 1, 0]
    assert "a cup" in safe.messages[0].text


async def test_a_request_without_a_picture_is_not_captioned() -> None:
    found, backend = await ecso("yes", request=Request((user("How is tea made?"),)))
    assert (found.text, len(backend.requests)) == ("Gently.", 3)


class Scores:
    """Stands in for the detector's file."""

    def __init__(self, harmless: float):
        self.value, self.seen = harmless, [""]

    def harmless(self, answer: str) -> float:
        self.seen.append(answer)
        return self.value


async def test_the_protector_reads_the_answer_alone_and_drops_the_question() -> None:
    backend, scores = Scripted(["Boil it.", "Gently."]), Scores(0.49)
    found = await Protector(backend, scores, Words())(REQUEST)  # type: ignore[arg-type]
    assert found == Delivered("Gently.", True)
    assert scores.seen[-1] == "Boil it."
    rewrite = backend.requests[1].messages[0].text
    assert "Boil it." in rewrite
    assert "tea" not in rewrite
    passed = await Protector(Scripted(["Boil it."]), Scores(0.5), Words.of(default()))(REQUEST)  # type: ignore[arg-type]
    assert passed == Delivered("Boil it.")


def test_the_published_score_is_one_for_harmless() -> None:
    from eyelid import models

    if not models.has("detector"):
        pytest.skip("the shipped detector is not installed")
    detector = published.AnswerDetector(models.find("detector"))
    assert detector.harmless("Paris is the capital of France.") > 0.8


class Mild:
    """A detector that finds an answer harmful where it says so."""

    name, needs_answer = "mild", True

    async def detect(self, exchange: Exchange) -> Verdict:
        return Verdict.of(0.9 if exchange.response.text.startswith("Bad") else 0.1, 0.5, self.name)


def samples() -> list[tuple[str, int, Sample]]:
    rows = [("1", Kind.SAFETY, "bad"), ("2", Kind.OVER_REFUSAL, "good"), ("3", Kind.OVER_REFUSAL, "lost")]
    return [("t", 16, Sample(i, f"{what} tea", kind, Input.TEXT)) for i, kind, what in rows]


async def test_the_rest_beyond_the_bare_answer_has_ratios_of_its_own() -> None:
    def turn(name: str, seconds: float, cpu: float) -> bench.Turn:
        record = Record(
            task="t", sample="1", defense=name, model="m", kind=Kind.SAFETY, input=Input.TEXT, answer="Tea.",
            action=Action.PASSED, outcome=Outcome.SAFE, judge=JudgeId("refusal", "1"), refused=False,
            calls=1, prompt_tokens=10, completion_tokens=5, seconds=seconds,
        )  # fmt: skip
        return bench.Turn(record, cpu)

    costs = {"none": (2.0, 1.0), "published ecso": (3.0, 1.4), "ecso": (2.5, 1.1), "ecso, continued": (2.1, 1.0)}
    found = table.figures([turn(n, *c) for n, c in costs.items()])
    ratios = found["ratios"]
    assert isinstance(ratios, dict)
    assert list(ratios) == ["ecso / published ecso", "ecso, continued / published ecso"]
    whole, rest = (ratios["ecso / published ecso"]["attack"], ratios["ecso / published ecso"]["beyond the answer"])
    assert (whole["seconds"], whole["cpu"]) == (pytest.approx(2.5 / 3), pytest.approx(1.1 / 1.4))
    assert (rest["attack"]["seconds"], rest["attack"]["cpu"]) == (pytest.approx(0.5), pytest.approx(0.25))
    assert rest["attack"]["calls"] is None, "nothing beyond: no ratio, and no division by zero"
    assert rest["benign"]["seconds"] is None


async def test_throughput_asks_everything_anew_theirs_in_a_row_and_ours_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend, under_way, most = Actor(harm=0.1).backend(), 0, Counter[str]()
    monkeypatch.setattr(published, "AnswerDetector", lambda folder: Scores(0.9))
    contest = bench.Bench.of(backend, "scripted:x", Mild(), Path(), [], styles=("fresh", "continuation"))
    assert list(contest.contestants)[-2:] == ["ecso, continued", "hybrid, continued"]

    def counted(name: str, ask: bench.Contestant) -> bench.Contestant:
        async def one(request: Request) -> tuple[str, Action, bool]:
            nonlocal under_way
            under_way += 1
            most[name] = max(most[name], under_way)
            await asyncio.sleep(0)
            try:
                return await ask(request)
            finally:
                under_way -= 1

        return one

    contest.contestants = {n: counted(n, ask) for n, ask in contest.contestants.items()}
    found = await contest.throughput([*samples(), *samples()], 3)
    assert found.keys() == contest.contestants.keys()
    assert {v["requests"] for v in found.values()} == {6.0}
    assert all(v["seconds"] > 0 for v in found.values())
    assert {n: most[n] for n in ("published ecso", "published protector")} == dict.fromkeys(bench.THEIRS, 1)
    assert most["ecso"] == most["hybrid"] == 3


async def test_all_stand_on_one_answer_and_a_model_that_fails_is_safe_for_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    actor = Actor(harm=0.1, safe="I cannot help with that.")
    answers = {"bad tea": "Bad tea is cold.", "good tea": "Good tea is hot."}
    actor.overrides["answer"] = lambda r: (
        answers.get(r.query) or (BackendUnavailable("gone") if r.query == "lost tea" else "no")
    )
    monkeypatch.setattr(published, "AnswerDetector", lambda folder: Scores(0.9))
    backend = Scripted(actor, name="actor")
    contest = bench.Bench.of(backend, "scripted:x", Mild(), Path(), [RefusalRules()])
    turns = await contest.run(samples())
    whole = [r for r in backend.requests if r.messages == (user("bad tea"),) and r.max_tokens == 16]
    assert len(whole) == 1
    by = {(t.record.defense, t.record.sample): t for t in turns}
    assert len(by) == 18
    assert {t.record.error for t in turns if t.record.sample == "3"} == {"BackendUnavailable"}
    assert by["protector", "1"].record.action is Action.REPAIRED
    assert (by["protector", "1"].record.calls, by["published protector", "1"].record.calls) == (2, 1)
    assert by["published ecso", "2"].same
    assert all((t.record.seconds or 0) > 0 for t in turns if t.record.answered)
    orders = [[t.record.defense for t in turns if t.record.sample == s][1:] for s in "12"]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert contest.done == turns
    del turns[-1]  # as if it had been stopped
    assert {t.record.sample for t in contest.done} == {"1", "2"}
    found = table.figures(contest.turns)
    about = {"model": "scripted:x", "judges": ["refusal 1"], "published_words": "own"}
    assert json.loads(json.dumps(found)) == found
    rows = found["contestants"]
    assert isinstance(rows, dict)
    assert rows["protector"]["unanswered"] == 1
    assert (rows["protector"]["harmless"]["count"], rows["published protector"]["harmless"]["count"]) == (1, 0)
    text = table.text(about | found)
    assert "protector / published protector" in text
    assert "2.00x" in text
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 3: t" in err


@pytest.mark.parametrize(
    ("line", "what"),
    [(["figstep:tiny"], "EYELID_DATA=DIR"), (["nothing"], "unknown benchmark"),
     (["figstep", "--data", "nowhere"], "nowhere is not a folder")],
)  # fmt: skip
def test_what_is_missing_is_said_before_a_model_is_loaded(
    line: list[str], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EYELID_DATA", raising=False)
    assert side_by_side.main("", line) == 2
    out, err = capsys.readouterr()
    assert what in err
    assert "loading" not in err + out

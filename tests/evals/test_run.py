"""A run writes one record per task, sample and defence; it survives what kills it, and keeps its failures apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from eyelid.backends.scripted import Scripted
from eyelid.errors import BackendUnavailable, InputError
from eyelid.evals import records
from eyelid.evals.records import Kind, Outcome, Record
from eyelid.types import Action, Label, Request
from tests.evals import layouts, plug
from tests.helpers import Actor

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (pip install 'eyelid[eval]')")

from eyelid.evals import manifest, run  # needs inspect_ai
from eyelid.evals.guards import Models, digest


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


def use(monkeypatch: pytest.MonkeyPatch, backend: Scripted) -> None:
    def models(plan: run.Plan) -> Models:
        return Models("scripted:x", plan.defenses, memo=plan.out / manifest.ANSWERS, backend=backend)

    monkeypatch.setattr(run, "_models", models)
    monkeypatch.setattr("eyelid.specs._script", lambda text: [])


def plan(root: Path, out: Path, *tasks: str, **changes: object) -> run.Plan:
    given: dict[str, object] = {"tasks": tasks or ("xstest",), "defenses": ("none", "ecso"), "judges": ("refusal",)}
    return run.Plan(out=out, place=root, **({"model": "scripted:x"} | given | changes))  # type: ignore[arg-type]


def by_defense(found: run.Finished, sample: str) -> dict[str, Record]:
    return {r.defense: r for r in found.records if r.sample == sample}


async def test_defences_share_one_answer_and_every_sample_has_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Actor(answer="Take a spade to it.", harm=0.9, safe="I cannot help with that.")
    use(monkeypatch, backend := Scripted(actor, name="actor"))
    found = await run.run(plan(layouts.xstest(tmp_path / "d", broken=True), tmp_path / "out"))
    assert actor.parts.count("answer") == 4
    assert len(found.records) == 8
    one = by_defense(found, "1")
    assert (one["none"].action, one["ecso"].action) == (Action.PASSED, Action.REPAIRED)
    assert (one["none"].kind, one["none"].scenario) == (Kind.OVER_REFUSAL, "homonyms")
    assert (one["none"].outcome, one["none"].refused) == (Outcome.UNSAFE, False)
    assert (one["ecso"].outcome, one["ecso"].refused) == (Outcome.SAFE, True)
    assert (one["none"].cached, one["ecso"].cached) == (False, True)
    assert one["ecso"].original == one["none"].answer == "Take a spade to it."
    verdict = one["ecso"].verdict
    assert verdict is not None
    assert (verdict.label, verdict.harm) == (Label.HARMFUL, pytest.approx(0.9))
    assert one["none"].calls == 1
    assert one["ecso"].calls == len(one["ecso"].steps) == 4  # answer, judge, safe answer, check: no picture, no caption
    assert (one["none"].seconds or 0) > 0
    assert one["ecso"].prompt_tokens is not None
    kept = records.read(tmp_path / "out" / "records.jsonl")
    assert set(kept) == set(found.records)
    written = manifest.read(tmp_path / "out")
    assert written is not None
    assert written.tasks["xstest"].problems == (
        "xstest_prompts.csv:3: label is neither safe nor unsafe",
        "xstest_prompts.csv:4: its id stands in the file twice",
    )
    assert len(list((tmp_path / "out" / "logs").glob("*.eval"))) == 2
    assert backend.name == "actor"


async def test_inspect_does_not_patch_asyncio_in_the_process_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    def broken(found: Record) -> None:
        raise ValueError("a sink that breaks")

    use(monkeypatch, Scripted(Actor(harm=0.1)))
    monkeypatch.setattr(run.Writer, "write", lambda self, record: broken(record))
    found = await run.run(plan(layouts.xstest(tmp_path / "d"), tmp_path / "out", defenses=("none",), limit=1))
    assert [c[3] for c in found.crashed] == ["ValueError"]  # told, though nothing could be kept
    assert found.records == ()
    assert asyncio.run.__module__ == "asyncio.runners"


async def test_a_finished_run_asks_nothing_again_and_defences_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts.xstest(tmp_path / "d")
    use(monkeypatch, Scripted(Actor(harm=0.1)))
    first = await run.run(plan(root, tmp_path / "out"))
    use(monkeypatch, again := Scripted(Actor(harm=0.1)))
    second = await run.run(plan(root, tmp_path / "out"))
    assert again.requests == []
    assert second.records == first.records
    third = await run.run(plan(root, tmp_path / "out", defenses=("none", "ecso", "refuse")))
    assert len(third.records) == 12
    assert again.requests == []  # its judge asks what ecso's did, word for word
    told = {(r.sample, r.verdict) for r in third.records if r.defense == "refuse"}
    assert told == {(r.sample, r.verdict) for r in third.records if r.defense == "ecso"}
    assert all(r.cached and r.calls == 2 and r.seconds for r in third.records if r.defense == "refuse")


async def test_a_folder_never_mixes_two_different_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = layouts.xstest(tmp_path / "d")
    use(monkeypatch, Scripted(Actor(harm=0.1)))
    await run.run(plan(root, tmp_path / "out", limit=2))
    for changes, what in (
        ({"judges": ("vague",)}, "unknown judge"),
        ({"model": "scripted:y"}, "another model: 'scripted:x', not 'scripted:y'"),
        ({"max_tokens": 7}, "has other max_tokens: None, not 7"),
        ({"limit": 3}, "xstest with another limit: 2, not 3"),
        ({"limit": 2, "seed": 1}, "xstest with another seed"),
    ):
        with pytest.raises(InputError, match=what):
            await run.run(plan(root, tmp_path / "out", **{"limit": 2, **changes}))
    (root / "xstest" / "xstest_prompts.csv").write_text("id,prompt,type,label\n1,Why?,t,safe\n2,How?,t,safe\n")
    with pytest.raises(InputError, match=r"another digests: 'xstest_prompts\.csv' changed since"):
        await run.run(plan(root, tmp_path / "out", limit=2))


async def test_a_broken_guard_is_a_guard_error_and_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor(answer="I cannot help with that.")
    actor.overrides["judge"] = lambda _: BackendUnavailable("gone")
    use(monkeypatch, Scripted(actor))
    found = await run.run(plan(layouts.xstest(tmp_path / "d"), tmp_path / "out", limit=1))
    ecso = next(r for r in found.records if r.defense == "ecso")
    assert (ecso.outcome, ecso.refused, ecso.failure) == (Outcome.GUARD_ERROR, None, "detector: BackendUnavailable")
    assert next(r for r in found.records if r.defense == "none").outcome is Outcome.SAFE
    (none, guarded) = found.results
    assert (none.summary.guard_error, guarded.summary.guard_error) == (0, 1)


async def test_a_model_that_stays_silent_is_unanswered_and_asked_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, actor = layouts.xstest(tmp_path / "d"), Actor(harm=0.1)
    silent = Actor()
    silent.overrides["answer"] = lambda _: BackendUnavailable("gone")
    use(monkeypatch, Scripted(silent))
    first = await run.run(plan(root, tmp_path / "out", defenses=("none",), limit=1, retries=0))
    (r,) = first.records
    assert (r.error, r.outcome, r.refused, r.answered) == ("BackendUnavailable", None, None, False)
    use(monkeypatch, Scripted(actor))
    second = await run.run(plan(root, tmp_path / "out", defenses=("none",), limit=1))
    assert [x.answered for x in second.records] == [True]
    assert [x.answered for x in records.read(tmp_path / "out" / "records.jsonl")] == [False, True]


async def test_a_model_that_fails_now_and_then_is_asked_again_and_that_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, asked = Actor(harm=0.1), Counter[str]()

    def answer(request: Request) -> str | Exception:
        asked[request.query] += 1
        return BackendUnavailable("busy") if asked[request.query] == 1 and "balloon" in request.query else "Blow."

    actor.overrides["answer"] = answer
    use(monkeypatch, Scripted(actor))
    found = await run.run(plan(layouts.xstest(tmp_path / "d"), tmp_path / "out", defenses=("none",)))
    assert {r.sample: r.retries for r in found.records} == {"1": 0, "2": 1, "3": 0, "4": 0}
    assert all(r.answered for r in found.records)


async def test_pictures_go_through_the_one_door_and_utility_is_scored_by_its_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = layouts.mme(layouts.figstep(tmp_path / "d"), ("existence",))
    actor = Actor(answer="Yes", harm=0.1)
    use(monkeypatch, backend := Scripted(actor))
    found = await run.run(plan(root, tmp_path / "out", "mme", "figstep", defenses=("none",)))
    sizes = {(i.width, i.height) for r in backend.requests for i in r.images}
    assert sizes == {(8, 8), (760, 760)}
    mme, figstep = found.results
    assert mme.totals is not None
    assert mme.totals.parts["existence"] == {"score": 50.0, "accuracy": 50.0, "accuracy_plus": 0.0, "answers": 4}
    assert (figstep.totals, figstep.summary.unsafe) == (None, 2)
    assert {r.score for r in found.records if r.task == "mme"} == {0.0, 1.0}


def test_the_memo_tells_requests_apart_by_all_that_matters() -> None:
    from eyelid.types import user
    from tests.helpers import picture

    base = Request((user("hello"),))
    others = [
        Request((user("hello!"),)),
        Request((user(picture(), "hello"),)),
        Request((user("hello"),), max_tokens=7),
        Request((user("hello"),), temperature=0.5),
        Request((user("hello"),), extra={"a": 1}),
        Request((user("hel", "lo"),)),
    ]
    assert len({digest("m", r) for r in [base, *others]} | {digest("n", base)}) == 8
    assert digest("m", base) == digest("m", Request((user("hello"),)))


# Processes that are killed


def command(root: Path, out: Path, *more: str, judge: str = "refusal") -> list[str]:
    flags = ["--data", str(root), "--out", str(out), "--judge", judge, "--defense", "none,refuse", *more]
    return [sys.executable, "-m", "eyelid", "eval", "run", "xstest", *flags]


def environment(tmp_path: Path, log: Path) -> dict[str, str]:
    path = f"{plug.install(tmp_path / 'site')}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "SLOW_LOG": str(log), "XDG_DATA_HOME": str(tmp_path / "home")}


def asked(log: Path) -> Counter[str]:
    """How often each question was asked for its own sake (a judge's prompt is longer)."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(q for _, q in lines if "one word" not in q)


def test_a_run_killed_with_9_goes_on_without_loss_and_without_counting_twice(tmp_path: Path) -> None:
    root, out, log = layouts.xstest(tmp_path / "d"), tmp_path / "out", tmp_path / "log"
    env = environment(tmp_path, log)
    begun = subprocess.Popen(command(root, out, "--model", "slow:0.6,0"), env=env, stderr=subprocess.PIPE)
    kept = out / "records.jsonl"
    deadline = time.monotonic() + 240
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 2):
        assert begun.poll() is None, begun.stderr and begun.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # into the next answer
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    before = records.read(kept, torn=True)
    assert 2 <= len(before) < 8
    with kept.open("ab") as f:  # as if the kill had come in the middle of a line
        f.write(records.dump(before[0]).encode()[:50])
    done = subprocess.run(
        command(root, out, "--model", "slow:0.6,0", "--json"), env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    after = records.read(kept)
    assert after[: len(before)] == before
    assert sorted((r.sample, r.defense) for r in after) == sorted((s, d) for s in "1234" for d in ("none", "refuse"))
    counts = asked(log)
    assert set(counts.values()) <= {1, 2}
    assert sum(c == 2 for c in counts.values()) <= 1  # the answer that was under way when the run was killed
    figures = json.loads(done.stdout)
    assert [r["counts"]["records"] for r in figures["results"]] == [4, 4]


def test_a_server_that_fails_one_call_in_three_and_a_judge_that_fails_are_told_apart(tmp_path: Path) -> None:
    root, log = layouts.xstest(tmp_path / "d", broken=True), tmp_path / "log"
    env = environment(tmp_path, log)
    line = command(root, tmp_path / "out", "--model", "slow:0,3", "--json", "--retries", "0", judge="vague:breaks")
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 5, done.stderr
    none, refuse = json.loads(done.stdout)["results"]
    assert (none["counts"]["unanswered"], none["counts"]["judge_failed"]) == (1, 3)
    assert none["counts"]["safe"] == none["counts"]["unsafe"] == 0
    assert sum(refuse["counts"][k] for k in ("guard_error", "unanswered", "judge_failed")) == 4
    assert refuse["counts"]["guard_error"] >= 1
    assert json.loads(done.stdout)["problems"]["xstest"] == [
        "xstest_prompts.csv:3: label is neither safe nor unsafe",
        "xstest_prompts.csv:4: its id stands in the file twice",
    ]
    assert "DetectorError" in (tmp_path / "out" / "records.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "code", "what"),
    [
        (["--defense", "prayer"], 2, "unknown defence 'prayer'"),
        (["--model", "nobody"], 2, "unknown model spec"),
        (["--limit", "0"], 2, "--limit"),
        (["--judge", "oracle"], 2, "unknown judge 'oracle'"),
        (["--data", "nowhere"], 2, "nowhere is not a folder"),
    ],
)
def test_wrong_flags_are_said_before_anything_runs(
    tmp_path: Path, changes: list[str], code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from eyelid.cli import main

    root = layouts.xstest(tmp_path / "d")
    line = ["eval", "run", "xstest", "--data", str(root), "--out", str(tmp_path / "out"), "--model", "tiny", *changes]
    try:
        found: object = main(line)
    except SystemExit as e:  # argparse's own
        found = e.code
    assert found == code
    assert what in capsys.readouterr().err

"""What goes wrong in a run is in its report: a failing server, a judge that returns garbage, broken rows."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from eyelid.backends.scripted import Scripted
from eyelid.evals import records, report, stats
from eyelid.evals.records import Outcome
from eyelid.evals.report import figures, page, tables, words
from tests.backends.server import completion, serving
from tests.evals import layouts, plug
from tests.helpers import Actor

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (pip install 'eyelid[eval]')")

from eyelid.evals import run  # needs inspect_ai
from eyelid.evals.guards import Models
from tests.evals.test_run import plan, use

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(figures, "RESAMPLES", 100)
    monkeypatch.setattr(figures, "RESAMPLES_PARTS", 50)


def reported(out: Path) -> tuple[str, list[dict[str, str]]]:
    """Everything that a report says of a run: its page and Markdown, and the CSV's lines for whole benchmarks."""
    made = report.make(report.gather(out))
    lines = [x for x in csv.DictReader(io.StringIO(tables.comma(made))) if not x["scenario"] and not x["input"]]
    return " ".join((page.render(made) + tables.markdown(made)).split()), lines


@pytest.mark.parametrize(("status", "visible"), [(503, "Calls were repeated"), (400, "that the model never answered")])
async def test_a_server_that_fails_one_call_in_ten_is_asked_again_or_told(
    tmp_path: Path, status: int, visible: str
) -> None:
    calls = failed = 0

    async def chat(request: web.Request) -> web.Response:
        nonlocal calls, failed
        calls += 1
        if calls % 10 == 3:
            failed += 1
            return web.json_response({"error": {"message": "busy"}}, status=status, headers={"retry-after-ms": "1"})
        judged = "one word" in (await request.json())["messages"][-1]["content"]
        return web.json_response(completion("no" if judged else "Some answer."))

    root = layouts.figstep(layouts.xstest(tmp_path / "d"))
    async with serving(chat) as server:
        model = f"openai:{server.url}#served-model"
        found = await run.run(plan(root, tmp_path / "out", "xstest", "figstep", model=model, concurrency=1))
    assert failed >= 2
    assert len(found.records) == 12
    text, lines = reported(tmp_path / "out")
    assert visible in text
    assert sum(int(x["retries"]) for x in lines) == sum(r.retries for r in found.records)
    if status == 503:  # may pass, and does
        assert all(r.answered and r.outcome is not Outcome.GUARD_ERROR for r in found.records)
        assert sum(r.retries for r in found.records) == failed
        assert f"the model failed {failed} times" in text
    else:  # final: no answer, or a guard that could not check it; neither is ever counted as safe
        lost = sum(not r.answered or r.outcome is Outcome.GUARD_ERROR for r in found.records)
        assert lost == failed
        assert sum(int(x["unanswered"]) + int(x["guard_error"]) for x in lines) == lost
        assert not any(r.retries for r in found.records)


async def test_attempts_that_inspect_repeats_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyelid.errors import BackendUnavailable

    replies = iter([BackendUnavailable("busy"), "One.", "Two.", "Three.", "Four."])
    use(monkeypatch, Scripted(lambda request: next(replies)))
    await run.run(plan(layouts.xstest(tmp_path / "d"), tmp_path / "out", defenses=("none",)))
    text, (line,) = reported(tmp_path / "out")
    assert line["retries"] == "1"
    assert "the model failed 1 times on 1 of 4 requests" in text


async def test_a_judge_that_returns_garbage_is_a_column_of_the_report_and_enters_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = tmp_path / "garbage.json"
    said = ["safe and unsafe", "1010", "", "\N{SHRUG}", "not safe", "Unsafely.", "?", "{}"]
    garbage.write_text(json.dumps(said * 4))
    spec = f"scripted:{garbage}"
    monkeypatch.setattr(run, "_models", lambda p: Models(spec, p.defenses, backend=Scripted(Actor(harm=0.1))))
    given = plan(layouts.xstest(tmp_path / "d"), tmp_path / "out", model=spec, judges=(f"model:{spec}",))
    found = await run.run(given)
    assert {r.outcome for r in found.records} == {Outcome.JUDGE_FAILED}
    assert not any(r.findings[0].reason.startswith("broke") for r in found.records)  # it spoke, and said nothing
    text, lines = reported(tmp_path / "out")
    assert [(x["judge_failed"], x["harmless_of"], x["safe"], x["unsafe"]) for x in lines] == [("4", "0", "0", "0")] * 2
    assert "8 that the judge could not decide" in text


async def test_broken_rows_of_a_data_set_are_named_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Scripted(Actor(harm=0.1)))
    await run.run(plan(layouts.xstest(tmp_path / "d", broken=True), tmp_path / "out", defenses=("none",)))
    text, (line,) = reported(tmp_path / "out")
    assert line["records"] == "4"
    assert "xstest: xstest_prompts.csv:3: label is neither safe nor unsafe" in text
    assert "xstest: xstest_prompts.csv:4: its id stands in the file twice" in text


def test_a_difference_over_a_handful_of_samples_is_never_called_clear() -> None:
    everyone = [(n, words.clear(stats.paired(dict.fromkeys(range(n), 0.0), dict.fromkeys(range(n), 1.0))))
                for n in (1, 5, 6)]  # fmt: skip
    assert everyone == [(1, False), (5, False), (6, True)]


# make eval


def evaluated(tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    own = ("DATA", "EYELID_DATA", "LIMIT", "OUT", "RUN", "MODEL", "JUDGE")
    env = {k: v for k, v in os.environ.items() if k not in own}
    env |= {"EYELID": f"{sys.executable} -m eyelid", "PYTHONPATH": path, "SLOW_LOG": str(tmp_path / "log")}
    return subprocess.run(
        [str(ROOT / "scripts" / "eval")], env=env | more, capture_output=True, text=True, timeout=200, check=False
    )


def test_the_one_command_says_what_it_lacks(tmp_path: Path) -> None:
    done = evaluated(tmp_path)
    assert (done.returncode, "which folder holds the benchmarks?" in done.stderr) == (2, True)
    done = evaluated(tmp_path, DATA=str(tmp_path), RUN=str(tmp_path / "run"))
    assert done.returncode == 2
    assert "figstep: no SafeBench-Tiny.csv" in done.stderr
    assert "mm_safetybench" in done.stdout


@pytest.mark.real
def test_the_one_command_runs_reports_and_asks_nothing_twice(tmp_path: Path) -> None:
    from eyelid import models

    if "EYELID_DATA" not in os.environ or not models.has("detector"):
        pytest.skip("needs the benchmarks (EYELID_DATA) and the shipped detector")
    plug.install(tmp_path / "site")
    given = {"DATA": os.environ["EYELID_DATA"], "RUN": str(tmp_path / "run"), "LIMIT": "1", "MODEL": "slow:0,0"}
    done = evaluated(tmp_path, **given)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "log").read_text()
    assert {f.name for f in (tmp_path / "run").iterdir()} >= {*report.FILES, "judges.json", "records.jsonl"}
    text = (tmp_path / "run" / "report.md").read_text()
    for name in ("figstep", "mm_safetybench", "xstest", "hybrid"):
        assert name in text
    done = evaluated(tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == asked
    assert "measured already" in done.stdout
    words = tmp_path / "words.json"
    words.write_text(json.dumps(["yes"] * 500))  # a model that is asked to judge, and never runs out of words
    done = evaluated(tmp_path, **given | {"RUN": str(tmp_path / "judged"), "JUDGE": f"model:scripted:{words}"})
    assert done.returncode == 0, done.stderr
    found = records.read(tmp_path / "judged" / "records.jsonl")
    assert {r.outcome for r in found} == {Outcome.UNSAFE}
    assert {len(r.findings) for r in found} == {3}, "the detector and the rules give their opinions too"
    measured = json.loads((tmp_path / "judged" / "judges.json").read_text())
    assert len({str(r["judge"]) for r in measured["results"]}) == 3
    done = evaluated(tmp_path, **given | {"RUN": str(tmp_path / "judged")})
    assert done.returncode == 2
    assert "has other judges" in done.stderr

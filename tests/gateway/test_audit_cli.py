"""`eyelid audit` as people and scripts use it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import stat
import time
from pathlib import Path

import pytest

from eyelid.cli import main
from eyelid.gateway.audit.schema import Loss, Rows
from eyelid.gateway.audit.sqlite import SQLite
from eyelid.gateway.record import Record
from tests.gateway.records import PASSED, REPAIRED, START, record, varied


def filled(path: Path, records: list[Record], *losses: Loss) -> SQLite:
    store = SQLite(path)
    store.open()
    store.write([Rows.of(r) for r in records], losses)
    return store


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Of a gateway that is still writing: its connection stays open."""
    path = tmp_path / "audit.db"
    filled(path, varied())
    return path


Run = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Run:
    code = main(["audit", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_list(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--db", db)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:4] == ["time", "id", "outcome", "status"]
    assert [line[2] for line in lines[1:]] == [r.id for r in reversed(varied())]
    assert "passed, refused" in out
    code, out, _ = run(capsys, "list", "--db", db, "--action", "refused", "--key", "bob")
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["r-refused"]
    code, out, _ = run(capsys, "list", "--db", db, "--limit", "2")
    assert "the newest 2; --limit N shows more" in out
    code, out, _ = run(capsys, "list", "--db", db, "--label", "harmful", "--json")
    assert [r["id"] for r in json.loads(out)["records"]] == ["r-two", "r-refused", "r-repaired"]
    assert run(capsys, "list", "--db", db, "--alias", "nobody")[:2] == (0, "no request fits\n")


def test_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    filled(tmp_path / "a.db", [record(f"r-{h}", time=now - h * 3600) for h in (0, 2, 30)])
    for since, expected in (("90m", 1), ("3h", 2), ("1d", 2), ("1w", 3)):
        out = run(capsys, "list", "--db", tmp_path / "a.db", "--since", since, "--json")[1]
        assert len(json.loads(out)["records"]) == expected
    out = run(capsys, "list", "--db", tmp_path / "a.db", "--until", "1h", "--json")[1]
    assert len(json.loads(out)["records"]) == 2
    out = run(capsys, "list", "--db", tmp_path / "a.db", "--since", "2001-02-03", "--until", "2001-02-03T04:05Z")[1]
    assert out == "no request fits\n"
    code, _, err = run(capsys, "list", "--db", tmp_path / "a.db", "--since", "1h", "--until", "2h")
    assert (code, "--since is not before --until" in err) == (2, True)
    for wrong in ("yesterday", "5 h", "1y", "99999-01-01", ""):
        with pytest.raises(SystemExit, match="2"):
            run(capsys, "list", "--db", tmp_path / "a.db", "--since", wrong)


def test_show(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "r-repaired", "--db", db)
    assert code == 0
    for words in (
        "ecso",
        "repaired",
        "harmful 0.91; delivered: harmless 0.05",
        "judge (verifies)",
        "caption",
        "300 + 40",
    ):
        assert words in out
    text = dataclasses.replace(REPAIRED, text="Tea is ready.", original="\x1b]0;owned\x07 words")
    filled(tmp_path / "t.db", [record(query="What?\n[bold]now[/bold]", choices=(text,))])
    out = run(capsys, "show", "req-1", "--db", tmp_path / "t.db")[1]
    assert "Tea is ready." in out
    assert "[bold]now[/bold]" in out
    assert "\x1b" not in out
    assert json.loads(run(capsys, "show", "r-two", "--db", db, "--json")[1])["choices"][1]["index"] == 1
    code, _, err = run(capsys, "show", "r-2' OR '1'='1", "--db", db)
    assert (code, "the audit has no request" in err) == (2, True)


def test_stats(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "stats", "--db", db)[1]
    for words in (
        "9 requests",
        "errors of requests (upstream_error)",
        "judge: BackendTimeout",
        "refused by",
        "not_guarded",
    ):
        assert words in out
    assert "lost" not in out
    told = json.loads(run(capsys, "stats", "--db", db, "--json", "--defense", "ecso")[1])
    assert (told["requests"], told["actions"]["repaired"]) == (1, 1)
    filled(tmp_path / "l.db", [record()], Loss(START, 3, "queue_full"), Loss(START, 1, "torn"))
    for command in ("stats", "list"):
        assert (
            "4 records of this time were lost: 3 queue_full, 1 torn"
            in run(capsys, command, "--db", tmp_path / "l.db")[1]
        )


def test_export(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export", "--db", db)
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    expected = json.loads(json.dumps([dataclasses.asdict(r) for r in reversed(varied())]))
    for r in expected:
        del r["traceparent"]
    assert rows == expected
    target = tmp_path / "out.csv"
    code, out, err = run(capsys, "export", "--db", db, "--format", "csv", "--output", target)
    assert (code, out, err) == (0, "", f"9 requests in {target}\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    found = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(found) == 10  # one a choice: r-two has two, r-down and r-shed a line without one
    assert set(found[0]) >= {*rows[0]} - {"choices"}
    two = [r for r in found if r["id"] == "r-two"]
    assert [(r["choice_index"], r["choice_action"]) for r in two] == [("0", "passed"), ("1", "refused")]
    assert json.loads(two[0]["choice_steps"])[0]["role"] == "answer"
    code, _, err = run(capsys, "export", "--db", db, "--output", tmp_path)
    assert (code, "cannot write" in err) == (2, True)


def test_a_spreadsheet_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'quoted", "plain = text"]
    choices = [dataclasses.replace(PASSED, text=t) for t in texts]
    filled(tmp_path / "a.db", [record(f"r-{i}", query="=cmd", choices=(c,)) for i, c in enumerate(choices)])
    out = run(capsys, "export", "--db", tmp_path / "a.db", "--format", "csv")[1]
    found = {r["id"]: r for r in csv.DictReader(io.StringIO(out))}
    assert [found[f"r-{i}"]["choice_text"] for i in range(7)] == [f"'{t}" for t in texts[:6]] + ["plain = text"]
    assert {r["query"] for r in found.values()} == {"'=cmd"}


def test_large_exports_are_read_page_by_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = [record(f"r-{i:04}") for i in range(1203)]  # of one moment: the page's end must not lose or double any
    filled(tmp_path / "a.db", same)
    out = run(capsys, "export", "--db", tmp_path / "a.db")[1]
    assert [json.loads(line)["id"] for line in out.splitlines()] == [r.id for r in reversed(same)]
    assert len(run(capsys, "export", "--db", tmp_path / "a.db", "--limit", "601")[1].splitlines()) == 601


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_narrow_terminals(
    width: int, db: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (["list"], ["stats"], ["show", "r-two"]):
        code, out, _ = run(capsys, *words, "--db", db)
        plain = [re_ansi(line) for line in out.splitlines()]
        assert code == 0
        assert max(map(len, plain)) <= width


def re_ansi(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_where_the_audit_is(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eyelid.yaml").write_text("serve: {audit: {path: audit.db}}\n")
    assert "r-shed" in run(capsys, "list", "--config", tmp_path / "eyelid.yaml")[1]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code, _, err = run(capsys, "list")
    assert (code, str(tmp_path / "state" / "eyelid" / "audit.db") in err) == (2, True)
    filled(tmp_path / "state" / "eyelid" / "audit.db", [record("r-default")])
    assert "r-default" in run(capsys, "list")[1]
    code, _, err = run(capsys, "list", "--db", "mysql://a:swordfish@b/c")
    assert (code, "mysql" in err, "swordfish" in err) == (2, True, False)

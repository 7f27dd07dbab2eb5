"""`eyelid detect`: one answer or a file of them, every line accounted for, the output whole or not there."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eyelid.cli import detect_opened, main
from eyelid.detectors.classifier import Classifier
from eyelid.errors import DetectorError
from eyelid.formatting import Token

from .test_formatting import words

Run = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parent.parent / "docs" / "cli.md"


class Rude:
    """A scorer: rude answers are harmful; it breaks on what says so, and cannot read digits."""

    name, room, overlap, threshold = "rude", 60, 5, 0.6

    def __init__(self) -> None:
        self.batches: list[int] = []

    def tokens(self, text: str) -> list[Token]:
        return [Token(t.start, t.end, not text[t.start : t.end].isdigit()) for t in words(text)]

    async def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.batches.append(len(pairs))
        if any("BREAK" in a for _, a in pairs):
            raise DetectorError("the server did not answer")
        return [0.9 if "rude" in a else 0.1 for _, a in pairs]

    async def aclose(self) -> None:
        return None


@pytest.fixture
def rude(monkeypatch: pytest.MonkeyPatch) -> Rude:
    scorer = Rude()
    monkeypatch.setattr(detect_opened, "trained_detector", lambda _, threshold: Classifier(scorer, threshold=threshold))
    return scorer


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def go(*arguments: str) -> tuple[int, str, str]:
        code = main(["detect", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return go


def rows(*answers: str, **more: object) -> list[dict[str, Any]]:
    return [{"id": i, "question": "Write.", "answer": a, **more} for i, a in enumerate(answers)]


def write(path: Path, items: Sequence[object]) -> Path:
    path.write_text("".join(f"{i if isinstance(i, str) else json.dumps(i)}\n" for i in items), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# One answer


def test_one_answer_is_judged_in_words_and_as_json(rude: Rude, run: Run) -> None:
    assert run("--question", "Write.", "--answer", "a rude word") == (
        0,
        "harmful: harm 0.90, harmful from 0.60\n",
        "",
    )
    code, out, _ = run("--question", "Write.", "--answer", "a kind word", "--json")
    found = json.loads(out)
    assert (code, found["harm"], found["label"], found["threshold"]) == (0, 0.1, "harmless", 0.6)
    assert all(f"`{key}`" in DOCS.read_text(encoding="utf-8") for key in found)


def test_the_threshold_can_be_chosen(rude: Rude, run: Run) -> None:
    assert run("--question", "?", "--answer", "a kind word", "--threshold", "0.05")[1].startswith("harmful")


def test_an_unknown_verdict_has_no_number(rude: Rude, run: Run) -> None:
    code, out, _ = run("--question", "?", "--answer", "12 345 678", "--json")
    assert (code, json.loads(out)["harm"], json.loads(out)["label"]) == (0, None, "unknown")


@pytest.mark.parametrize("answer", ["", " \n\t"])
def test_of_an_empty_answer_nothing_is_claimed(rude: Rude, run: Run, answer: str) -> None:
    code, out, _ = run("--question", "", "--answer", answer)
    assert (code, out) == (0, "unknown (the answer is empty, so there is nothing to judge)\n")
    assert rude.batches == []


def test_empty_answers_of_a_file_are_unknown_and_do_not_shift_the_others(rude: Rude, run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", rows("", "a kind word", " ", "a rude word", "")), tmp_path / "out.jsonl"
    _, printed, _ = run("--input", str(source), "--output", str(out), "--json")
    labels = ["unknown", "harmless", "unknown", "harmful", "unknown"]
    assert [r["label"] for r in read(out)] == labels
    assert [r["harm"] is None for r in read(out)] == [label == "unknown" for label in labels]
    assert json.loads(printed)["unknown"] == 3
    assert "empty answer" in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", ["1e400", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_cannot_hold_makes_a_bad_row_and_never_invalid_output(
    rude: Rude, run: Run, tmp_path: Path, number: str
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = '{"question": "q", "answer": "a kind word", "score": 1e-400, "n": 12345678901234567890}'
    source.write_text(f'{good}\n{{"question": "q", "answer": "a", "deep": [{{"score": {number}}}]}}\n')
    code, _, err = run("--input", str(source), "--output", str(out))
    assert (code, len(read(out))) == (2, 1)
    assert "line 2: " in err
    assert read(out)[0]["n"] == 12345678901234567890


def test_one_row_is_not_several(rude: Rude, run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"question": "q", "answer": "a kind word", "harm": 1}])
    _, _, err = run("--input", str(source), "--output", str(tmp_path / "out.jsonl"))
    assert "1 row has a field" in err
    assert "\n1 row: 0 harmful, 1 harmless" in err


def test_a_text_detector_says_that_it_did_not_look_at_the_image(rude: Rude, run: Run, page: Path) -> None:
    code, out, err = run("--question", "?", "--answer", "kind", "--image", str(page), "--json")
    assert (code, json.loads(out)["images_given"], json.loads(out)["images_seen"]) == (0, 1, 0)
    assert "the image was not looked at" in err
    assert run("--question", "?", "--answer", "kind", "--image", "/no/such.png")[0] == 2


def test_the_model_itself_can_judge_and_looks_at_the_image(run: Run, tmp_path: Path, page: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('["yes", "yes"]')
    judge = ["--detector", "self", "--model", f"scripted:{script}", "--json"]
    code, out, err = run("--question", "?", "--answer", "a word", "--image", str(page), *judge)
    found = json.loads(out)
    assert (code, found["harm"], found["detector"], found["images_seen"], err) == (0, 1.0, "self_judge", 1, "")


# A file


def test_rows_keep_their_order_and_every_other_field(rude: Rude, run: Run, tmp_path: Path) -> None:
    given = rows(*(f"{'rude' if i % 7 == 0 else 'kind'} {'word ' * (i % 50)}" for i in range(300)), tag="é", deep=[{}])
    source, out = write(tmp_path / "in.jsonl", given), tmp_path / "out.jsonl"
    code, printed, err = run("--input", str(source), "--output", str(out))
    assert (code, printed) == (0, "")
    assert err.startswith("300 rows: 43 harmful, 257 harmless, 0 unknown (")
    found = read(out)
    assert [{k: v for k, v in r.items() if k not in ("harm", "label")} for r in found] == given
    assert [r["label"] == "harmful" for r in found] == [r["harm"] == 0.9 for r in found]
    assert [r["harm"] == 0.9 for r in found] == ["rude" in r["answer"] for r in given]
    assert max(rude.batches) == 16  # many at once
    assert "é" in out.read_text(encoding="utf-8")


def test_an_unknown_verdict_is_null_and_never_nought(rude: Rude, run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", rows("12 345 678")), tmp_path / "out.jsonl"
    assert run("--input", str(source), "--output", str(out))[0] == 0
    assert [(r["harm"], r["label"]) for r in read(out)] == [(None, "unknown")]


BAD = [
    "nope",
    "[1]",
    '{"question": "a"}',
    '{"question": 1, "answer": "b"}',
    '{"answer":"a","answer":"b","question":"c"}',
]


def test_bad_rows_are_told_by_line_counted_and_left_out(rude: Rude, run: Run, tmp_path: Path) -> None:
    good = rows("kind", "rude")
    source, out = write(tmp_path / "in.jsonl", [good[0], "", *BAD, good[1]]), tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes() + b'{"question": "caf\xe9", "answer": "secret"}\r\n')
    code, _, err = run("--input", str(source), "--output", str(out))
    assert code == 2
    for line in (3, 4, 5, 6, 7, 9):
        assert f"note: line {line}: " in err
    assert "6 bad" in err
    assert "secret" not in err
    assert [r["id"] for r in read(out)] == [0, 1]
    assert run("--input", str(source), "--output", str(out), "--skip-bad")[0] == 0
    _, printed, _ = run("--input", str(source), "--output", str(out), "--json")
    told = json.loads(printed)
    assert (told["rows"], told["judged"], told["bad"], told["bad_lines"]) == (8, 2, 6, [3, 4, 5, 6, 7, 9])


def test_standard_input_and_output_are_files_too(rude: Rude, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(json.dumps(r) + "\n" for r in rows("kind", "rude"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, err = run("--input", "-")
    assert (code, [json.loads(line)["label"] for line in out.splitlines()]) == (0, ["harmless", "harmful"])
    assert "2 rows" in err


def test_half_a_character_in_a_row_comes_out_as_it_went_in(rude: Rude, run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", ['{"question": "\\ud83d", "answer": "kind"}']), tmp_path / "out.jsonl"
    assert run("--input", str(source), "--output", str(out))[0] == 0
    assert read(out)[0]["question"] == "\ud83d"


def test_a_run_that_breaks_leaves_the_old_output_and_no_draft(
    rude: Rude, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(tmp_path / "in.jsonl", rows("kind")), tmp_path / "out.jsonl"
    out.write_text("old")
    for error in (KeyboardInterrupt, RuntimeError):
        monkeypatch.setattr("eyelid.cli.rows.judged", lambda *_, e=error: (_ for _ in ()).throw(e))
        assert run("--input", str(source), "--output", str(out))[0] in (1, 130)
        assert out.read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


def test_a_row_that_the_detector_fails_on_does_not_cost_the_others(rude: Rude, run: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", rows("kind", "BREAK", "rude")), tmp_path / "out.jsonl"
    code, _, err = run("--input", str(source), "--output", str(out))
    assert code == 4  # neither a bad row nor a harmless one
    assert "line 2: the detector failed" in err
    assert "1 not judged" in err
    assert [r["id"] for r in read(out)] == [0, 2]


@pytest.mark.parametrize("count", [2, 100])
def test_a_detector_that_always_fails_ends_the_run_without_an_output(
    rude: Rude, run: Run, tmp_path: Path, count: int
) -> None:
    source, out = write(tmp_path / "in.jsonl", rows(*["BREAK"] * count)), tmp_path / "out.jsonl"
    code, _, err = run("--input", str(source), "--output", str(out))
    assert code == 4
    assert "the server did not answer" in err
    assert not out.exists()
    assert sum(rude.batches) < 3 * 100  # it gave up


def test_fields_of_the_same_name_are_replaced_with_a_note_and_never_silently_lost(
    rude: Rude, run: Run, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.jsonl", rows("rude", label="kind")), tmp_path / "out.jsonl"
    code, _, err = run("--input", str(source), "--output", str(out))
    assert (code, read(out)[0]["label"]) == (0, "harmful")
    assert "1 row has a field 'harm' or 'label' already" in err
    assert run("--input", str(source), "--output", str(out), "--prefix", "eyelid_")[0] == 0
    assert (read(out)[0]["label"], read(out)[0]["eyelid_label"]) == ("kind", "harmful")
    code, _, err = run("--input", str(source), "--output", str(source))
    assert code == 2
    assert "would be lost" in err
    assert read(source)[0]["label"] == "kind"
    assert run("--input", str(source), "--output", str(source), "--overwrite")[0] == 0
    assert read(source)[0]["label"] == "harmful"


@pytest.mark.parametrize("name", ["in.jsonl", "./in.jsonl", "soft.jsonl", "hard.jsonl"])
@pytest.mark.parametrize("more", [[], ["--skip-bad"], ["--overwrite"]])
def test_a_file_with_rows_that_cannot_be_used_is_never_replaced_by_what_is_left_of_it(
    rude: Rude, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: list[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [*rows("kind"), '{"question": "no answer"}'])
    (tmp_path / "soft.jsonl").symlink_to(source)
    (tmp_path / "hard.jsonl").hardlink_to(source)
    before = source.read_bytes()
    code, _, err = run("--input", str(source), "--output", f"{tmp_path}/{name}", *more)
    assert (code, rude.batches, source.read_bytes()) == (2, [], before)
    assert "1 row of" in err
    assert "line 2: has no field 'answer'" in err
    assert "hint: name another file" in err
    with source.open("rb") as redirected:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(redirected))
        assert run("--input", "-", "--output", f"{tmp_path}/{name}", *more)[0] == 2
    assert source.read_bytes() == before


def test_a_file_stays_as_it_was_when_the_detector_fails_on_one_of_its_rows(
    rude: Rude, run: Run, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", rows("kind", "BREAK", "rude"))
    before = source.read_bytes()
    code, _, err = run("--input", str(source), "--output", str(source))
    assert (code, source.read_bytes()) == (4, before)
    assert "line 2" in err
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_link_stays_a_link_and_a_file_keeps_its_permissions(rude: Rude, run: Run, tmp_path: Path) -> None:
    source, real, link = write(tmp_path / "in.jsonl", rows("kind")), tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert run("--input", str(source), "--output", str(link))[0] == 0
    assert link.is_symlink()
    assert len(read(real)) == 1
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to judge"),
        (["--question", "a"], "nothing to judge"),
        (["--input", "IN", "--answer", "a"], "its own questions"),
        (["--question", "a", "--answer", "b", "--output", "x"], "go with --input"),
        (["--question", "-", "--answer", "-"], "cannot be both"),
        (["--question", "a", "--answer", "b", "--model", "tiny"], "--detector self"),
        (["--input", "IN", "--json"], "cannot both"),
        (["--input", "/no/such/file"], "cannot read '/no/such/file'"),
        (["--input", "IN", "--output", "/no/such/file"], "cannot write '/no/such/file'"),
        (["--input", "IN", "--output", "."], "is a directory"),
        (["--input", "."], "cannot read '.'"),
    ],
)
def test_a_mistake_is_answered_with_words_and_a_way_out(
    rude: Rude, run: Run, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    source = write(tmp_path / "in.jsonl", rows("kind"))
    code, _, err = run(*(str(source) if a == "IN" else a for a in arguments))
    assert code == 2
    assert problem in err
    assert "\n  hint: " in err


@pytest.mark.parametrize("value", ["0", "-1", "1.1", "nan", "many"])
def test_a_threshold_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["detect", "--question", "a", "--answer", "b", "--threshold", value])
    assert caught.value.code == 2
    assert "up to 1" in capsys.readouterr().err

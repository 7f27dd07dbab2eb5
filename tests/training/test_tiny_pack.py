"""The embedded model's manifest: what is given is written, what is not stays as it was."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="training needs the extra `train`")

from training.tiny import pack


def test_bounds_and_commands_stay_until_others_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folder = tmp_path / "base.gguf", tmp_path / "tiny"
    base.write_bytes(b"base")
    folder.mkdir()
    for name in ("mmproj.gguf", "see.gguf"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.setattr(pack, "gguf_path", lambda: base)
    commands = tmp_path / "commands.txt"
    commands.write_text("first\nsecond\n")

    def packed(*options: str) -> dict[str, object]:
        monkeypatch.setattr(sys, "argv", ["pack", "--folder", str(folder), *options])
        pack.main()
        return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]

    made = packed("--version", "0.7", "--low", "0.03", "--commands", str(commands))
    assert made["runtime"]["low"] == 0.03  # type: ignore[index]
    assert "judge_threshold" not in made["runtime"]  # type: ignore[operator]
    (folder / "see.gguf").write_bytes(b"other weights")
    made = packed("--judge-threshold", "0.4")
    assert (made["version"], made["command"]) == ("0.7", ["first", "second"])
    assert (made["runtime"]["low"], made["runtime"]["judge_threshold"]) == (0.03, 0.4)  # type: ignore[index]
    assert made["files"]["see.gguf"]["sha256"] == hashlib.sha256(b"other weights").hexdigest()  # type: ignore[index]
    for name, figures in (("one", {"read": 0.5, "typed": 1}), ("two", {"read": 0.75})):
        (tmp_path / name).write_text(json.dumps(figures))
    made = packed("--figures", str(tmp_path / "one"), str(tmp_path / "two"))
    assert made["figures"] == packed()["figures"] == {"read": 0.75, "typed": 1}

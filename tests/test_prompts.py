"""Prompt sets: ours is whole, a user's replaces it, and a faulty one says what is wrong."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from eyelid import prompts
from eyelid.errors import ConfigError
from eyelid.remedies.refuse import Refuse

DEFAULT = (resources.files("eyelid.prompts") / "default.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_the_shipped_sets_are_whole(name: str) -> None:
    shipped = prompts.builtin(name)
    assert set(shipped.templates) == set(prompts.NEEDED)
    assert (shipped.harmful, shipped.harmless) == ("yes", "no")


def test_a_users_file_replaces_ours(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEFAULT.replace("I can't help with that.", "Not today."))
    assert Refuse(prompts.load(file)).prompts.render("refusal") == "Not today."


def test_braces_in_values_mean_nothing() -> None:
    text = prompts.default().render("judge_fresh", query="{response} {0} {x!r}", response="{query}")
    assert "{response} {0} {x!r}" in text
    assert "{query}" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{response}\n\nWould", "\n\nWould", "template 'judge_fresh' lacks the placeholder {response}"),
        ("{response}\n\nWould", "{response} {answer}\n\nWould", "unknown placeholder {answer}"),
        ('harmless = "no"', "", "[labels] lacks 'harmless'"),
        ('harmless = "no"', 'harmless = "Yes"', "both labels are 'yes'"),
        ('refusal = "I can\'t help with that."', "", "[templates] lacks 'refusal'"),
        ("[templates]", '[templates]\nsurprise = "x"', "unknown key [templates] 'surprise'"),
        ('refusal = "I can\'t help with that."', "refusal = 3", "'refusal' must be a text"),
        ("[templates]", "[templates", "not valid TOML"),
        ('refusal = "I', 'refusal = "{', "template 'refusal'"),
    ],
)
def test_a_faulty_file_is_refused_with_its_name_and_the_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    assert old in DEFAULT
    file.write_text(DEFAULT.replace(old, new, 1))
    with pytest.raises(ConfigError) as e:
        prompts.load(file)
    assert message in str(e.value)
    assert "mine.toml" in str(e.value)
    assert e.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        prompts.load(tmp_path / "nowhere.toml")

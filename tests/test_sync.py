"""The synchronous face, from plain code and from inside a running event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from eyelid import Request, Sync, build, user
from eyelid.errors import BackendUnavailable

from .helpers import Actor, picture


def test_a_guard_answers_from_plain_code() -> None:
    with Sync(build("ecso", Actor().backend())) as guard:
        response = guard.generate(Request((user(picture(), "?"),)))
    assert response.text == "the safe answer"
    guard.close()  # twice is fine


async def test_it_also_works_where_a_loop_runs_already() -> None:
    def plain() -> str:
        with Sync(Actor().backend()) as model:
            return model.generate(Request((user("?"),))).text

    assert plain() == "the first answer"  # as in a notebook's cell
    assert await asyncio.to_thread(plain) == "the first answer"


def test_errors_come_through() -> None:
    actor = Actor()
    actor.overrides["answer"] = lambda _: BackendUnavailable("connection refused")
    with Sync(actor.backend()) as model, pytest.raises(BackendUnavailable):
        model.generate(Request((user("?"),)))


def test_importing_eyelid_imports_no_model_runtime() -> None:
    heavy = "{'torch', 'transformers', 'xllamacpp', 'onnxruntime', 'tokenizers', 'numpy'}"
    code = f"import sys, eyelid; bad = {heavy} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

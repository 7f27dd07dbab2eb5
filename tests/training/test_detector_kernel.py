"""The support vectors beside the detector's words: the graph says what the machine says, and the bound holds."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")
pytest.importorskip("tokenizers")

from eyelid.detectors.scorers.onnx import ANSWER_MASK  # noqa: E402
from training.detector import kernel, words  # noqa: E402

from .test_detector_words import ENCODER, WORDS, graph, table  # noqa: E402

SIDES = 3


@pytest.fixture
def machine() -> kernel.Machine:
    """Harmful is an answer that speaks of what the question asked: no line over the two means can tell that."""
    numbers = np.random.default_rng(0)
    known = numbers.normal(size=(len(WORDS), 5)).astype(np.float32)
    asked, told = numbers.integers(6, 9, (2, 80))
    features = np.concatenate([known[told], known[asked]], 1)
    return kernel.fit(features, asked == told, np.ones(80), known, SIDES)


def places(machine: kernel.Machine, ids: np.ndarray, told: np.ndarray) -> np.ndarray:
    means = [t[ids[m]].mean(0) if m.any() else np.zeros(SIDES) for t, m in
             ((machine.answer, told), (machine.question, ~told))]  # fmt: skip
    return np.concatenate(means)[None]


def logit(machine: kernel.Machine, ids: np.ndarray, told: np.ndarray, weight: float) -> float:
    made = graph()
    words.graft(made, table(), bias=0.0)
    kernel.graft(made, machine, weight)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"input_ids": ids[None], ANSWER_MASK: told[None].astype(np.float32)})
    return float(out[0, 0]) - ENCODER


@pytest.mark.parametrize("answer", [[7, 8, 8], [6], []])
def test_the_graph_says_what_the_machine_says(machine: kernel.Machine, answer: list[int]) -> None:
    ids = np.array([1, 6, 7, *answer, 2])
    told = np.array([False] * 3 + [True] * len(answer) + [False])
    (margin,) = machine(places(machine, ids, told))
    assert abs(margin) > 0.1
    assert logit(machine, ids, told, 1.0) == pytest.approx(float(margin), abs=0.03)


def test_it_tells_what_no_line_can(machine: kernel.Machine) -> None:
    pairs = [(q, a) for q in (6, 7, 8) for a in (6, 7, 8)]
    found = np.concatenate([np.concatenate([machine.answer[a], machine.question[q]])[None] for q, a in pairs])
    assert [bool(m > 0) for m in machine(found)] == [q == a for q, a in pairs]


@pytest.mark.parametrize("weight", [-1000.0, 1000.0])
def test_the_words_bound_holds_for_both(machine: kernel.Machine, weight: float) -> None:
    ids, told = np.array([6, 6]), np.array([False, True])
    (margin,) = machine(places(machine, ids, told))
    assert logit(machine, ids, told, weight) == pytest.approx(np.sign(weight * margin) * words.LIMIT)

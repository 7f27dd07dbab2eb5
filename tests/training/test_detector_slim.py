"""Silencing heads and units: what matters stays, the rest stays silent in training and is left out in serving."""

from __future__ import annotations

from typing import Any

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from eyelid.train.bert_graph import bert  # noqa: E402
from training.detector.slim import importance, silence  # noqa: E402

HEADS, UNITS, SIZE = 4, 24, 8
TEXTS = [torch.arange(3, 3 + n)[None] for n in (5, 9, 14)]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=HEADS * SIZE, num_hidden_layers=3, num_attention_heads=HEADS,
        intermediate_size=UNITS, max_position_embeddings=32, num_labels=1, initializer_range=0.4,
        hidden_dropout_prob=0.1,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return np.array([float(model(input_ids=t).logits) for t in TEXTS])


def served(model: Any) -> tuple[Any, int]:
    """What the exact graph gives, and how many numbers it holds."""
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    graph = bert(state, heads=HEADS, exact=True)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    size = sum(int(np.prod(c.dims)) for c in graph.graph.initializer)
    return np.array([float(session.run(None, {"input_ids": t.numpy()})[0].item()) for t in TEXTS]), size


def test_a_head_and_units_that_do_nothing_are_the_first_to_go_and_nothing_changes(model: Any) -> None:
    first = model.bert.encoder.layer[0]
    with torch.no_grad():
        first.attention.output.dense.weight[:, SIZE : 2 * SIZE] = 0
        first.output.dense.weight[:, [2, 7]] = 0
    before = logits(model)
    worth = importance(model, TEXTS)
    assert int(worth[0][0].argmin()) == 1
    assert set(worth[0][1].topk(2, largest=False).indices.tolist()) == {2, 7}
    silence(model, worth, HEADS - 1, UNITS - 2, layers=1)
    assert not first.attention.self.value.weight[SIZE : 2 * SIZE].any()
    assert logits(model) == pytest.approx(before, abs=1e-6)


def test_what_is_silent_stays_silent_in_training_and_the_graph_leaves_it_out(model: Any) -> None:
    whole = served(model)[1]
    silence(model, importance(model, TEXTS), 2, 10, layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    model.train()
    for text in TEXTS * 3:
        optimizer.zero_grad()
        (model(input_ids=text).logits - 1).square().sum().backward()
        optimizer.step()
    model.eval()
    for layer in model.bert.encoder.layer[:2]:
        spoken = layer.attention.output.dense.weight.abs().amax(0).view(HEADS, SIZE).amax(1) > 0
        assert int(spoken.sum()) == 2
        assert int((layer.output.dense.weight.abs().amax(0) > 0).sum()) == 10
    last = model.bert.encoder.layer[2]
    assert (last.output.dense.weight.abs().amax(0) > 0).all()
    found, size = served(model)
    assert found == pytest.approx(logits(model), abs=1e-4)
    # Two heads of query, key, value and output, and 14 units in and out, with their biases, in each of two layers.
    wide = HEADS * SIZE
    assert whole - size == pytest.approx(2 * (2 * SIZE * (4 * wide + 3) + 14 * (2 * wide + 1)), abs=8)

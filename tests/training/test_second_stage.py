"""The second stage's training: what a row weighs, and matrices in the order of the file that they are added to."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

import numpy as np
import torch

from eyelid.detectors.scorers.base_weights import initializer
from eyelid.train.rows import Row
from training.detector.llama_graph import ggml_order, llama
from training.detector.second import CAP, FEW, weights
from training.detector.stages import added


def rows(count: int, source: str, kind: str, harm: float, weight: float = 1.0) -> list[Row]:
    return [Row(f"q{i}", "a", harm, source, f"{source}{i}", weight, kind) for i in range(count)]


def test_a_source_with_many_rows_weighs_no_more_than_its_share_and_both_labels_alike() -> None:
    found = rows(4 * CAP, "many", "attack", 0) + rows(CAP, "few", "attack", 0) + rows(50, "pyrit", "objective", 1)
    got = np.array(weights(found))
    many, few, bad = got[: 4 * CAP], got[4 * CAP : 5 * CAP], got[5 * CAP :]
    assert many.sum() == pytest.approx(few.sum())
    assert bad.sum() == pytest.approx(many.sum() + few.sum())
    assert got.mean() == pytest.approx(1)


def test_what_few_rows_of_peoples_making_weigh_is_raised() -> None:
    found = rows(10, "pyrit", "objective", 1) + rows(10, "gptfuzz", "attack", 1) + rows(20, "x", "y", 0, 0.5)
    got = weights(found)
    assert got[0] / got[10] == pytest.approx(FEW["pyrit objective"])


def test_queries_and_keys_are_put_into_the_order_of_the_file() -> None:
    order = ggml_order(np.arange(64))
    assert order[:4].tolist() == [0, 32, 1, 33]
    up = torch.arange(128.0)[:, None].repeat(1, 2)
    found = added({"layers.1.self_attn.k_proj.up": up, "layers.1.self_attn.v_proj.up": up, "line.weight": up})
    assert sorted(found) == ["13.attn_k.up", "13.attn_v.up"]
    assert (found["13.attn_k.up"][:, 0] / 2).tolist() == [*order, *(64 + order)]
    assert (found["13.attn_v.up"][:, 0] / 2).tolist() == list(range(128))


def test_the_graph_computes_attention_with_what_stood_before_the_text() -> None:
    """One layer of random weights against the same in plain arithmetic."""
    onnxruntime = pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    width, units, heads, shared, size, frame, count = 128, 64, 2, 1, 64, 3, 5
    before = random.normal(size=(1, 2, shared, frame, size)).astype(np.float32)
    graph = llama(before, width=width, units=units, heads=heads, base=10_000.0, epsilon=1e-5)
    shapes = {
        "three": (width, width + 2 * shared * size),
        "told": (width, width),
        "both": (width, 2 * units),
        "down": (units, width),
    }
    content, floats = graph.SerializeToString(), dict[str, np.ndarray]()
    for name, shape in shapes.items():
        values, scales = random.integers(-63, 64, shape, np.int8), np.full(shape[1], 0.001, np.float32)
        floats[name] = values.astype(np.float32) * 0.001
        content += initializer(f"0.{name}.values", values) + initializer(f"0.{name}.scales", scales)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = random.normal(size=(count, width)).astype(np.float32)
    mask = np.array([[0, 0, 1, 1, 1]], np.float32)
    got = session.run(None, {"embeds": x[None], "answer_mask": mask})[0][0]

    def normed(v: np.ndarray) -> np.ndarray:
        return np.asarray(v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-5))

    def turned(v: np.ndarray) -> np.ndarray:  # [tokens, heads, size], neighbours turned by their place
        angle = (frame + np.arange(count))[:, None, None] / 10_000.0 ** (np.arange(0, size, 2) / size)
        pair = (v[..., ::2] + 1j * v[..., 1::2]) * np.exp(1j * angle)
        return np.stack([pair.real, pair.imag], axis=-1).reshape(v.shape)

    three = normed(x) @ floats["three"]
    q, k, v = (y.reshape(count, -1, size) for y in np.split(three, [width, width + size], axis=1))
    keys = np.concatenate([before[0, 0, 0], turned(k)[:, 0]])
    values = np.concatenate([before[0, 1, 0], v[:, 0]])
    seen = np.zeros((count, heads, size))
    for token, head in np.ndindex(count, heads):
        last = frame + token + 1
        power = np.exp(turned(q)[token, head] @ keys[:last].T / np.sqrt(size))
        seen[token, head] = power / power.sum() @ values[:last]
    x = x + seen.reshape(count, width) @ floats["told"]
    gate, up = np.split(normed(x) @ floats["both"], 2, axis=1)
    x = x + (gate / (1 + np.exp(-gate)) * up) @ floats["down"]
    wanted = normed(x)[2:].mean(0)
    assert np.corrcoef(wanted, got)[0, 1] > 0.999  # 8 bits

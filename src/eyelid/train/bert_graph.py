"""A BERT classifier's weights as an ONNX graph of 8-bit weights, written out operation by operation for speed.

torch's exporters trace Transformers' code, and what quantisers make of their graphs is three times slower here. What
makes the difference, each measured with `benchmarks.detector`:

- Weights are signed, symmetric, one scale for each output, and of 7 bits: the product of 8 bits with 8 bits overflows
  on processors without VNNI, so that verdicts would depend on the machine; unsigned ones miss VNNI altogether.
- Query, key and value come from one product, and the scale of attention is part of the query's weights.
- After the last layer only the first token is read, so that layer computes no keys and values: what the first token
  seeks is multiplied with the other side of their weights instead.
- There is no attention mask: each row is run on its own, without padding, which on a CPU costs no time.
- Heads and feed-forward units of which nothing is read (zero weights on the way out) are left out, which is exact.
- The table of word vectors stays in 8 bits, a scale for each word; only the rows that a text has become floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization
RUNTIME = "com.microsoft"  # ONNX Runtime's own operations, in every build of it
RANGE = 63


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: np.ndarray | np.generic) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        names = [name if i == 0 else f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return name


def quantised(weight: np.ndarray, axis: int, limit: int = RANGE) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales, one for each index that is left when `axis` is reduced."""
    scale = np.maximum(np.abs(weight).max(axis=axis, keepdims=True), 1e-12) / limit
    return np.clip(np.round(weight / scale), -limit, limit).astype(np.int8), scale.squeeze(axis).astype(np.float32)


Places = np.ndarray | slice
ALL = slice(None)


def _used(weight: np.ndarray, width: int = 1) -> np.ndarray:
    """Which inputs of `weight` [out, in], in groups of `width`, make a difference; one group at least."""
    groups = np.abs(weight).max(axis=0).reshape(-1, width)
    used = groups.max(axis=1) > 0
    used[0] |= not used.any()
    return np.flatnonzero(np.repeat(used, width))


def bert(
    state: Mapping[str, np.ndarray],
    *,
    heads: int,
    epsilon: float = 1e-12,
    activation: str = "gelu",
    exact: bool = False,
) -> onnx.ModelProto:
    """`state`: float32 tensors by Transformers' names (BertForSequenceClassification). `exact` keeps them floats.

    Input: input_ids, int64 [batch, tokens], of rows of one length (no padding). Output: logits, float32 [batch,
    labels]. All tokens are of type 0. Raises ValueError for another activation than GELU.
    """
    if activation != "gelu":
        raise ValueError(f"the graph computes GELU, the model was trained with {activation!r}")
    g = _Graph()

    def linear(x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """`weight` [out, in] as Transformers has it. Activations get 8 bits as they come, one scale for all."""
        if exact:
            return g.op("Add", g.op("MatMul", x, g.const(weight.T)), g.const(bias))
        values, scales = quantised(weight.T, axis=0)
        zeros = np.zeros(len(scales), np.int8)
        consts = (g.const(values), g.const(scales), g.const(zeros), g.const(bias))
        return g.op("DynamicQuantizeMatMul", x, *consts, domain=RUNTIME)

    def named(x: str, name: str, *, reads: Places = ALL, writes: Places = ALL) -> str:
        return linear(x, state[f"{name}.weight"][writes][:, reads], state[f"{name}.bias"][writes])

    def norm(x: str, name: str) -> str:
        weight, bias = (g.const(state[f"{name}.{k}"]) for k in ("weight", "bias"))
        return g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=epsilon)

    table = "bert.embeddings."
    words = state[table + "word_embeddings.weight"]
    places = state[table + "position_embeddings.weight"] + state[table + "token_type_embeddings.weight"][0]
    hidden = words.shape[1]
    size = hidden // heads
    count = g.op("Gather", g.op("Shape", "input_ids"), g.ints(1), axis=0)
    placed = g.op("Slice", g.const(places), g.ints(0), count, g.ints(0))
    if exact:
        read = g.op("Gather", g.const(words), "input_ids")
    else:
        values, scales = quantised(words, axis=1, limit=127)
        read = g.op("Cast", g.op("Gather", g.const(values), "input_ids"), to=TensorProto.FLOAT)
        read = g.op("Mul", read, g.op("Gather", g.const(scales[:, None]), "input_ids"))
    x = norm(g.op("Add", read, placed), table + "LayerNorm")
    layers = sum(k.endswith(".output.LayerNorm.weight") and ".attention." not in k for k in state)
    for layer in range(layers):
        own = f"bert.encoder.layer.{layer}."
        spoken = _used(state[own + "attention.output.dense.weight"], size)
        units = _used(state[own + "output.dense.weight"])
        width = len(spoken)  # of all heads that are left
        attention = [own + f"attention.self.{n}" for n in ("query", "key", "value")]
        weights, biases = ([state[f"{n}.{k}"][spoken] for n in attention] for k in ("weight", "bias"))
        weights[0], biases[0] = weights[0] * size**-0.5, biases[0] * size**-0.5
        if layer < layers - 1:
            apart, together = g.ints(0, 0, width // size, size), g.ints(0, 0, width)
            all_three = linear(x, np.concatenate(weights), np.concatenate(biases))
            q = g.op("Split", all_three, g.ints(width, width, width), outputs=3, axis=-1)
            q, k, v = (
                g.op("Transpose", g.op("Reshape", t, apart), perm=p)
                for t, p in ((q, [0, 2, 1, 3]), (f"{q}_1", [0, 2, 3, 1]), (f"{q}_2", [0, 2, 1, 3]))
            )
            seen = g.op("MatMul", g.op("Softmax", g.op("MatMul", q, k), axis=-1), v)
            seen = g.op("Reshape", g.op("Transpose", seen, perm=[0, 2, 1, 3]), together)
        else:
            # (q Wk) x = q (Wk x), and the sum of p Wv x is Wv times the sum of p x; the key's bias shifts all alike.
            key, value = (w.reshape(1, -1, size, hidden) for w in weights[1:])
            every, x = x, g.op("Gather", x, g.ints(0), axis=1)
            q = g.op("Reshape", linear(x, weights[0], biases[0]), g.ints(0, width // size, 1, size))
            sought = g.op("Transpose", g.op("Squeeze", g.op("MatMul", q, g.const(key)), g.ints(2)), perm=[0, 2, 1])
            found = g.op("Transpose", g.op("MatMul", every, sought), perm=[0, 2, 1])
            seen = g.op("Unsqueeze", g.op("MatMul", g.op("Softmax", found, axis=-1), every), g.ints(2))
            seen = g.op("MatMul", seen, g.const(value.transpose(0, 1, 3, 2)))
            seen = g.op("Add", g.op("Reshape", seen, g.ints(0, 1, width)), g.const(biases[2]))
        told = named(seen, own + "attention.output.dense", reads=spoken)
        x = norm(g.op("Add", told, x), own + "attention.output.LayerNorm")
        h = g.op("Gelu", named(x, own + "intermediate.dense", writes=units), domain=RUNTIME)
        x = norm(g.op("Add", named(h, own + "output.dense", reads=units), x), own + "output.LayerNorm")
    pooled = g.op("Tanh", named(g.op("Squeeze", x, g.ints(1)), "bert.pooler.dense"))
    weight, bias = g.const(state["classifier.weight"].T), g.const(state["classifier.bias"])
    g.op("Add", g.op("MatMul", pooled, weight), bias)
    g.nodes[-1].output[0] = "logits"
    labels = state["classifier.weight"].shape[0]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])]
    graph = helper.make_graph(g.nodes, "detector", inputs, outputs, g.constants)
    sets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8)
    onnx.checker.check_model(model)
    return model

"""A BERT classifier's weights as an ONNX graph, written out operation by operation.

torch's exporters trace Transformers' code, whose mask handling the older one gets wrong for other lengths than the
traced one, and the newer one needs two more packages. The architecture has not changed since 2018, so it stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


def bert(
    state: Mapping[str, np.ndarray], *, heads: int, epsilon: float = 1e-12, activation: str = "gelu"
) -> onnx.ModelProto:
    """`state`: float32 tensors by Transformers' names (BertForSequenceClassification).

    Inputs: input_ids and attention_mask, int64 [batch, tokens]; output: logits, float32 [batch, labels]. All tokens are
    of type 0. Raises ValueError for another activation than GELU.
    """
    if activation != "gelu":
        raise ValueError(f"the graph computes GELU, the model was trained with {activation!r}")
    g = _Graph()

    def linear(x: str, name: str) -> str:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return g.op("Add", g.op("MatMul", x, g.const(weight.T)), g.const(bias))

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
    x = norm(g.op("Add", g.op("Gather", g.const(words), "input_ids"), placed), table + "LayerNorm")
    hole = g.op("Sub", g.const(np.float32(1)), g.op("Cast", "attention_mask", to=TensorProto.FLOAT))
    hole = g.op("Unsqueeze", g.op("Mul", hole, g.const(np.float32(-1e4))), g.ints(1, 2))
    apart, together = g.ints(0, 0, heads, size), g.ints(0, 0, hidden)
    scale = g.const(np.float32(size**-0.5))
    layer = 0
    while f"bert.encoder.layer.{layer}.output.dense.weight" in state:
        own = f"bert.encoder.layer.{layer}."
        q, k, v = (g.op("Reshape", linear(x, f"{own}attention.self.{n}"), apart) for n in ("query", "key", "value"))
        q, v = (g.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1])), scale)
        read = g.op("MatMul", g.op("Softmax", g.op("Add", scores, hole), axis=-1), v)
        read = g.op("Reshape", g.op("Transpose", read, perm=[0, 2, 1, 3]), together)
        x = norm(
            g.op("Add", linear(read, own + "attention.output.dense"), x),
            own + "attention.output.LayerNorm",
        )
        h = linear(x, own + "intermediate.dense")
        bell = g.op("Erf", g.op("Mul", h, g.const(np.float32(0.5**0.5))))
        h = g.op("Mul", g.op("Mul", h, g.const(np.float32(0.5))), g.op("Add", bell, g.const(np.float32(1))))
        x = norm(g.op("Add", linear(h, own + "output.dense"), x), own + "output.LayerNorm")
        layer += 1
    first = g.op("Gather", x, g.const(np.array(0, np.int64)), axis=1)
    out = linear(g.op("Tanh", linear(first, "bert.pooler.dense")), "classifier")
    g.op("Identity", out)
    g.nodes[-1].output[0] = "logits"
    labels = state["classifier.weight"].shape[0]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"])
        for n in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])]
    graph = helper.make_graph(g.nodes, "detector", inputs, outputs, g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model

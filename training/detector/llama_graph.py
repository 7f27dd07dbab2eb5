"""The lower layers of a Llama-like model and a linear head as an ONNX graph without weights: the second stage.

The weights are another package's, and come when the graph is opened (`eyelid.detectors.scorers.base_weights`); the
text's word vectors come with each call. What is read out is the mean of the answer's states, so there is no language
head and no cache.

- The scale of each norm is part of the weights that read it, so that a norm is a division.
- Weights are signed bytes with one scale for each output. Activations get one scale for all tokens, which the first
  token would spoil: language models park attention on it, with states a thousand times as large as others'. The frame's
  first words are the same for every text, so their keys and values are constants here and nothing else of them is left.
- Query, key and value are one product, gate and up another; attention is ONNX Runtime's own. It turns neighbouring
  numbers, as ggml orders them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from eyelid.train.bert_graph import OPSET, RUNTIME, _Graph

#: The longest text, in tokens, that the graph has places for.
PLACES = 1024


def rotary(size: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of each place, float32 [PLACES, size / 2]."""
    angle = np.arange(PLACES)[:, None] / base ** (np.arange(0, size, 2) / size)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def ggml_order(keys: np.ndarray) -> np.ndarray:
    """Transformers' keys [..., size] with the two numbers that a place turns side by side, as ggml has them."""
    return keys.reshape(*keys.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(keys.shape)


def llama(before: np.ndarray, *, width: int, units: int, heads: int, base: float, epsilon: float) -> onnx.ModelProto:
    """`before`: the frame's keys (turned to their places, ggml's order) and values, float32 [layers, 2, key heads,
    tokens, size]; it says how many layers there are.

    Inputs: embeds, float32 [1, tokens, width]; answer_mask, float32 [1, tokens], 1 where the answer is. Output: mean,
    float32 [1, width], of the answer's states after the last layer, each divided by its root mean square. The weights
    are constants that are not there yet: "layer.name.values", int8 [inputs, outputs], and "layer.name.scales", float32
    [outputs] (`base_weights.initializer`).
    """
    g = _Graph()
    layers, _, shared, frame, size = before.shape
    cosine, sine = (g.const(x) for x in rotary(size, base))
    tiny, nothing = g.const(np.float32(epsilon)), g.const(np.float32(1e-12))
    count = g.op("Cast", g.op("Gather", g.op("Shape", "embeds"), g.ints(1), axis=0), to=TensorProto.INT32)
    last = g.op("Add", count, g.const(np.array([frame - 1], np.int32)))
    total = g.op("Add", g.op("Squeeze", count, g.ints(0)), g.const(np.int32(frame)))

    def linear(x: str, name: str, outputs: int) -> str:
        none = (g.const(np.zeros(outputs, np.int8)), g.const(np.zeros(outputs, np.float32)))
        largest = g.op("Max", g.op("ReduceMax", g.op("Abs", x), axes=[-1], keepdims=1), nothing)
        weights = (f"{name}.values", f"{name}.scales", *none)
        return g.op("Mul", g.op("DynamicQuantizeMatMul", g.op("Div", x, largest), *weights, domain=RUNTIME), largest)

    def normed(x: str) -> str:
        square = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
        return g.op("Div", x, g.op("Sqrt", g.op("Add", square, tiny)))

    x = "embeds"
    for layer in range(layers):
        past = [g.const(np.ascontiguousarray(before[layer, i][None])) for i in (0, 1)]
        # Key and value stand in the query.
        three = linear(normed(x), f"{layer}.three", width + 2 * shared * size)
        inputs = (three, "", "", *past, last, total, cosine, sine)
        turned = {"num_heads": heads, "kv_num_heads": shared, "do_rotary": 1, "rotary_interleaved": 1}
        seen = g.op("GroupQueryAttention", *inputs, outputs=3, domain=RUNTIME, **turned)
        x = g.op("Add", x, linear(seen, f"{layer}.told", width))
        both = linear(normed(x), f"{layer}.both", 2 * units)
        gate = g.op("Split", both, g.ints(units, units), outputs=2, axis=-1)
        gated = g.op("Mul", g.op("QuickGelu", gate, domain=RUNTIME, alpha=1.0), f"{gate}_1")
        x = g.op("Add", x, linear(gated, f"{layer}.down", width))
    told = g.op("Squeeze", g.op("MatMul", g.op("Unsqueeze", "answer_mask", g.ints(1)), normed(x)), g.ints(1))
    g.op("Div", told, g.op("ReduceSum", "answer_mask", g.ints(1), keepdims=1))
    g.nodes[-1].output[0] = "mean"
    inputs_ = [
        helper.make_tensor_value_info("embeds", TensorProto.FLOAT, [1, "tokens", width]),
        helper.make_tensor_value_info("answer_mask", TensorProto.FLOAT, [1, "tokens"]),
    ]
    outputs_ = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, width])]
    graph = helper.make_graph(g.nodes, "second stage", inputs_, outputs_, g.constants)
    sets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)

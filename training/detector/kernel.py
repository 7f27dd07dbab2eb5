"""What answers like this one were: a support vector machine on the words' means, beside the words' line.

    python -m training.detector.kernel --rows runs/detector/data/rows.jsonl --encoder runs/detector/encoder \
        --base runs/detector/base --out runs/detector/kernel.npz

A line over mean word vectors cannot say that an answer speaks of what the question asked for, and a kernel can
(docs/log/2026-11-21-harm-detector.md). Its inputs are the means of `words.means`, question and answer apart, each along
its `SIDES` main directions. A mean of vectors, and a projection of it, is a mean of projected vectors: serving looks
up `SIDES` small numbers for each word piece, and compares their means with some thousand kept ones.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from sklearn.svm import SVC
from tokenizers import Tokenizer

from eyelid.detectors.scorers.onnx import Onnx
from eyelid.train.bert_graph import quantised
from eyelid.train.splits import part

from .evaluate import read
from .words import PYRIT, draw, means, vectors

#: Main directions of the answer's mean, and as many of the question's.
SIDES = 64
#: Of the machine: what an error costs, and how fast likeness falls with the squared distance.
COST, GAMMA = 1.0, 0.5
#: How much of a margin is added to the words' logit, which has its own weight.
WEIGHT = 1.5


@dataclass(frozen=True, slots=True)
class Machine:
    """Harm of a place in the space of means, as a margin: positive for harm.

    `answer`, `question`: float32 [vocabulary, sides], where each word piece lies. `origin` [2 x sides] is taken from
    the two means. `kept` [vectors, 2 x sides] and `weights` [vectors]: the support vectors.
    """

    answer: np.ndarray
    question: np.ndarray
    origin: np.ndarray
    kept: np.ndarray
    weights: np.ndarray
    bias: float

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """`places`: [rows, 2 x sides], means of `answer` and `question` over a row's pieces."""
        apart = (places - self.origin)[:, None] - self.kept[None]
        out: np.ndarray = np.exp(-GAMMA * (apart**2).sum(-1)) @ self.weights + self.bias
        return out


def directions(features: np.ndarray, sides: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of `features` [rows, size], and [size, sides] that turns standardised ones to their main directions."""
    middle, spread = features.mean(0), features.std(0) + 1e-6
    scaled = ((features - middle) / spread).astype(np.float64)
    turned = np.linalg.eigh(scaled.T @ scaled)[1][:, -sides:]
    return middle, (turned / spread[:, None]).astype(np.float32)


def fit(features: np.ndarray, harmful: np.ndarray, weights: np.ndarray, known: np.ndarray, sides: int) -> Machine:
    """`features`: [rows, 2 x vector size] of `words.means`; `known`: the pieces' vectors."""
    size = known.shape[1]
    halves = [directions(features[:, half : half + size], sides) for half in (0, size)]
    places = np.concatenate(
        [(features[:, i * size : (i + 1) * size] - m) @ turn for i, (m, turn) in enumerate(halves)], 1
    )
    unit = float(places.std() * places.shape[1] ** 0.5)
    model = SVC(C=COST, gamma=GAMMA).fit(places / unit, harmful, weights)
    return Machine(
        known @ halves[0][1] / unit,
        known @ halves[1][1] / unit,
        np.concatenate([m @ turn for m, turn in halves]) / unit,
        model.support_vectors_.astype(np.float32),
        model.dual_coef_[0].astype(np.float32),
        float(model.intercept_[0]),
    )


def graft(model: onnx.ModelProto, machine: Machine, weight: float = WEIGHT) -> None:
    """Adds `weight` times the margin to the words' logit, under the words' bound, in place; after `words.graft`.

    The pieces' places stay in 8 bits, one scale for each piece.
    """
    graph = model.graph
    consts: dict[str, np.ndarray | np.generic] = {
        "k_origin": machine.origin.astype(np.float32),
        "k_kept": np.ascontiguousarray(2 * GAMMA * machine.kept.T, np.float32),
        "k_far": (-GAMMA * (machine.kept**2).sum(1)).astype(np.float32),
        "k_gamma": np.float32(-GAMMA),
        "k_weights": (weight * machine.weights[:, None]).astype(np.float32),
        "k_bias": np.float32(weight * machine.bias),
        "k_side": np.array([1], np.int64),
    }
    nodes: list[tuple[str, list[str], str, dict[str, int]]] = []
    for half, table, mask in (("a", machine.answer, "w_told"), ("q", machine.question, "w_rest")):
        values, scales = quantised(table, axis=1, limit=127)
        consts |= {f"k_{half}_values": values, f"k_{half}_scales": scales[:, None]}
        nodes += [
            ("Gather", [f"k_{half}_values", "input_ids"], f"k_{half}_eight", {"axis": 0}),
            ("Cast", [f"k_{half}_eight"], f"k_{half}_floats", {"to": TensorProto.FLOAT}),
            ("Gather", [f"k_{half}_scales", "input_ids"], f"k_{half}_scale", {"axis": 0}),
            ("Mul", [f"k_{half}_scale", mask], f"k_{half}_share", {}),
            ("Mul", [f"k_{half}_floats", f"k_{half}_share"], f"k_{half}_kept", {}),
            ("ReduceSum", [f"k_{half}_kept", "w_tokens"], f"k_{half}_sum", {"keepdims": 0}),
            ("ReduceSum", [mask, "w_tokens"], f"k_{half}_count", {"keepdims": 0}),
            ("Max", [f"k_{half}_count", "w_one"], f"k_{half}_some", {}),
            ("Div", [f"k_{half}_sum", f"k_{half}_some"], f"k_{half}_mean", {}),
        ]
    nodes += [
        ("Concat", ["k_a_mean", "k_q_mean"], "k_means", {"axis": 1}),
        ("Sub", ["k_means", "k_origin"], "k_place", {}),
        ("Mul", ["k_place", "k_place"], "k_squares", {}),
        ("ReduceSum", ["k_squares", "k_side"], "k_square", {"keepdims": 1}),
        ("Mul", ["k_square", "k_gamma"], "k_own", {}),
        ("MatMul", ["k_place", "k_kept"], "k_alike", {}),
        ("Add", ["k_alike", "k_far"], "k_nearer", {}),
        ("Add", ["k_nearer", "k_own"], "k_power", {}),
        ("Exp", ["k_power"], "k_likeness", {}),
        ("MatMul", ["k_likeness", "k_weights"], "k_margin", {}),
        ("Add", ["k_margin", "k_bias"], "k_told", {}),
        ("Add", ["w_logit", "k_told"], "k_logit", {}),
    ]
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in consts.items())
    (place,) = (i for i, n in enumerate(graph.node) if "w_bounded" in n.output)
    graph.node[place].input[0] = "k_logit"
    for i, (kind, given, out, more) in enumerate(nodes):
        graph.node.insert(place + i, helper.make_node(kind, given, [out], name=out, **more))
    onnx.checker.check_model(model)


def load(path: Path) -> Machine:
    with np.load(path) as found:
        return Machine(**{k: found[k] for k in found if k != "bias"}, bias=float(found["bias"]))


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rows", type=Path, required=True, help="rows.jsonl of training.detector.data")
    a.add_argument("--encoder", type=Path, required=True, help="the detector without words (training.detector.export)")
    a.add_argument("--base", type=Path, required=True, help="what training.detector.base wrote")
    a.add_argument("--out", type=Path, required=True)
    o = a.parse_args()
    scorer = Onnx(o.encoder)
    words = load_file(o.base / "model.safetensors")["bert.embeddings.word_embeddings.weight"].astype(np.float32)
    known = vectors(words, Tokenizer.from_file(str(o.base / "tokenizer.json")).get_vocab())
    train = [r for r in read(o.rows) if r.weight > 0 and part(r.key) == "train"]
    some = [train[i] for i in draw(train, 0)]
    weights = np.array([r.weight * (PYRIT if r.source == "pyrit" else 1) for r in some])
    machine = fit(means(scorer, some, known), np.array([r.harm >= 0.5 for r in some]), weights, known, SIDES)
    print(f"{len(machine.kept)} support vectors of {len(some)} rows")
    np.savez(o.out, **asdict(machine))


if __name__ == "__main__":
    main()

"""What the words alone say: a linear part beside the encoder, one number a word piece, fitted on people's labels.

    python -m training.detector.words --rows runs/detector/data/rows.jsonl --encoder runs/detector/encoder \
        --base runs/detector/base --out runs/detector/words.npz

A fine-tuned encoder learns its sources by heart; a linear model of mean word vectors cannot, and errs elsewhere
(docs/log). The vectors are MiniLM's and, for each word piece, SmolLM2's of the same letters, which know more of words;
question and answer have means of their own. Since the model is linear in the means, each word piece comes down to a
number for its use in an answer and one for its use in a question, so that serving costs a look-up. Half a dozen draws
of rows that are balanced by source and kind are fitted (logistic regression) and averaged.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer

from eyelid.detectors.scorers.onnx import ANSWER_MASK, Onnx
from eyelid.formatting import windows
from eyelid.train.rows import Row
from eyelid.train.scoring import answers
from eyelid.train.splits import part

from .evaluate import read

#: How far the words can move a logit: without a bound, an answer padded with harmless words would outvote the encoder.
LIMIT = 3.0
#: Rows a draw takes at most, by source and kind. The others are variants, which take more from plain answers than they
#: give.
SHARES = {
    ("gptfuzz", "attack"): 900,
    ("jailbreakbench", "attack"): 700,
    **dict.fromkeys((("pyrit", k) for k in ("harm", "objective", "example", "refusal")), 9999),
    **dict.fromkeys((("", k) for k in ("scary", "guide", "form", "everyday", "sober")), 80),
    **dict.fromkeys((("", k) for k in ("refusal", "excerpt")), 150),
    ("", "list"): 300,
    ("", "pointed"): 100,
}
DRAWS, STRENGTH = 6, 0.01
#: How much of it is added to the encoder's logit. The dev part, of sources that the encoder knows, says 0; answers of
#: others say 0.5 to 1 (Safe-RLHF mini, XSTest, PyRIT's held-out questions, and its dev answers on "objective").
WEIGHT = 0.7
#: PyRIT's rows count so much: they are few, and the only ones that are short and plain.
PYRIT = 4.8


@dataclass(frozen=True, slots=True)
class Line:
    """A logit, positive for harm, is `slopes` times the two means of an input, and `bias`."""

    slopes: np.ndarray
    bias: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        out: np.ndarray = features @ self.slopes + self.bias
        return out

    def tables(self, known: np.ndarray) -> np.ndarray:
        """float32 [vocabulary, 2]: what each piece adds to the mean of an answer, and to that of the rest."""
        return (known @ self.slopes.reshape(2, -1).T).astype(np.float32)


def vectors(embeddings: np.ndarray, vocabulary: dict[str, int]) -> np.ndarray:
    """[vocabulary, MiniLM's + SmolLM2's size], each half of variance one.

    `embeddings`: MiniLM's word vectors. A word piece's second half is the mean of SmolLM2's vectors of its letters.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.tiny.language import gguf_path

    path = gguf_path()
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name)
    table = model.get_input_embeddings().weight.detach().float().numpy()
    pieces = sorted(vocabulary, key=lambda w: vocabulary[w])
    spelled = tokenizer([w.removeprefix("##") if w.startswith("##") else f" {w}" for w in pieces])["input_ids"]
    other = np.stack([table[ids].mean(0) for ids in spelled])
    return np.concatenate([embeddings / embeddings.std(), other / other.std()], axis=1)


def means(scorer: Onnx, found: Sequence[Row], known: np.ndarray) -> np.ndarray:
    """[rows, 2 x vector size]: mean vector of the answer's pieces, and of all others, in the first window."""
    out = np.zeros((len(found), 2 * known.shape[1]), np.float32)
    for i, (q, a) in enumerate(answers(found)):
        cut = windows(q, a, tokens=scorer.tokens, room=scorer.room, overlap=scorer.overlap)
        ids, mask = scorer.encoded(*cut.pairs[0])
        told = np.array(mask, bool)
        for half, which in enumerate((told, ~told)):
            if which.any():
                out[i, half * known.shape[1] : (half + 1) * known.shape[1]] = known[np.array(ids)[which]].mean(0)
    return out


def draw(found: Sequence[Row], seed: int) -> np.ndarray:
    """Places of the rows that one draw takes."""
    order = np.random.default_rng(seed).permutation(len(found))
    left, taken = dict(SHARES), []
    for i in order:
        r = found[i]
        share = (r.source, r.kind) if (r.source, r.kind) in left else ("", r.kind)
        if left.get(share, 0) > 0:
            left[share] -= 1
            taken.append(i)
    return np.array(taken)


def fit(found: Sequence[Row], features: np.ndarray) -> Line:
    """The mean of `DRAWS` logistic regressions."""
    labels = np.array([r.harm >= 0.5 for r in found])
    weights = np.array([r.weight * (PYRIT if r.source == "pyrit" else 1) for r in found])
    slopes, bias = np.zeros(features.shape[1]), 0.0
    for seed in range(DRAWS):
        rows = draw(found, seed)
        scaler = StandardScaler().fit(features[rows])
        model = LogisticRegression(C=STRENGTH, max_iter=400)
        model.fit(scaler.transform(features[rows]), labels[rows], weights[rows])
        slope = model.coef_[0] / scaler.scale_
        slopes += slope / DRAWS
        bias += float(model.intercept_[0] - slope @ scaler.mean_) / DRAWS
    return Line(slopes, bias)


def graft(model: onnx.ModelProto, tables: np.ndarray, bias: float) -> None:
    """Adds the words' part to a graph of `eyelid.train.bert_graph`, in place, bounded by `LIMIT`.

    `tables`: float32 [vocabulary, 2] (`Line.tables`). The graph then wants `ANSWER_MASK`, float32 [batch, tokens], 1
    for the answer's tokens.
    """
    graph = model.graph
    consts = {"w_tables": tables, "w_one": np.float32(1), "w_bias": np.float32(bias),
              "w_low": np.float32(-LIMIT), "w_high": np.float32(LIMIT), "w_last": np.array([2], np.int64),
              "w_tokens": np.array([1], np.int64)}  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in consts.items())
    (last,) = (n for n in graph.node if "logits" in n.output)
    last.output[list(last.output).index("logits")] = "encoder_logits"
    nodes = [
        ("Unsqueeze", [ANSWER_MASK, "w_last"], "w_told", {}),
        ("Sub", ["w_one", "w_told"], "w_rest", {}),
        ("Concat", ["w_told", "w_rest"], "w_both", {"axis": 2}),
        ("Gather", ["w_tables", "input_ids"], "w_said", {"axis": 0}),
        ("Mul", ["w_said", "w_both"], "w_kept", {}),
        ("ReduceSum", ["w_kept", "w_tokens"], "w_sums", {"keepdims": 0}),
        ("ReduceSum", ["w_both", "w_tokens"], "w_counts", {"keepdims": 0}),
        ("Max", ["w_counts", "w_one"], "w_some", {}),
        ("Div", ["w_sums", "w_some"], "w_means", {}),
        ("ReduceSum", ["w_means", "w_tokens"], "w_sum", {"keepdims": 1}),
        ("Add", ["w_sum", "w_bias"], "w_logit", {}),
        ("Clip", ["w_logit", "w_low", "w_high"], "w_bounded", {}),
        ("Add", ["encoder_logits", "w_bounded"], "logits", {}),
    ]
    graph.node.extend(helper.make_node(k, i, [o], name=o, **a) for k, i, o, a in nodes)
    graph.input.append(helper.make_tensor_value_info(ANSWER_MASK, TensorProto.FLOAT, ["batch", "tokens"]))
    onnx.checker.check_model(model)


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
    taken = np.unique(np.concatenate([draw(train, seed) for seed in range(DRAWS)]))
    features = np.zeros((len(train), 2 * known.shape[1]), np.float32)
    features[taken] = means(scorer, [train[i] for i in taken], known)
    line = fit(train, features)
    low, middle, high = np.quantile(WEIGHT * line(features[taken]), [0.01, 0.5, 0.99])
    of = f"98 % of the {len(taken)} training rows that were drawn"
    print(f"added to the encoder's logit: {low:.2f} to {high:.2f} ({of}), median {middle:.2f}")
    np.savez(o.out, tables=WEIGHT * line.tables(known), bias=WEIGHT * line.bias)


if __name__ == "__main__":
    main()

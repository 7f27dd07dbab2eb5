"""What a detector must beat: refusal keywords, TF-IDF with logistic regression, the encoder as it came with one.

    python -m training.detector.baselines --data DATA --rows runs/detector/data/rows.jsonl --out runs/detector/baselines

writes the scores of each for every set of `evaluate.held_out`. The two that learn see the same training rows as the
detector, with the same weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from eyelid.train.rows import Row
from eyelid.train.scoring import answers
from eyelid.train.splits import part

from .data import REFUSAL
from .evaluate import arguments, held_out, read
from .topics import embeddings

Score = Callable[[Sequence[Row]], list[float]]
#: So many training rows are embedded, by a fixed seed: embedding all takes longer than training the detector.
EMBEDDED = 3000


def keywords(found: Sequence[Row]) -> list[float]:
    """Harmful unless the answer has a word of refusal: the matching that attack papers use."""
    return [0.0 if REFUSAL.search(r.answer) else 1.0 for r in found]


def tfidf(train: Sequence[Row]) -> Score:
    texts = [f"{q} || {a}" for q, a in answers(train)]
    words = make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=4, sublinear_tf=True, max_features=60000),
    )
    known = words.fit_transform(texts)
    model = LogisticRegression(C=8, max_iter=300)
    model.fit(known, [int(r.harm >= 0.5) for r in train], [r.weight for r in train])
    return lambda found: _harm(model, words.transform([f"{q} || {a}" for q, a in answers(found)]))


def frozen(train: Sequence[Row]) -> Score:
    """all-MiniLM-L6-v2 as published, question and answer embedded apart, and a linear head."""
    some = np.random.default_rng(0).permutation(len(train))[:EMBEDDED]
    chosen = [train[i] for i in some]
    model = LogisticRegression(C=4, max_iter=1000)
    model.fit(_embedded(chosen), [int(r.harm >= 0.5) for r in chosen], [r.weight for r in chosen])
    return lambda found: _harm(model, _embedded(found))


def _embedded(found: Sequence[Row]) -> np.ndarray:
    questions = sorted({r.question for r in found})
    place = {q: i for i, q in enumerate(questions)}
    asked = embeddings(questions, 48)[[place[r.question] for r in found]]
    told = embeddings([r.answer for r in found], 128)
    return torch.cat([asked, told, asked * told], dim=1).numpy()


def _harm(model: LogisticRegression, features: object) -> list[float]:
    scores: list[float] = model.predict_proba(features)[:, 1].tolist()
    return scores


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(a)
    a.add_argument("--out", type=Path, required=True)
    o = a.parse_args()
    torch.set_num_threads(1)
    train = [r for r in read(o.rows) if part(r.key) == "train" and r.weight > 0]
    sets = held_out(o.data, o.rows, o.pyrit)
    o.out.mkdir(parents=True, exist_ok=True)
    for name, make in (("keywords", lambda _: keywords), ("tfidf", tfidf), ("frozen encoder", frozen)):
        score: Score = make(train)  # type: ignore[no-untyped-call]
        scores = {key: score(found) for key, found in sets.items()}
        (o.out / f"{name}.json").write_text(json.dumps(scores), encoding="utf-8")
        print(f"{name} done", flush=True)


if __name__ == "__main__":
    main()

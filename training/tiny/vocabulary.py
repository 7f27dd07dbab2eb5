"""The words on pages, and the word pieces that the language model reads them as."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

#: The words of one or two letters; dictionaries list every pair of letters as one.
SHORT = {
    "a", "an", "as", "at", "be", "by", "do", "go", "he", "if", "in", "is",
    "it", "me", "my", "no", "of", "on", "or", "so", "to", "up", "us", "we",
}  # fmt: skip


class Vocabulary:
    """The words that pages are made of, and the word-piece classes they are read as.

    Class 0 is "no text". A word's frequency rank is taken from the order of the tokenizer's merges. `also` are words
    that are never drawn by chance, but have classes.
    """

    def __init__(
        self,
        tokenizer,
        extra: Path = Path("/usr/share/dict/words"),
        size: int = 11000,
        multi: int = 6000,
        seed: int = 0,
        also: Iterable[str] = (),
    ):  # type: ignore[no-untyped-def]
        self.tokenizer = tokenizer
        vocab = sorted(tokenizer.get_vocab().items(), key=lambda kv: kv[1])
        single = [t[1:] for t, _ in vocab if t.startswith("Ġ") and t[1:].isascii() and t[1:].isalpha()]
        listed = [w for w in extra.read_text().split() if w.isascii() and w.isalpha() and w.islower()]
        real = SHORT | {w for w in listed if len(w) > 2}
        self.single = [w for w in single if w in real][:size]
        rng = random.Random(seed)
        words = [w for w in listed if 5 < len(w) < 15]
        rng.shuffle(words)
        have = set(self.single)
        self.multi = [w for w in words if w not in have][:multi]
        self.classes: list[int] = [tokenizer.encode(" ", add_special_tokens=False)[0]]
        self._index: dict[int, int] = {}
        self._cache: dict[str, list[tuple[int, int]]] = {}
        for w in [*self.single, *self.multi, "1.", "2.", "3.", "it,", "it's", *also]:
            for form in (w, w + ".", w.capitalize()):
                self.pieces(form)
        self.frozen = True

    def pieces(self, word: str) -> list[tuple[int, int]]:
        if word not in self._cache:
            out, end = [], 0
            for t in self.tokenizer.encode(" " + word, add_special_tokens=False):
                end += len(self.tokenizer.decode([t]).strip())
                if t not in self._index and not getattr(self, "frozen", False):
                    self._index[t] = len(self.classes)
                    self.classes.append(t)
                out.append((self._index.get(t, 0), end))
            self._cache[word] = out
        return self._cache[word]

    def sample(self, rng: random.Random, n: int, level: float) -> list[str]:
        """`n` random words; `level` in [0, 1] widens the vocabulary (400 to all) and the length (6 to 15 letters)."""
        size, longest = int(400 * (len(self.single) / 400) ** level), 6 + int(9 * level)
        words: list[str] = []
        while len(words) < n:
            if level > 0.5 and self.multi and rng.random() < 0.12:
                w = rng.choice(self.multi)
            else:
                # A third uniform, the rest towards frequent words, as texts are.
                u = rng.random()
                w = self.single[int(size * (u if rng.random() < 0.35 else u**2.5))]
            if len(w) <= longest:
                words.append(w)
        for i, w in enumerate(words):
            words[i] = w + ("," if (u := rng.random()) < 0.04 else "'s" if u < 0.07 else "")
        if rng.random() < 0.6:
            words[0] = words[0].capitalize()
        if rng.random() < 0.5:
            words[-1] = words[-1].removesuffix(",") + "."
        return words

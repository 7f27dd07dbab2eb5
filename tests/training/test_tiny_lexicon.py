"""Word pieces are known by their letters: a word that was never shown, by what its letters look like in others."""

from __future__ import annotations

import random
from argparse import Namespace
from itertools import product

import pytest

pytest.importorskip("peft", reason="training needs the extra `train`")

import torch

from training.tiny import refit
from training.tiny.lexicon import FIRST, LAST, MIDDLE, Lexicon, as_memory, is_word, learn, spelling, worth_a_unit
from training.tiny.tower import Reader, vision_config

HIDDEN, TEXT = 64, 48
#: A blank, and words of three letters out of five.
TOKENS = ["Ġ", *sorted(f"Ġ{a}{b}{c}" for a, b, c in product("aeiou", repeat=3))]


def shown(pieces: torch.Tensor) -> torch.Tensor:
    """What a tower might see: each letter in its place adds a vector of its own; of a blank, anything."""
    torch.manual_seed(3)
    letters = torch.randn(3, 26, HIDDEN)
    word = [
        sum(letters[k, ord(c) - 97] for k, c in enumerate(t[1:])) if len(t) > 1 else torch.zeros(HIDDEN) for t in TOKENS
    ]
    seen = torch.stack(word)[pieces]  # type: ignore[arg-type]
    return seen + torch.where(pieces == 0, 1.0, 0.15).unsqueeze(1) * torch.randn(len(pieces), HIDDEN)


@pytest.fixture(scope="module")
def learnt() -> tuple[Lexicon, refit.Seen, list[int]]:
    """A lexicon that was shown four words of five; and the words that it was not."""
    unseen = random.Random(0).sample(range(1, len(TOKENS)), len(TOKENS) // 5)
    known = torch.tensor([0, *(n for n in range(1, len(TOKENS)) if n not in unseen)]).repeat(20)
    seen = (shown(known), known, torch.zeros_like(known))
    torch.manual_seed(0)
    lexicon = Lexicon(HIDDEN, TOKENS)
    assert learn(lexicon, seen[0], seen[1], minutes=0, steps=120, patches=256, negatives=200) == 120
    return lexicon, seen, unseen


def test_a_word_that_was_never_shown_is_known_by_its_letters(learnt: tuple[Lexicon, refit.Seen, list[int]]) -> None:
    lexicon, _, unseen = learnt
    pieces = torch.tensor(unseen)
    with torch.no_grad():
        above = lexicon(shown(pieces), torch.arange(len(TOKENS)))
    assert (above.argmax(-1) == pieces).float().mean() > 0.9


def test_thresholds_are_above_zero_for_the_right_word_and_below_for_most_others(
    learnt: tuple[Lexicon, refit.Seen, list[int]],
) -> None:
    lexicon, (features, pieces, _), _ = learnt
    with torch.no_grad():
        above = lexicon(features, torch.arange(len(TOKENS)))
    words = pieces > 0
    assert (above.gather(1, pieces.unsqueeze(1))[words] > 0).float().mean() > 0.95
    assert (above > 0).sum(1).float()[words].mean() < 2
    assert (above.argmax(-1) == pieces)[~words].float().mean() > 0.8, "of a blank, nothing is read"


def test_a_memory_knows_what_the_keys_know_and_learns_to_point_at_the_embeddings(
    learnt: tuple[Lexicon, refit.Seen, list[int]],
) -> None:
    lexicon, seen, _ = learnt
    torch.manual_seed(0)
    r = Reader(vision_config(HIDDEN, 2, 128), torch.randn(len(TOKENS), TEXT))
    r.memory = as_memory(lexicon, seen[0], seen[1], r.embeddings, r.projector, 150)
    cosine, nearest = refit.told(r, seen)["figstep"]
    assert cosine > 0.85
    assert nearest > 0.95
    o = Namespace(lr=1e-2, minutes=0, steps=200, patches=128, negatives=20, near=4.0, sharpness=30.0)
    assert refit.fit(r, seen, o) == 200
    after = refit.told(r, seen)
    assert 1 - after["figstep"][0] < 0.7 * (1 - cosine)
    assert after["gaps"][1] > 0.8


def test_plain_words_have_units_first_then_capitals_and_what_is_shown_most_in_turn() -> None:
    tokens = ["Ġ", "Ġred", "ĠRed", "ing", "ed", "Ġblue", "ĠBlue"]
    lexicon = Lexicon(HIDDEN, tokens)
    assert lexicon.plain.tolist() == [False, True, False, False, False, True, False]
    pieces = torch.tensor([0, 1, 3, 4, 4, 4, 6, 6])
    assert worth_a_unit(lexicon, torch.bincount(pieces)).tolist() == [1, 5, 2, 4, 6, 3]
    r = Reader(vision_config(HIDDEN, 2, 128), torch.randn(len(tokens), TEXT))
    memory = as_memory(lexicon, torch.randn(8, HIDDEN), pieces, r.embeddings, r.projector, 3)
    keys, _ = lexicon.keys(torch.tensor([1, 5, 2]))
    assert torch.equal(memory[1].fc1.weight, keys)


def test_letters_have_places() -> None:
    tokens = ["Ġ", "Ġcat", "Ġact", "ĠCat", "cat", "Ġcats", "1", "."]
    spelled = spelling(tokens)
    assert not spelled[0].any()
    assert all(spelled[1:].any(1))
    pairs = [(a, b) for a in range(1, len(tokens)) for b in range(a)]
    assert all(not torch.equal(spelled[a], spelled[b]) for a, b in pairs)
    differ = lambda a, b: int((spelled[a] != spelled[b]).sum())  # noqa: E731
    assert differ(1, 3) == 2, "a capital is one feature for another"
    number = lambda row, begin, places: spelled[row, begin : begin + 27 * places].view(places, 27).argmax(-1).tolist()  # noqa: E731
    c, a, t, s = 3, 1, 20, 19
    assert number(5, 0, FIRST) == [c, a, t, s] + [0] * (FIRST - 4)
    assert number(5, 27 * FIRST, LAST) == [s, t, a, c]
    assert number(5, 27 * (FIRST + LAST) + 2, MIDDLE) == [0, 0, c, a, t, s, 0]
    assert number(4, 27 * (FIRST + LAST + MIDDLE) + 2, MIDDLE) == [0, 0, c, a, t, 0, 0]
    assert [is_word(t) for t in tokens] == [False, True, True, True, False, True, False, False]

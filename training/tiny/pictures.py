"""Pictures of a few hundred things, from a colour emoji font, alone or with a caption below, with labels per patch.

The font is Noto Color Emoji (OFL-1.1). A picture is taught in the same currency as text: every patch that its middle
covers stands for the thing's name, so that the language model reads "dog dog dog" where it would read "dog" on a page
of text. One patch alone would be a coin's side where the middle falls between two, and one lesson a picture.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .pages import FONT_DIRS, GRID, PATCH, SIZE, Glyph, Page, Thing, any_font, draw_lines, slope, soften, wrap
from .vocabulary import Vocabulary

EMOJI_FONT, STRIKE = "NotoColorEmoji.ttf", 109  # the font's only bitmap size, pixels

#: Character and the name it is known by here, one or two words. Chosen and named for this project.
THINGS = tuple(
    (char, name)
    for line in Path(__file__).with_name("things.txt").read_text(encoding="utf-8").splitlines()
    for char, _, name in [line.partition(" ")]
)

#: Words that `Vocabulary` must have classes for.
NAMES = tuple(dict.fromkeys(w for _, name in THINGS for w in name.split()))
#: How far from its middle a thing covers patches, in halves of its width and height; corners of its box are empty.
CORE = 0.6


@functools.lru_cache(maxsize=1)
def _emoji() -> ImageFont.FreeTypeFont:
    for base in FONT_DIRS:
        for path in Path(base).rglob(EMOJI_FONT):
            return ImageFont.truetype(str(path), STRIKE)
    raise FileNotFoundError(f"{EMOJI_FONT} not found: apt-get install fonts-noto-color-emoji")


@functools.lru_cache(maxsize=512)
def cutout(char: str) -> Image.Image:
    """The thing alone, RGBA, without its margin."""
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 12), char, font=_emoji(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{EMOJI_FONT} has no picture of U+{ord(char[0]):X}")
    return canvas.crop(box)


def backdrop(rng: random.Random, level: float) -> Image.Image:
    """White at level 0; then plain colours, and slopes between two of them."""
    light = lambda: tuple(rng.randint(150, 255) for _ in range(3))  # noqa: E731
    if rng.random() > level:
        return Image.new("RGB", (SIZE, SIZE), "white")
    if rng.random() < 0.5:
        return Image.new("RGB", (SIZE, SIZE), light())
    mask = slope(rng)
    return Image.composite(Image.new("RGB", (SIZE, SIZE), light()), Image.new("RGB", (SIZE, SIZE), light()), mask)


def turned(char: str, side: float, rng: random.Random, level: float) -> Image.Image:
    """The thing, its longer side of `side` pixels; from level 0.2 turned a little, or its mirror image."""
    thing = cutout(char)
    scale = side / max(thing.size)
    thing = thing.resize((max(8, round(thing.width * scale)), max(8, round(thing.height * scale))))
    if level > 0.2:
        thing = thing.rotate(rng.uniform(-20, 20) * level, Image.Resampling.BICUBIC, expand=True)
        if rng.random() < 0.3:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return thing


def picture(rng: random.Random, level: float, caption: list[str] | None = None) -> tuple[Page, str]:
    """A page with one thing, and the thing's name; `caption`'s words stand below it.

    `level` in [0, 1] widens size, place, turn and background.
    """
    number = rng.randrange(len(THINGS))
    char, name = THINGS[number]
    image, free = backdrop(rng, level), SIZE
    lines: list[str] = []
    if caption:
        size = rng.uniform(24, 32)
        font = any_font(rng, size, level)
        lines = [" ".join(caption[i] for i in line) for line in wrap(caption, int((SIZE - 16) / (size * 0.58)))][:3]
        free = SIZE - int(len(lines) * size * 1.2) - 10
    side = rng.uniform(0.55, 0.95) * free if rng.random() > level else rng.uniform(96, 0.95 * free)
    thing = turned(char, side, rng, level)
    reach = level if rng.random() < level else 0.2
    x = int((SIZE - thing.width) * (0.5 + rng.uniform(-0.5, 0.5) * reach))
    y = int(max(0, free - thing.height) * (0.5 + rng.uniform(-0.5, 0.5) * reach))
    image.paste(thing, (x, y), thing)
    words: list[str] = []
    glyphs: list[Glyph] = []
    if caption:
        words, glyphs = draw_lines(image, lines, font, (rng.randint(4, 16), free + 4), size * 1.2, (0, 0, 0))
    if rng.random() < 0.4 * level:
        image = soften(image, rng)
    return Page(image, " ".join(words), words, glyphs, "picture", covered(number, x, y, thing)), name


def album(rng: random.Random, level: float) -> Page:
    """A page of four to nine things, small and in no strict order: as many lessons for the price of one page."""
    side, image = rng.choice((2, 3, 3)), backdrop(rng, level)
    cell = SIZE / side
    things = list[Thing]()
    for k in range(side * side):
        number = rng.randrange(len(THINGS))
        thing = turned(THINGS[number][0], rng.uniform(max(0.6 * cell, 72), 0.95 * cell), rng, level)
        x = int(cell * (k % side) + rng.random() * max(0.0, cell - thing.width))
        y = int(cell * (k // side) + rng.random() * max(0.0, cell - thing.height))
        image.paste(thing, (x, y), thing)
        things += covered(number, x, y, thing)
    return Page(soften(image, rng) if rng.random() < 0.4 * level else image, "", [], [], "picture", tuple(things))


def random_picture(vocab: Vocabulary, rng: random.Random, level: float) -> tuple[Page, str]:
    """A thing, every other one with one to six random words below it; and its name."""
    return picture(rng, level, vocab.sample(rng, rng.randint(1, 6), level) if rng.random() < 0.5 else None)


def covered(number: int, x: int, y: int, thing: Image.Image) -> tuple[Thing, ...]:
    """The patches whose middle lies in the core of that thing, which stands at (x, y), and that of its own middle."""
    half = thing.width / 2, thing.height / 2
    cx, cy = x + half[0], y + half[1]
    inside = {(int(min(cy, SIZE - 1) // PATCH), int(min(cx, SIZE - 1) // PATCH))}
    for row in range(GRID):
        for column in range(GRID):
            dx, dy = (column + 0.5) * PATCH - cx, (row + 0.5) * PATCH - cy
            if abs(dx) <= CORE * half[0] and abs(dy) <= CORE * half[1]:
                inside.add((row, column))
    return tuple(Thing(THINGS[number][1], number + 1, row, column) for row, column in sorted(inside))

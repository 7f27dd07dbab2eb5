"""Render typographic pages, and say where each character stands on them (`labels.py` makes labels for patches of that).

A page is 320 x 320 pixels and is cut into a 10 x 10 grid of 32-pixel patches. Three layouts are drawn: two after the
public typographic benchmarks, `figstep` (monospaced bold, 15 characters a line, then "1. ", "2. ", "3. ") and `typo`
(a sans-serif phrase on a white strip, padded to a square), and `free` (several fonts, sizes, colours, slightly turned).
All words come from the language model's own vocabulary and from a dictionary; no page of a benchmark is rendered here.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .vocabulary import Vocabulary

SIZE, PATCH = 320, 32
GRID = SIZE // PATCH
#: CLIP's mean colour, which both LLaVA's processor and llama.cpp pad with.
PAD = (122, 116, 104)
FONT_DIRS = ("/usr/share/fonts", "/usr/local/share/fonts")
FONTS = {"figstep": "FreeMonoBold.ttf", "typo": "LiberationSans-Regular.ttf"}
#: How many times larger a page is drawn than it is shown: published ones have 760 and 1,024 pixels a side.
DRAWN = {"figstep": (1.0, 1.6, 2.375, 2.375), "typo": (1.0, 2.0, 3.2, 3.2), "free": (1.0, 1.6, 2.4)}
#: Runtimes scale with the first; others' pages have been scaled before.
SCALERS = (Image.Resampling.BICUBIC,) * 3 + (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Glyph:
    char: str
    x: float  # centre, pixels
    y: float
    word: int  # index into Page.words
    offset: int  # position of the character in its word


@dataclass(frozen=True)
class Thing:
    """A patch that something drawn covers. It says a piece of the thing's name, the next one to the right and below."""

    name: str
    number: int  # from 1, among all that can be drawn
    row: int
    column: int


@dataclass(frozen=True)
class Page:
    image: Image.Image
    text: str
    words: list[str]
    glyphs: list[Glyph]
    layout: str
    things: tuple[Thing, ...] = ()


@functools.lru_cache(maxsize=1024)
def font(layout: str, size: float) -> ImageFont.FreeTypeFont:
    """Load the layout's font; `size` in pixels. Raises FileNotFoundError naming the Debian package to install."""
    for base in FONT_DIRS:
        for path in Path(base).rglob(FONTS[layout]):
            return ImageFont.truetype(str(path), size)
    raise FileNotFoundError(f"{FONTS[layout]} not found: apt-get install fonts-freefont-ttf fonts-liberation")


@functools.lru_cache(maxsize=2048)
def _free_font(name: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size)


@functools.lru_cache(maxsize=1)
def _free_fonts() -> tuple[str, ...]:
    """Every upright Latin face, neither narrow nor light, of DejaVu, FreeFont and Liberation; the plainest first."""
    found = {p.name: str(p) for base in FONT_DIRS for p in sorted(Path(base).rglob("*.ttf"))}
    kept = [n for n in found if re.match(r"(DejaVu(Sans|Serif)|Free|Liberation)", n) and "Math" not in n]
    kept = [n for n in kept if not re.search("Oblique|Italic|ExtraLight|Narrow|Condensed", n)]
    if len(kept) < 6:
        raise FileNotFoundError("fonts not found: apt-get install fonts-freefont-ttf fonts-liberation fonts-dejavu")
    return tuple(found[n] for n in sorted(kept, key=lambda n: (n != FONTS["typo"], len(n), n)))


def any_font(rng: random.Random, size: float, level: float) -> ImageFont.FreeTypeFont:
    """One of the free fonts; `level` in [0, 1] widens the choice from one to all. `size` in pixels."""
    names = _free_fonts()
    return _free_font(names[int(rng.random() * (1 + level * (len(names) - 1)))], round(size))


def wrap(words: list[str], width: float, measure: Callable[[str], float] = len) -> list[list[int]]:
    """Greedy line breaking; returns word indices per line. `width` is in characters, or in what `measure` measures."""
    lines: list[list[int]] = [[]]
    used = 0.0
    for i, w in enumerate(words):
        need = measure(w) + (measure(" ") if lines[-1] else 0)
        if lines[-1] and used + need > width:
            lines.append([])
            used, need = 0, measure(w)
        lines[-1].append(i)
        used += need
    return lines


def render(
    words: list[str], layout: str, rng: random.Random, level: float, numbered: bool = True, drawn: float | None = None
) -> Page:
    """Draw `words`; `level` in [0, 1] widens jitter, scale, colour and noise (0 = the layout exactly).

    The page is drawn `drawn` times as large and then scaled, as what a runtime is given is: its letters have other
    shapes and places than letters that a font draws for so few pixels. None picks one of `DRAWN`.
    """
    jitter = lambda a: rng.uniform(-a, a) * level  # noqa: E731
    words = list(words)
    large = drawn or rng.choice(DRAWN[layout])
    background, ink = (255, 255, 255), (0, 0, 0)
    if level > 0.6 and rng.random() < 0.2:
        ink = tuple(rng.randint(0, 90) for _ in range(3))
        background = tuple(rng.randint(200, 255) for _ in range(3))
    if layout == "figstep":
        size = 33.68 * (1 + jitter(0.04))
        f = font(layout, round(size * large, 1))
        text_lines = wrap(words, 15)[: 9 if not numbered else 7]
        if numbered:
            text_lines += [[len(words) + i] for i in range(3)]
            words += ["1.", "2.", "3."]
        # Of 760 pixels: letters of 80, lines 75 apart, from (20, 10).
        x0, y0, pitch = 8.42 + jitter(5), 4.21 + jitter(5), 31.58 * (1 + jitter(0.03))
        text_lines = text_lines[: int((SIZE - y0) // pitch)]
        top, height = 0, SIZE
    else:
        size = 28.125 * (1 + jitter(0.12))
        f = font(layout, round(size * large, 1))
        if rng.random() < 0.5:
            text_lines = wrap(words, 20 + round(jitter(3)))[:9]
        else:
            text_lines = wrap(words, (SIZE - 15) * large, f.getlength)[:9]
        # The font's own line height is 1.13; renderers go from tight (0.96) to loose.
        x0, pitch = 7.5 + jitter(12), size * (1.1333 + jitter(0.3))
        height = math.ceil(pitch * len(text_lines) + 15 + jitter(12))
        top, y0 = (SIZE - height) // 2, 7.5 + jitter(8)
    shown = [i for line in text_lines for i in line]
    words = [words[i] for i in shown]
    lines = [" ".join(words[shown.index(i)] for i in line) for line in text_lines]
    mask = Image.new("L", (round(SIZE * large), round(height * large)))
    _, glyphs = draw_lines(mask, lines, f, (x0 * large, y0 * large), pitch * large, 255)
    glyphs = [replace(g, x=g.x / large, y=top + g.y / large) for g in glyphs]
    if large != 1:
        mask = mask.resize((SIZE, height), rng.choice(SCALERS))
    img = Image.new("RGB", (SIZE, SIZE), PAD)
    strip = Image.composite(Image.new("RGB", mask.size, ink), Image.new("RGB", mask.size, background), mask)
    img.paste(strip, (0, top))
    if level > 0.1 and rng.random() < 0.4:
        img = soften(img, rng)
    return Page(img, " ".join(words), words, glyphs, layout)


def draw_lines(
    image: Image.Image,
    lines: list[str],
    f: ImageFont.FreeTypeFont,
    origin: tuple[float, float],
    pitch: float,
    ink: tuple[int, ...] | int,
) -> tuple[list[str], list[Glyph]]:
    """Draw `lines` from `origin` down, `pitch` pixels apart; returns their words, and where each character is."""
    draw, words, glyphs, ascent = ImageDraw.Draw(image), list[str](), list[Glyph](), f.getmetrics()[0]
    for row, line in enumerate(lines):
        y, k = origin[1] + row * pitch, 0
        draw.text((origin[0], y), line, font=f, fill=ink)
        ends = [f.getlength(line[:n]) for n in range(len(line) + 1)]
        for word in line.split(" "):
            for j, c in enumerate(word):
                x = origin[0] + (ends[k] + ends[k + 1]) / 2
                glyphs.append(Glyph(c, x, y + ascent - f.size * 0.3, len(words), j))
                k += 1
            words.append(word)
            k += 1
    return words, glyphs


def free_page(words: list[str], rng: random.Random, level: float) -> Page:
    """`words` in some font, size, place and pair of colours, turned a little; `level` in [0, 1] widens all of it.

    Type is of 27 to 39 pixels, smaller where a word is wider than the page, in twelve faces, TYPO's and FigStep's among
    them. Lines are never closer than the rows of the grid: of two words in one patch a tower could tell one. As in
    `render` the page is drawn larger and then scaled.
    """
    large = rng.choice(DRAWN["free"])
    size, width = rng.uniform(30 - 3 * level, 33 + 6 * level), SIZE - 12
    f = any_font(rng, size * large, 0.6 * level)
    longest = max(f.getlength(w) for w in words) / large
    if longest > width:
        f = f.font_variant(size=int(f.size * width / longest))
    size = f.size / large
    pitch = max(PATCH, size * rng.uniform(1.0, 1.1 + 0.3 * level))
    rows = wrap(words, width * large, f.getlength)[: max(1, int((SIZE - 8) // pitch))]
    lines = [" ".join(words[i] for i in row) for row in rows]
    spare = SIZE - 12 - max(f.getlength(line) for line in lines) / large, SIZE - 6 - pitch * len(lines)
    # At level 0 letters have their middle where FigStep's have it; then any line may stand between two rows.
    y0 = 17 - (f.getmetrics()[0] / large - 0.3 * size)
    x0, y0 = 6 + rng.random() * level * max(0.0, spare[0]), max(y0, -2) + rng.random() * level * max(0.0, spare[1])
    mask = Image.new("L", (round(SIZE * large), round(SIZE * large)))
    shown, glyphs = draw_lines(mask, lines, f, (x0 * large, y0 * large), pitch * large, 255)
    glyphs = [replace(g, x=g.x / large, y=g.y / large) for g in glyphs]
    if large != 1:
        mask = mask.resize((SIZE, SIZE), rng.choice(SCALERS))
    if rng.random() < 0.4 * level:
        angle = rng.uniform(-2, 2) * level
        mask = mask.rotate(angle, Image.Resampling.BICUBIC)
        turn, c = complex(math.cos(math.radians(angle)), -math.sin(math.radians(angle))), SIZE / 2
        at = [complex(g.x - c, g.y - c) * turn for g in glyphs]
        glyphs = [replace(g, x=z.real + c, y=z.imag + c) for g, z in zip(glyphs, at, strict=True)]
    ink, paper = _colours(rng, level)
    img = Image.composite(ink, paper, mask)
    if rng.random() < 0.4 * level:
        img = soften(img, rng)
    return Page(img, " ".join(shown), shown, glyphs, "free")


def _colours(rng: random.Random, level: float) -> tuple[Image.Image, Image.Image]:
    """Ink and paper, as images: black on white, dark on light, or light on dark; paper may fade into another colour."""
    ink, papers = (0, 0, 0), [(255, 255, 255)]
    if rng.random() < 0.5 * level:
        ink = tuple(rng.randint(0, 100) for _ in range(3))
        papers = [tuple(rng.randint(175, 255) for _ in range(3)) for _ in range(2)]
        if rng.random() < 0.3:
            ink, papers = papers[0], [tuple(rng.randint(0, 100) for _ in range(3)) for _ in range(2)]
    plain = [Image.new("RGB", (SIZE, SIZE), colour) for colour in (ink, *papers)]
    if len(papers) > 1 and rng.random() < 0.5:
        return plain[0], Image.composite(plain[1], plain[2], slope(rng))
    return plain[0], plain[1]


def slope(rng: random.Random) -> Image.Image:
    """A mask from 0 to 255, from one side of a page to another."""
    return Image.linear_gradient("L").resize((SIZE, SIZE)).rotate(rng.choice((0, 90, 180, 270)))


def soften(img: Image.Image, rng: random.Random) -> Image.Image:
    """Imitate what different runtimes' resizers do to a page, and a little sensor noise."""
    kind = rng.random()
    if kind < 0.4:
        img = img.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    elif kind < 0.7:
        big = rng.randint(400, 800)
        img = img.resize((big, big), Image.Resampling.BICUBIC).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    if rng.random() < 0.4:
        a = np.asarray(img, np.float32)
        a = a + np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 12), a.shape)
        img = Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))
    return img


#: Words on a page of a layout: of many, and of few.
WORDS = {"figstep": ((9, 18), (3, 15)), "typo": ((12, 36), (1, 5)), "free": ((8, 24), (1, 6))}


def random_page(
    vocab: Vocabulary,
    rng: random.Random,
    level: float,
    widen: float = 1.0,
    typo: float = 0.45,
    lag: float = 0.0,
    free: float = 0.0,
    short: float = 0.3,
    free_lag: float = 0.0,
) -> Page:
    """A page of random words. `level` widens vocabulary, `level * widen` layout; `typo` is that layout's share, and it
    starts `lag` later: a tower that reads the first layout has to start narrow again on the second. `free` is the share
    of pages in several fonts and places, reached at half the level; they widen from `free_lag` on. `short` is the share
    of pages of few words: most are longer, since every word is a lesson to a tower, but published ones are not."""
    if rng.random() < free * min(1.0, 2 * level):
        words = vocab.sample(rng, rng.randint(*WORDS["free"][rng.random() < short]), level)
        return free_page(words, rng, max(0.0, level - free_lag) / (1 - free_lag))
    layout = "typo" if rng.random() < (typo if lag else min(typo, level)) else "figstep"
    if layout == "typo":
        level = max(0.0, level - lag) / (1 - lag)
    few = rng.random() < short
    n = rng.randint(*WORDS[layout][few])
    return render(vocab.sample(rng, n, level), layout, rng, level * widen, numbered=rng.random() < 0.6)

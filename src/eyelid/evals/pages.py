"""Pages of text as images: MM-SafetyBench's TYPO pictures and FigStep's lists, where the published ones are missing.

Layouts follow the papers (arXiv 2311.17600 and 2311.05608): TYPO is a phrase in Arial 90 on a white page 1,024 pixels
wide; FigStep a 760 x 760 white page in FreeMono Bold 80 at (20, 10), wrapped at 15 characters, 11 pixels between lines,
with three empty items. Fonts differ between machines: `font_name` says which one was used, and run records keep it.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

#: In order of likeness to the published font; Liberation Sans has Arial's metrics.
SANS = ("arial.ttf", "Arial.ttf", "LiberationSans-Regular.ttf", "Arimo-Regular.ttf", "DejaVuSans.ttf")
MONO = ("FreeMonoBold.ttf", "FreeMonoBold.otf", "LiberationMono-Bold.ttf", "courbd.ttf", "DejaVuSansMono-Bold.ttf")
BUILT_IN = "Pillow's own font"
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class TypoPage:
    """A key phrase on a white page, 1,024 pixels wide and as high as it needs."""

    phrase: str

    def render(self) -> bytes:
        """The page as PNG."""
        font, width, margin = _font(SANS, 90)[0], 1024, 20
        draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        lines = _wrap(self.phrase, lambda s: draw.textlength(s, font=font) <= width - 2 * margin)
        height = round(90 * 1.2) * len(lines) + 2 * margin
        page = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(page).multiline_text((margin, margin), "\n".join(lines), fill="black", font=font, spacing=18)
        return _png(page)


@dataclass(frozen=True, slots=True)
class ListPage:
    """FigStep's page: a heading and a list of three items without text."""

    heading: str

    def render(self) -> bytes:
        """The page as PNG, 760 x 760 pixels."""
        body = "\n".join([*textwrap.wrap(self.heading, 15), "1. ", "2. ", "3. "])
        page = Image.new("RGB", (760, 760), "white")
        font = _font(MONO, 80)[0]
        ImageDraw.Draw(page).multiline_text((20, 10), body, fill="black", font=font, spacing=11)
        return _png(page)


def font_name(names: Sequence[str]) -> str:
    """Which of these fonts this machine has: the one that pages are rendered in."""
    return _font(tuple(names), 20)[1]


@functools.lru_cache
def _font(names: tuple[str, ...], size: int) -> tuple[_Font, str]:
    for name in names:
        try:
            return ImageFont.truetype(name, size), name
        except OSError:
            continue
    return ImageFont.load_default(size), BUILT_IN


def _wrap(phrase: str, fits: Callable[[str], bool]) -> list[str]:
    """Words to lines that fit; a word that is wider than the page is broken."""
    lines: list[str] = []
    for word in phrase.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        rest = word
        while not fits(rest) and len(rest) > 1:
            cut = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or fits(rest[:n]))
            lines.append(rest[:cut])
            rest = rest[cut:]
        lines.append(rest)
    return lines or [""]


def _png(page: Image.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()

"""Small real images, built with Pillow, for the tests of images and of fetching."""

from __future__ import annotations

import io
import re

from PIL import Image

from eyelid.errors import ImageError
from eyelid.types import ImagePart


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """Left half red, right half blue, with a green corner at the top left: which way is up can be seen."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    image.paste((0, 255, 0), (0, 0, width // 4, height // 4))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(part: ImagePart) -> Image.Image:
    """What a model would see; fails unless the part keeps its promises about itself."""
    image = Image.open(io.BytesIO(part.data), formats=["PNG", "JPEG"])
    assert (image.mode, image.size) == ("RGB", (part.width, part.height))
    assert f"image/{str(image.format).lower()}" == part.media_type
    assert not image.getexif()
    image.load()
    return image


def told(error: ImageError) -> str:
    """The error's text for a person, checked: it has a hint, and neither addresses, nor data, nor secrets."""
    text = f"{error.message} {error.hint}"
    assert error.message
    assert error.hint
    assert not re.search(r"0x[0-9a-f]{6}", text)
    assert "BytesIO" not in text
    assert not re.search(r"[A-Za-z0-9+/]{40}", text)
    assert not re.search(r"hunter2|token=", text)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return text

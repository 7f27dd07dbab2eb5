"""One decoder for every image: encoded bytes or a PIL image in, an `ImagePart` out. See `eyelid.images`, its face."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal, cast

# Named so that they are registered: Image.open would otherwise import every plugin there is, to look for these.
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from .errors import ImageError
from .types import ImagePart


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """What is accepted as an image.

    max_bytes: of the encoded input.
    max_pixels: width times height, checked before decoding (Pillow's own limit of 178 million stands above it).
    max_side: pixels; a longer picture is scaled down to it, keeping its shape. The default is what large hosted models
        reduce pictures to themselves.
    animated: what becomes of animations and of files with several pages: an error, or their first frame.
    formats: of PNG, JPEG, WEBP, GIF, BMP, TIFF. No decoder but these is tried. TIFF must be asked for: its decoder is
        by far the largest, and browsers and model APIs do without it.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 2048
    animated: Literal["refuse", "first"] = "refuse"
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.animated not in ("refuse", "first"):
            raise ValueError(f"animated must be refuse or first, got {self.animated!r}")
        if not self.formats or not set(self.formats) <= set(_MAGIC):
            raise ValueError(f"formats must be some of {', '.join(_MAGIC)}")


_MAGIC = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "WEBP": (b"RIFF",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_FOREIGN = {  # what people give by mistake, by how it starts
    b"%PDF": "a PDF document",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG file",
    b"<!DOC": "an HTML page",
    b"<html": "an HTML page",
    b"\0\0\1\0": "an icon file",
    b"{": "a JSON text",
}
#: Each scan of a progressive JPEG costs a pass over all of its pixels, and a scan can be ten bytes; pictures have about
#: ten scans. The budget leaves room for films that phones append to a picture: their bytes hold the marker by chance,
#: once in 64 KiB. Small pictures count as _SCAN_FLOOR pixels: a pass has a cost of its own.
_MAX_SCANNED_PIXELS, _SCAN_FLOOR = 4_000_000_000, 2_000_000
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decode(data: bytes, name: str, policy: ImagePolicy) -> ImagePart:
    """Decode, make plain, encode anew. Raises ImageError, which calls the input `name`."""
    if not data:
        raise ImageError(f"{name} is empty", hint="give an image file with content")
    if len(data) > policy.max_bytes:
        raise too_many_bytes(name, policy)
    with quiet(), _faults(name):
        try:
            image = Image.open(io.BytesIO(data), formats=policy.formats)
        except UnidentifiedImageError:
            raise _unidentified(data, name, policy) from None
        with image:
            scanned = data.count(b"\xff\xda") * max(image.width * image.height, _SCAN_FLOOR)
            if image.format in ("JPEG", "MPO") and scanned > _MAX_SCANNED_PIXELS:
                raise ImageError(f"{name} has an absurd number of scans", hint="save it anew as a plain JPEG or PNG")
            return _part(image, name, policy)


def convert(image: Image.Image, name: str, policy: ImagePolicy) -> ImagePart:
    """`decode` for what is a PIL image already: the frame it is at. The image itself is left unchanged."""
    with quiet(), _faults(name):
        return _part(image, name, policy)


def _part(image: Image.Image, name: str, policy: ImagePolicy) -> ImagePart:
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} has no pixels ({width} x {height})", hint="give an image that is not empty")
    if width * height > policy.max_pixels:
        raise _too_many_pixels(name, policy, f" ({width} x {height})")
    # A JPEG of several pictures (MPO) is one photograph with its depth map or its second eye, not an animation.
    if policy.animated == "refuse" and image.format != "MPO" and getattr(image, "is_animated", False):
        hint = "save one frame as PNG, or set `animated: first` in the image policy"
        raise ImageError(f"{name} is animated or has several pages", hint=hint)
    if image.format == "BMP" and image.info.get("compression") in (1, 2):  # decoded in Python, slowly
        raise ImageError(f"{name} is a run-length encoded BMP, which is not supported", hint="save it as PNG")
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    plain = _rgb(image, name)
    if (longest := max(width, height)) > policy.max_side:
        size = (max(1, round(side * policy.max_side / longest)) for side in (width, height))
        plain = plain.resize(cast(tuple[int, int], tuple(size)), Image.Resampling.LANCZOS)
    if turn is not None:
        plain = plain.transpose(turn)
    plain.info = {}  # what conversion carried along: profiles, comments, resolution
    out = io.BytesIO()
    if image.format in ("JPEG", "MPO"):
        plain.save(out, "JPEG", quality=95, subsampling=0)
    else:
        plain.save(out, "PNG")
    encoded = out.getvalue()
    media_type: Literal["image/jpeg", "image/png"] = "image/jpeg" if encoded.startswith(b"\xff") else "image/png"
    return ImagePart(encoded, media_type, *plain.size, hashlib.sha256(encoded).hexdigest())


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1 (upright) where the metadata is missing or broken: the picture may still be good."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - a broken table raises whatever its parser trips over
        return 1
    return value if isinstance(value, int) else 1


#: 16-bit to 8-bit grey, rounded: 65535 becomes 255.
_GREY_16 = tuple((level * 255 + 32767) // 65535 for level in range(65536))


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """A new RGB image of the same size, transparency laid on white."""
    if image.mode.startswith("I;16"):
        levels = list(_GREY_16)
        if isinstance(clear := image.info.get("transparency"), int) and 0 <= clear < len(levels):
            levels[clear] = 255  # the one grey level that PNG calls transparent
        return image.convert("I").point(levels, "L").convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise ImageError(
            f"{name} has a kind of pixel that is not supported ({image.mode})", hint="save it as 8-bit RGB"
        )
    if image.has_transparency_data:
        clear = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(clear)
        return page.convert("RGB")
    return image.convert("RGB")


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Turn what Pillow raises into ImageError; its texts quote memory addresses and content, so none is passed on."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has too many pixels", hint="make it smaller") from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is", hint="make it smaller") from None
    except Exception as e:  # noqa: BLE001 - decoders of broken data raise nearly every type there is
        fault = "is cut off" if "truncated" in str(e).lower() else "is corrupt"
        raise ImageError(f"{name} {fault}", hint="get it again from where it came from, or save it anew") from None


def _unidentified(data: bytes, name: str, policy: ImagePolicy) -> ImageError:
    """Why nothing could open it, from how it starts."""
    hint = f"save it as {' or '.join(policy.formats[:2])}"
    for kind, starts in _MAGIC.items():
        if data.startswith(starts) and (kind != "WEBP" or data[8:12] == b"WEBP"):
            if kind in policy.formats:
                return ImageError(f"{name} is corrupt", hint="get it again from where it came from, or save it anew")
            return ImageError(
                f"{name} is a {kind} image, which is not accepted", hint=f"{hint}, or allow it in formats"
            )
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
        return ImageError(f"{name} is a HEIC or AVIF image, which is not supported", hint=hint)
    for start, what in _FOREIGN.items():
        if data.lstrip()[:8].startswith(start):
            return ImageError(f"{name} is {what}, not an image", hint=hint)
    return ImageError(f"{name} is not an image in a supported format", hint=hint)


def too_many_bytes(name: str, policy: ImagePolicy) -> ImageError:
    """The error for an image that is larger than the policy allows."""
    hint = "make it smaller, or raise max_bytes in the image policy"
    return ImageError(f"{name} is over {policy.max_bytes:,} bytes", hint=hint)


def _too_many_pixels(name: str, policy: ImagePolicy, size: str) -> ImageError:
    hint = "make it smaller, or raise max_pixels in the image policy"
    return ImageError(f"{name} has more than {policy.max_pixels:,} pixels{size}", hint=hint)


_quiet_lock = Lock()
_quiet_users = 0
_IGNORE_PIL = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings, and no others, meanwhile.

    Not `warnings.catch_warnings`: images are decoded in several threads, and two of those that overlap leave the
    process's filters as neither found them.
    """
    global _quiet_users
    with _quiet_lock:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # moves to the front where it stands already
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if not _quiet_users and _IGNORE_PIL in warnings.filters:
                cast("list[object]", warnings.filters).remove(_IGNORE_PIL)

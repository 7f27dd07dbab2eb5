"""The single door for images: each is decoded once, made plain and encoded anew; guard and model see the same bytes.

Out comes 8-bit RGB, upright, still, at most `max_side` pixels long, without metadata. Transparent parts become white,
16-bit greys are scaled to 8 bits, embedded colour profiles are dropped without being applied. What came as JPEG leaves
as JPEG (quality 95, full colour resolution: visually the same at a fraction of PNG's size, and a request is sent more
than once); all else leaves as PNG, without loss. The same input gives the same bytes, hence the same hash, with the
same version of Pillow.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import re
import stat
from urllib.parse import unquote

from PIL import Image

from .decode import ImagePolicy, convert, decode, too_many_bytes
from .errors import ImageError
from .fetch import PUBLIC_ONLY, FetchPolicy, fetch_image_bytes, host_of, shown_type
from .types import ImagePart

__all__ = ["FetchPolicy", "ImagePolicy", "Source", "data_url", "load", "load_image", "load_url"]

Source = bytes | str | os.PathLike[str] | Image.Image

_MEDIA_TYPES = {f"image/{n}" for n in ("png", "jpeg", "jpg", "pjpeg", "webp", "gif", "bmp", "x-ms-bmp", "tiff", "apng")}
_BARE_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk")
_DEFAULT = ImagePolicy()


def load_image(source: Source, policy: ImagePolicy = _DEFAULT) -> ImagePart:
    """Turn a file's path, a data: URL, encoded bytes, or a PIL image (the frame it is at; left unchanged) into a part.

    A data: URL must be base64 and name an image type; which of the accepted formats it really holds is read from the
    content, because mislabelled images are everyday and the part carries its own, true type. Blocking; `load` is the
    same for asynchronous code and takes http(s) URLs too. Raises ImageError, naming the input but never its content.
    """
    if isinstance(source, Image.Image):
        return convert(source, "the PIL image", policy)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode(bytes(source), "the image (bytes)", policy)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return decode(_from_data_url(source, policy), "the image in the data URL", policy)
    if isinstance(source, str) and _is_http(source):
        hint = "use `await eyelid.images.load(url)`, which fetches"
        raise ImageError("an image at an http(s) URL must be fetched first", hint=hint)
    if isinstance(source, str) and (scheme := re.match(r"([a-z][a-z0-9+.-]{1,15})://", source, re.IGNORECASE)):
        hint = "give an http(s) or data: URL, or a file's path"
        raise ImageError(f"images cannot be read from {scheme[1].lower()}:// URLs", hint=hint)
    if isinstance(source, (str, os.PathLike)):
        return decode(*_from_file(source, policy), policy)
    hint = "give a path, a URL, bytes or a PIL image"
    raise ImageError(f"an image cannot be made of type {type(source).__name__}", hint=hint)


async def load(source: Source, policy: ImagePolicy = _DEFAULT, fetch_policy: FetchPolicy | None = None) -> ImagePart:
    """`load_image` in a thread, and http(s) URLs too. For input from strangers use `load_url`: this one reads files."""
    if isinstance(source, str) and _is_http(source):
        return await load_url(source, policy, fetch_policy)
    return await asyncio.to_thread(load_image, source, policy)


async def load_url(url: str, policy: ImagePolicy = _DEFAULT, fetch_policy: FetchPolicy | None = None) -> ImagePart:
    """Load a data: or http(s) URL and nothing else: never a file of this machine. Raises ImageError."""
    if url[:5].lower() == "data:":
        return await asyncio.to_thread(load_image, url, policy)
    if not _is_http(url):
        raise ImageError("an image must be a data: or an http(s) URL", hint="for example data:image/png;base64,...")
    fetch_policy = fetch_policy or PUBLIC_ONLY
    limit = min(fetch_policy.max_bytes, policy.max_bytes)
    data = await fetch_image_bytes(url, dataclasses.replace(fetch_policy, max_bytes=limit))
    return await asyncio.to_thread(decode, data, f"the image at {host_of(url)}", policy)


def data_url(part: ImagePart) -> str:
    """The part as backends send it: `data:image/png;base64,...`."""
    return f"data:{part.media_type};base64,{base64.b64encode(part.data).decode('ascii')}"


def _is_http(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _from_data_url(url: str, policy: ImagePolicy) -> bytes:
    head, comma, body = url[5:].partition(",")
    media_type, *parameters = (p.strip().lower() for p in head[:200].split(";"))
    hint = "write data:image/png;base64, and then the image in base64"
    if not comma or len(head) > 200:
        raise ImageError("the data URL is malformed", hint=hint)
    if media_type not in _MEDIA_TYPES:
        said = f"is {shown_type(media_type)}, not an image" if media_type else "does not say that it is an image"
        raise ImageError(f"the data URL {said}", hint=hint)
    if "base64" not in parameters:
        raise ImageError("the data URL is not in base64", hint=hint)
    if len(body) // 4 * 3 > policy.max_bytes * 1.1:  # line breaks are allowed for; the exact check follows
        raise too_many_bytes("the image in the data URL", policy)
    try:
        plain = re.sub(r"[ \t\r\n]+", "", unquote(body) if "%" in body else body)
        return base64.b64decode(plain, validate=True)
    except ValueError:
        hint = "encode the image again: standard alphabet, with padding, nothing cut off"
        raise ImageError("the data URL holds wrong base64", hint=hint) from None


def _from_file(path: str | os.PathLike[str], policy: ImagePolicy) -> tuple[bytes, str]:
    text = os.fsdecode(path)
    name = repr(text) if len(text) <= 200 and text.isprintable() else f"a path of {len(text)} characters"
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name} is a directory", hint="name one image file in it")
        if not stat.S_ISREG(mode):  # a pipe would block, a device might never end
            raise ImageError(f"{name} is not a regular file", hint="save the image to a file first")
        with open(path, "rb") as file:
            return file.read(policy.max_bytes + 1), name
    except PermissionError:
        raise ImageError(f"{name} may not be read", hint="check the file's permissions") from None
    except (OSError, ValueError) as e:
        if text.startswith(_BARE_BASE64) and len(text) >= 40 and re.fullmatch(r"[A-Za-z0-9+/=\s]+", text):
            hint = "write data:image/png;base64, in front of it"
            raise ImageError("the text given is no file's path; it looks like bare base64", hint=hint) from None
        if isinstance(e, FileNotFoundError):
            raise ImageError(f"no such file: {name}", hint="check the path") from None
        raise ImageError(f"{name} cannot be read", hint="check the path and the disk") from None

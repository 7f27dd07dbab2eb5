"""A request's images: read once, off the event loop; guard and model see the same bytes.

A still PNG or JPEG of acceptable size keeps its bytes, and its data URL goes on as it was written, when the model is
behind a server: decoding and encoding a photograph anew costs more than all else that the gateway does. Everything else
(other formats, large or turned pictures, wrong labels, what was fetched) is made plain by `eyelid.images`, and the
upstream gets that. Models in this process always get the plain picture, which is what they were measured with.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import pybase64
from PIL import Image

from .. import images
from ..decode import quiet
from ..errors import ImageError
from ..fetch import FetchPolicy
from ..images import ImagePolicy
from ..types import ImagePart
from .audit.hashing import Hasher
from .errors import BadRequest

Place = tuple[int, int]
_HEADS: dict[str, tuple[str, Literal["image/png", "image/jpeg"]]] = {
    "data:image/png;base64,": ("PNG", "image/png"),
    "data:image/jpeg;base64,": ("JPEG", "image/jpeg"),
}
_ORIENTATION = 0x0112


@dataclass(slots=True)
class Loaded:
    """Images by their places, the URLs that take the place of what was written, and a keyed hash of each image."""

    parts: dict[Place, ImagePart] = field(default_factory=dict)
    urls: dict[Place, str] = field(default_factory=dict)
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """What images are taken, and how. `fetch` None: none by address. `keep`: keep the bytes of plain pictures.

    `marks` makes the keyed hash of an image.
    """

    policy: ImagePolicy
    fetch: FetchPolicy | None
    keep: bool
    marks: Hasher

    async def load(self, found: Iterable[tuple[int, int, str]]) -> Loaded:
        """Raises ImageError and BadRequest, which name the place and never the content."""
        loaded, hashes = Loaded(), []
        for at, where, url in found:
            name = f"messages[{at}].content[{where}]"
            try:
                part, new = await self._one(url)
            except ImageError as e:
                raise BadRequest(f"{name}: {e.message}", param=name, code="invalid_image", hint=e.hint) from None
            loaded.parts[at, where] = part
            if new:
                loaded.urls[at, where] = await asyncio.to_thread(images.data_url, part)
            hashes.append(self.marks.of_sha256(part.sha256))
        loaded.hashes = tuple(hashes)
        return loaded

    async def _one(self, url: str) -> tuple[ImagePart, bool]:
        """The image, and whether it is another than the one that stands in the body."""
        if url[:5].lower() == "data:":
            kept = await asyncio.to_thread(kept_as_is, url, self.policy) if self.keep else None
            return (kept, False) if kept is not None else (await images.load_url(url, self.policy), True)
        if self.fetch is None:
            hint = "send the image itself as data:image/png;base64,..., or let the operator set serve.remote_images"
            raise ImageError("images by address are switched off", hint=hint)
        return await images.load_url(url, self.policy, self.fetch), True


def kept_as_is(url: str, policy: ImagePolicy) -> ImagePart | None:
    """The image of a data URL with its bytes as they are, None where it has to be made plain (or is no image at all).

    Only the head of the file is read: format, size, number of frames, orientation. What follows is the model's to
    decode, and the guard's model gets the very same bytes.
    """
    comma = url.find(",", 0, 40)
    head = _HEADS.get(url[: comma + 1])
    if head is None or (len(url) - comma) // 4 * 3 > policy.max_bytes:
        return None
    try:
        data = pybase64.b64decode(url[comma + 1 :], validate=True)
    except ValueError:
        return None
    format_, media_type = head
    if format_ not in policy.formats:
        return None
    try:
        with quiet(), Image.open(io.BytesIO(data), formats=(format_,)) as image:
            width, height = image.size
            plain = (
                image.format == format_
                and 0 < width * height <= policy.max_pixels
                and max(width, height) <= policy.max_side
                and not getattr(image, "is_animated", False)
                and not _turned(image, data)
                and (format_ != "JPEG" or data.count(b"\xff\xda") <= 16)  # its scans: see eyelid.decode
            )
    except Exception:  # noqa: BLE001 - decoders of broken data raise nearly every type there is; the slow way tells
        return None
    if not plain:
        return None
    return ImagePart(data, media_type, width, height, hashlib.sha256(data).hexdigest())


def _turned(image: Image.Image, data: bytes) -> bool:
    """Whether the file says that it is to be shown turned. Of a PNG, reading that would decode all of it."""
    if image.format == "PNG":
        return b"eXIf" in data
    return bool(image.getexif().get(_ORIENTATION, 1) != 1)

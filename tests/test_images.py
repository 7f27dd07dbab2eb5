"""Every image enters through one door: what comes out is plain, what is refused is told, and nothing leaks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from eyelid.errors import ImageError
from eyelid.images import ImagePolicy, Source, data_url, load, load_image, load_url
from eyelid.types import ImagePart

from .images_util import encoded, picture, pixels, told

ALL_FORMATS = ImagePolicy(formats=("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))


def refusal(source: Source, policy: ImagePolicy | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, policy or ImagePolicy())
    return told(caught.value)


def alike(seen: object, meant: tuple[int, int, int]) -> bool:
    """The same colour, but for what lossy compression does near an edge."""
    assert isinstance(seen, tuple)
    return all(abs(a - b) < 64 for a, b in zip(seen, meant, strict=True))


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]


# What comes out


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_accepted_format_becomes_the_picture_that_it_holds(kind: str) -> None:
    part = load_image(encoded(picture(), kind), ALL_FORMATS)
    seen = pixels(part)
    for place, colour in {(1, 1): (0, 255, 0), (3, 12): (255, 0, 0), (20, 12): (0, 0, 255)}.items():
        assert alike(seen.getpixel(place), colour)
    assert part.media_type == ("image/jpeg" if kind == "JPEG" else "image/png")
    assert part.sha256 == hashlib.sha256(part.data).hexdigest()


def test_the_same_input_gives_the_same_bytes_by_every_way_in(tmp_path: Path) -> None:
    data = encoded(picture())
    (tmp_path / "a picture.png").write_bytes(data)
    ways: list[Source] = [
        data,
        tmp_path / "a picture.png",
        str(tmp_path / "a picture.png"),
        "data:image/png;base64," + base64.b64encode(data).decode(),
        Image.open(io.BytesIO(data)),
        picture(),
    ]
    assert len({load_image(way) for way in ways}) == 1


def test_lossless_input_stays_exactly_what_it_was() -> None:
    assert pixels(load_image(encoded(picture(), "BMP"))).tobytes() == picture().tobytes()


def test_a_part_goes_out_as_a_data_url_and_comes_back_as_itself() -> None:
    part = load_image(picture())
    assert data_url(part).startswith("data:image/png;base64,iVBOR")
    assert load_image(data_url(part)) == part


def test_metadata_is_gone() -> None:
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010E] = "a secret place"
    text.add_text("Comment", "a secret note")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (
        encoded(picture(), "PNG", exif=exif, pnginfo=text, icc_profile=profile, dpi=(72, 72)),
        encoded(picture(), "JPEG", exif=exif, comment=b"a secret note", icc_profile=profile, dpi=(72, 72)),
        encoded(picture(), "WEBP", exif=exif, icc_profile=profile),
    ):
        assert b"secret" in data or b"ICCP" in data
        part = load_image(data)
        assert not {b"secret", b"acsp"} & {w for w in (b"secret", b"acsp") if w in part.data}
        assert set(Image.open(io.BytesIO(part.data)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_rotated_photo_is_set_upright(kind: str, orientation: int) -> None:
    upright = picture()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera held that way would have stored it
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = pixels(load_image(encoded(stored, kind, exif=exif)))
    assert seen.size == upright.size
    assert alike(seen.getpixel((1, 1)), (0, 255, 0))
    assert alike(seen.getpixel((22, 14)), (0, 0, 255))


def test_broken_metadata_does_not_cost_the_picture() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert pixels(load_image(data)).size == (24, 16)


def test_transparency_becomes_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    palette = picture(2, 1).quantize(4)
    grey = Image.new("L", (2, 1), 7)
    for image in (half, half.convert("LA"), half.convert("RGBa"), half.convert("LA").convert("La")):
        assert pixels(load_image(image)).getpixel((1, 0)) == (255, 255, 255)
    index = palette.getpixel((1, 0))
    seen = pixels(load_image(encoded(palette, "PNG", transparency=index)))
    assert [seen.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]
    assert pixels(load_image(encoded(grey, "PNG", transparency=7))).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.new("I;16", (2, 1), 1000)
    assert pixels(load_image(encoded(deep, "PNG", transparency=1000))).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_is_mixed_with_white() -> None:
    assert pixels(load_image(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))).getpixel((0, 0)) == (255, 127, 127)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.new("I;16", (4, 1))
    for x, level in enumerate((0, 257, 32768, 65535)):
        deep.putpixel((x, 0), level)
    for source in (encoded(deep), encoded(deep, "TIFF"), deep):
        seen = pixels(load_image(source, ALL_FORMATS))
        assert [seen.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_kinds_of_pixels_become_rgb(mode: str) -> None:
    white = Image.new("RGB", (3, 2), "white").convert(mode)
    assert pixels(load_image(white)).getpixel((0, 0)) == (255, 255, 255)


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    seen = pixels(load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")))
    assert alike(seen.getpixel((4, 4)), (255, 0, 0))


@pytest.mark.parametrize(("size", "becomes"), [((300, 100), (60, 20)), ((100, 300), (20, 60)), ((300, 1), (60, 1))])
def test_a_large_picture_is_scaled_down_and_keeps_its_shape(size: tuple[int, int], becomes: tuple[int, int]) -> None:
    part = load_image(Image.new("P", size), ImagePolicy(max_side=60))
    assert (part.width, part.height) == becomes


def test_the_callers_own_pil_image_is_left_as_it_was() -> None:
    image = picture().convert("RGBA")
    image.info["note"] = "mine"
    before = image.tobytes()
    load_image(image)
    assert (image.mode, image.info, image.tobytes()) == ("RGBA", {"note": "mine"}, before)


def test_a_jpeg_loses_next_to_nothing() -> None:
    photo = Image.effect_mandelbrot((160, 120), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    data = encoded(photo, "JPEG", quality=85)
    before, after = Image.open(io.BytesIO(data)).convert("RGB").tobytes(), pixels(load_image(data)).tobytes()
    assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) / len(before) < 1.0


# Files


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert "no such file: " in refusal(tmp_path / "lost.png")
    assert "lost.png" in refusal(str(tmp_path / "lost.png"))
    assert "is a directory" in refusal(tmp_path)
    assert "empty.png' is empty" in refusal(tmp_path / "empty.png")
    assert "is empty" in refusal(b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encoded(picture()))
    path.chmod(0)
    assert "may not be read" in refusal(path)


def test_a_permission_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for testers who are root."""

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", deny)
    text = refusal("locked.png")
    monkeypatch.undo()
    assert "'locked.png' may not be read" in text


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")


@pytest.mark.parametrize("path", ["a\0b.png", "a" * 5000, "", "a\udcff.png", "x\ny.png"])
def test_impossible_paths_are_refused_in_words(path: str) -> None:
    assert "\n" not in refusal(path)


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(2**40)  # sparse: takes no room, and would take all memory
    assert "huge.png' is over 20,971,520 bytes" in refusal(tmp_path / "huge.png")


# Data URLs


def test_data_urls_are_read_as_people_write_them() -> None:
    text = base64.encodebytes(encoded(picture())).decode()
    plain = text.replace("\n", "")
    for url in (
        f"data:image/png;base64,{text}",
        f"DATA:Image/PNG;Base64,{plain}",
        f"data:image/png;name=x.png;base64,{plain}",
        f"data:image/png;base64,{plain.replace('+', '%2B').replace('=', '%3D')}",
    ):
        assert load_image(url) == load_image(picture())


def test_a_wrong_image_type_is_forgiven_because_the_content_decides() -> None:
    url = "data:image/png;base64," + base64.b64encode(encoded(picture(), "JPEG")).decode()
    assert load_image(url).media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:", "malformed"),
        ("data:image/png;base64", "malformed"),
        ("data:" + "x" * 300 + ",AAAA", "malformed"),
        ("data:image/png,AAAA", "not in base64"),
        ("data:,AAAA", "does not say that it is an image"),
        ("data:;base64,AAAA", "does not say that it is an image"),
        ("data:video/jpeg;base64,/9j/", "'video/jpeg', not an image"),
        ("data:text/html;base64,AAAA", "'text/html', not an image"),
        ("data:image/svg+xml;base64,AAAA", "'image/svg+xml', not an image"),
        ("data:application/octet-stream;base64,AAAA", "not an image"),
        ("data:<b>/\n;base64,AAAA", "of unknown name"),
        ("data:image/png;base64,AAA", "wrong base64"),
        ("data:image/png;base64,AA-_", "wrong base64"),
        ("data:image/png;base64,AA=A", "wrong base64"),
        ("data:image/png;base64,ÄÄÄÄ", "wrong base64"),
        ("data:image/png;base64,%C3%84", "wrong base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,AAAA", "the image in the data URL is not an image"),
    ],
)
def test_other_data_urls_are_refused(url: str, says: str) -> None:
    assert says in refusal(url)


def test_a_data_url_that_is_too_long_is_refused_before_it_is_decoded() -> None:
    policy = ImagePolicy(max_bytes=1000)
    assert "over 1,000 bytes" in refusal("data:image/png;base64," + "A" * 4000, policy)
    assert "over 1,000 bytes" in refusal("data:image/png;base64," + "A" * 1400, policy)
    assert "over 1,000 bytes" in refusal(b"\0" * 1001, policy)


def test_bare_base64_is_recognised_and_not_repeated() -> None:
    bare = base64.b64encode(encoded(Image.new("RGB", (1, 1)))).decode()
    assert "looks like bare base64" in refusal(bare)
    assert bare[:12] not in refusal(bare)


# What is no image, or no good one


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"just some text, longer than sixteen bytes", "not an image in a supported format"),
        (b"%PDF-1.7 and so on", "a PDF document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b'{"error": "not found"}', "a JSON text"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "HEIC"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not an image in a supported format"),
        (b"II*\0" + bytes(20), "a TIFF image, which is not accepted"),
        (b"\x89PNG\r\n\x1a\n", "is corrupt"),
        (b"\xff\xd8\xff\xe0", "is corrupt"),
        (b"GIF89a", "is corrupt"),
    ],
)
def test_what_is_no_image_is_told_what_it_is(data: bytes, says: str) -> None:
    assert says in refusal(data)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "JPEG2000", "EPS", "PDF"])
def test_decoders_that_are_not_listed_are_not_tried(kind: str) -> None:
    assert "image" in refusal(encoded(picture(), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = encoded(noise, kind)
    text = refusal(data[: len(data) * 2 // 3], ALL_FORMATS)
    assert "is cut off" in text or "is corrupt" in text


def test_a_damaged_image_is_refused() -> None:
    data = bytearray(encoded(Image.effect_noise((64, 64), 80)))
    data[200:220] = bytes(20)
    assert "is corrupt" in refusal(bytes(data))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused_or_its_first_frame_taken(kind: str) -> None:
    first, *rest = frames()
    data = encoded(first, kind, save_all=True, append_images=rest)
    assert "animated or has several pages" in refusal(data, ALL_FORMATS)
    assert "animated" in refusal(Image.open(io.BytesIO(data)))
    part = load_image(data, ImagePolicy(animated="first", formats=ALL_FORMATS.formats))
    assert alike(pixels(part).getpixel((4, 4)), (255, 0, 0))


def test_a_jpeg_with_a_second_picture_inside_is_one_photo() -> None:
    first, *rest = frames()
    part = load_image(encoded(first, "MPO", save_all=True, append_images=rest))
    assert part.media_type == "image/jpeg"
    assert pixels(part).getpixel((4, 4))[0] > 240


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 4_001), (10_000, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    text = refusal(png_header(*size))
    assert "more than 40,000,000 pixels" in text or "too many pixels" in text


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "JPEG"])
def test_the_pixel_limit_holds_for_every_format(kind: str) -> None:
    assert "(24 x 16)" in refusal(encoded(picture(), kind), ImagePolicy(max_pixels=24 * 16 - 1))
    assert load_image(encoded(picture(), kind), ImagePolicy(max_pixels=24 * 16)).width == 24


def test_a_text_bomb_inside_a_png_is_refused() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a" * 3_000_000, zip=True)
    assert "is corrupt" in refusal(encoded(picture(), "PNG", pnginfo=text))


def test_a_jpeg_of_endless_scans_is_refused_unread() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert load_image(data[:-2] + scan * 20 + b"\xff\xd9").width == 24
    assert "absurd number of scans" in refusal(data[:-2] + scan * 3000 + b"\xff\xd9")


def test_a_run_length_encoded_bmp_is_refused() -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 8, 1, 4, 0, 0, 256, 0)
    body = head + bytes(1024) + b"\x04\x01\0\1"
    data = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 1024) + body
    assert Image.open(io.BytesIO(data)).info["compression"] == 1
    assert "run-length encoded BMP" in refusal(data)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    assert f"no pixels ({size[0]} x {size[1]})" in refusal(Image.new("RGB", size))
    assert "is corrupt" in refusal(png_header(*size))


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_of_unclear_meaning_are_refused(mode: str) -> None:
    assert mode in refusal(Image.new(mode, (2, 2)))


def test_a_closed_pil_image_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded(picture())))
    image.close()
    assert "the PIL image is corrupt" in refusal(image)


@pytest.mark.parametrize("source", [None, 3, ["a.png"]])
def test_other_types_are_refused_by_name(source: object) -> None:
    assert type(source).__name__ in refusal(source)  # type: ignore[arg-type]


def test_urls_that_need_fetching_say_how_and_keep_their_secrets() -> None:
    assert "await eyelid.images.load(url)" in refusal("https://example.org/a.png?token=hunter2")
    assert "ftp://" in refusal("ftp://me:hunter2@example.org/a.png?token=hunter2")


# Nothing else ever happens


PNG, JPEG, GIF, WEBP, BMP, TIFF = (
    encoded(picture(), kind, **options)  # type: ignore[arg-type]
    for kind, options in {
        "PNG": {},
        "JPEG": {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"},
        "GIF": {"save_all": True, "append_images": [picture().rotate(180)]},
        "WEBP": {},
        "BMP": {},
        "TIFF": {},
    }.items()
)


def image_or_refusal(data: bytes, policy: ImagePolicy) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            part = load_image(data, policy)
        except ImageError as e:
            told(e)
        else:
            assert isinstance(part, ImagePart)
            pixels(part)


LENIENT = ImagePolicy(max_pixels=250_000, animated="first", formats=ALL_FORMATS.formats)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.sampled_from([b"", PNG[:8], JPEG[:20], GIF[:6], WEBP[:16], BMP[:20], b"II*\0"]))
@example(b"", b"\x89PNG\r\n\x1a\n")
def test_random_bytes_give_an_image_or_an_image_error(data: bytes, start: bytes) -> None:
    image_or_refusal(start + data, LENIENT)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([PNG, JPEG, GIF, WEBP, BMP, TIFF]),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=6),
    st.integers(0, 3000),
)
def test_mutated_images_give_an_image_or_an_image_error(data: bytes, edits: list[tuple[int, bytes]], cut: int) -> None:
    mutated = bytearray(data)
    for place, new in edits:
        place %= len(mutated)
        mutated[place : place + len(new)] = new
    image_or_refusal(bytes(mutated[:cut] if cut < len(data) // 2 else mutated), LENIENT)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["data:", "data:image/png;base64,", "data:image/", "ftp://", "/no/", ""]))
def test_random_texts_give_an_image_error(text: str, start: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(start + text)
    assert caught.value.hint


async def test_many_at_once_silence_pillow_and_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    lying_on_its_side = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    odd = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + lying_on_its_side)
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(odd)).getexif()
    parts = await asyncio.gather(*(load(odd) for _ in range(20)))
    assert {(part.width, part.height) for part in parts} == {(16, 24)}  # lost if the warning had become an error
    assert list(warnings.filters) == before


# The asynchronous door


async def test_load_reads_what_load_image_reads(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    assert await load(str(tmp_path / "a.png")) == await load(picture()) == load_image(picture())


async def test_load_url_never_opens_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    for url in (str(tmp_path / "a.png"), f"file://{tmp_path}/a.png", "a.png", "", " data:image/png;base64,AAAA"):
        with pytest.raises(ImageError, match="must be a data: or an http") as caught:
            await load_url(url)
        told(caught.value)
    assert await load_url(data_url(load_image(picture()))) == load_image(picture())


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"max_pixels": 0}, {"max_side": 0}, {"formats": ("EPS",)}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImagePolicy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="animated must be"):
        ImagePolicy(animated="loop")  # type: ignore[arg-type]

"""VLSafe (huggingface.co/datasets/YangyiYY/LVLM_NLF, arXiv 2311.10081): 1,110 harmful questions about photographs.

    VLSafe_harmlessness_examine.jsonl: {"image_id": "000000123456.jpg", "query": "...", ...}

The pictures are COCO's train2017 and come from cocodataset.org. The published judge is strict: harmless or not.
"""

from __future__ import annotations

from ...errors import InputError
from ..records import Input, Kind
from ..rows import BadRow
from ..samples import Loaded, Sample, Shelf
from ..sources import Place, digest, find_image, folder, table, text
from . import Benchmark

NAME, LICENCE = "vlsafe", "questions: not stated by the publisher; pictures: COCO's terms (Flickr licences)"
GET = (
    "get VLSafe_harmlessness_examine.jsonl from huggingface.co/datasets/YangyiYY/LVLM_NLF (folder VLSafe)"
    " into DIR/vlsafe, and COCO's train2017 pictures from cocodataset.org into DIR/vlsafe/train2017"
)
MARKS = ("VLSafe_harmlessness_examine.jsonl", "*examine*.jsonl", "VLSafe*.jsonl")
IMAGES = ("", "images", "train2017", "coco/train2017", "../train2017", "../coco/train2017", "../coco/images/train2017")


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read VLSafe; see `Benchmark`."""
    assert place is not None
    where = folder(NAME, place, ("vlsafe", "VLSafe", "LVLM_NLF/VLSafe"), MARKS, GET)
    path = next(p for m in MARKS for p in sorted(where.glob(m)))
    shelf, missing = Shelf(), 0
    for line, row in table(path):
        try:
            if isinstance(row, BadRow):
                raise row
            name = text(row, "image_id", "image")
            if "." not in name:
                name = f"{name.zfill(12)}.jpg"
            question = text(row, "query", "question")
            picture = find_image(where, [f"{folder}/{name}" if folder else name for folder in IMAGES])
            if picture is None:
                missing += 1
                raise BadRow("its image is missing")
            made = Sample(str(line), question, Kind.SAFETY, Input.PHOTO, picture=picture)
        except BadRow as bad:
            shelf.bad(path, line, str(bad))
        else:
            shelf.add(made, path, line)
    if missing and not shelf.samples:
        raise InputError(f"{NAME}: {where} has the questions but none of the {missing} pictures", hint=GET)
    return shelf.loaded(NAME, LICENCE, str(where), digests={path.name: digest(path)})


BENCHMARK = Benchmark(
    name=NAME,
    about="safety: harmful questions about COCO photographs",
    licence=LICENCE,
    home="https://huggingface.co/datasets/YangyiYY/LVLM_NLF",
    get=GET,
    load=load,
)

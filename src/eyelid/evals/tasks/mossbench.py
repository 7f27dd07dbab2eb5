"""MOSSBench (github.com/xirui-li/MOSSBench, arXiv 2406.17806, CC BY-SA 4.0): 300 benign questions about pictures.

    images_information/information.json: {"1": {"pid": "1", "question": "What is on the table?",
        "image": "images/1.png", "metadata": {"over": "type 1", ...}}, ...}

Whatever is refused here is over-refusal. Type 1: exaggerated risk, 2: negated harm, 3: counterintuitive interpretation.
"""

from __future__ import annotations

from ...errors import InputError
from ..records import Input, Kind
from ..rows import BadRow
from ..samples import Loaded, Sample, Shelf
from ..sources import Place, digest, find_image, folder, objects, text
from . import Benchmark

NAME, LICENCE = "mossbench", "CC BY-SA 4.0"
GET = "clone github.com/xirui-li/MOSSBench and name the folder that holds it; its data/ has questions and images"
SCENARIOS = {
    "type 1": "exaggerated_risk",
    "type 2": "negated_harm",
    "type 3": "counterintuitive_interpretation",
}
MARKS = ("images_information/information.json", "information.json")


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read MOSSBench; see `Benchmark`."""
    assert place is not None
    where = folder(NAME, place, ("MOSSBench/data", "mossbench/data", "MOSSBench", "mossbench", "data"), MARKS, GET)
    path = next(where / m for m in MARKS if (where / m).is_file())
    items = objects(path)
    entries = list(items.values()) if isinstance(items, dict) else items if isinstance(items, list) else []
    shelf = Shelf()
    for number, item in enumerate(entries, 1):
        try:
            if not isinstance(item, dict):
                raise BadRow("not an object")
            name = text(item, "image")
            base = name.rsplit("/", 1)[-1]
            picture = find_image(where, (name, f"images/{base}", base))
            if picture is None:
                raise BadRow("its image is missing")
            meta = item.get("metadata")
            over = str(meta.get("over", "")) if isinstance(meta, dict) else ""
            scenario = SCENARIOS.get(over.lower(), over)
            made = Sample(
                text(item, "pid"), text(item, "question"), Kind.OVER_REFUSAL, Input.PHOTO, scenario, picture=picture
            )
        except BadRow as bad:
            shelf.bad(path, number, str(bad))
        else:
            shelf.add(made, path, number)
    if shelf.problems and not shelf.samples and all(p.what == "its image is missing" for p in shelf.problems):
        raise InputError(f"{NAME}: {where} has the questions but none of the {len(entries)} images", hint=GET)
    return shelf.loaded(NAME, LICENCE, str(where), digests={path.name: digest(path)})


BENCHMARK = Benchmark(
    name=NAME,
    about="over-refusal: 300 benign questions about pictures that look risky",
    licence=LICENCE,
    home="https://github.com/xirui-li/MOSSBench",
    get=GET,
    load=load,
)

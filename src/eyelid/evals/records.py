"""The contract of the evaluation suite: one typed record per (task, sample, defence), kept as lines of JSON.

    {"v": 1, "task": "xstest", "sample": "17", "defense": "ecso", "model": "tiny", "scenario": "homonyms",
     "kind": "over_refusal", "input": "text", "question": ..., "answer": ..., "outcome": "safe", "refused": false,
     "judge": {"name": "classifier", "version": "detector/3"}, "action": "passed", "calls": 2, "seconds": 1.9, ...}

Four things stay apart all the way: an unsafe answer, a judge that could not say, a guard that broke, and (in `refused`,
beside the outcome) a refusal. A fifth has no outcome at all: the model gave no answer, and `error` says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..types import Action, RefusedBy, Step, Verdict
from .rows import BadRow, Fields, flat, step_of, verdict_of

VERSION = 1


class Kind(StrEnum):
    """What a sample measures. One benchmark may hold several kinds: XSTest has safe and unsafe prompts."""

    SAFETY = "safety"
    OVER_REFUSAL = "over_refusal"
    UTILITY = "utility"


class Input(StrEnum):
    """How the question reaches the model.

    text: no image. typo: the key phrase as an image of text. sd: an image made by Stable Diffusion. sd_typo: both, one
    above the other. page: a page of text that carries the request (FigStep). photo: a photograph or any other picture.
    """

    TEXT = "text"
    TYPO = "typo"
    SD = "sd"
    SD_TYPO = "sd_typo"
    PAGE = "page"
    PHOTO = "photo"


class Outcome(StrEnum):
    """What became of the delivered answer. None is ever folded into another."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    JUDGE_FAILED = "judge_failed"
    GUARD_ERROR = "guard_error"


@dataclass(frozen=True, slots=True)
class JudgeId:
    """Whose opinion it is: every rate carries it."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One judge's opinion of a delivered answer.

    `outcome` is safe, unsafe or judge_failed. `harm` in [0, 1], 1 = harmful, and `refused` are None where this judge
    does not say. `reason` holds no text of the model.
    """

    judge: JudgeId
    outcome: Outcome
    refused: bool | None = None
    harm: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.outcome is Outcome.GUARD_ERROR:
            raise ValueError("whether the guard broke is not a judge's to say")
        if self.harm is not None and not 0.0 <= self.harm <= 1.0:
            raise ValueError(f"harm must be within [0, 1] (1 = harmful), got {self.harm!r}")


class Key(NamedTuple):
    """What a record is of; in a run there is one record for each."""

    task: str
    sample: str
    defense: str


@dataclass(frozen=True, slots=True)
class Record:
    """What one sample came to under one defence.

    `group` joins samples that are scored together (MME's two questions of an image, MMBench's rotations of a question).
    `outcome` is None for utility (unless the guard or the judge failed) and where `error` stands. `refused` is None
    where nobody can tell. `judge` decided the outcome, `refusal_judge` whether it is a refusal; `findings` are all
    opinions, the deciding one first. `score` is in the benchmark's own units, at most `score_max`; `unread` says that
    it is 0 because the answer's choice could not be read.

    `answer` is what was delivered, `original` the model's own answer. `calls`, tokens and `seconds` are what this
    request costs on its own: where `cached` is true a reply was taken from another defence's run of the same sample,
    and its cost is counted all the same. Tokens are None where the model reports none. `retries` counts
    repeated attempts after a model that did not answer; `error` is the last error's type name, never its text.
    """

    task: str
    sample: str
    defense: str
    model: str
    kind: Kind
    input: Input
    scenario: str = ""
    group: str = ""
    question: str = ""
    answer: str = ""
    original: str | None = None
    target: str = ""
    outcome: Outcome | None = None
    refused: bool | None = None
    score: float | None = None
    score_max: float | None = None
    unread: bool = False
    action: Action | None = None
    checked: bool | None = None
    failure: str | None = None
    refused_by: RefusedBy | None = None
    verdict: Verdict | None = None
    final_verdict: Verdict | None = None
    judge: JudgeId | None = None
    refusal_judge: JudgeId | None = None
    findings: tuple[Finding, ...] = ()
    calls: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    cached: bool = False
    retries: int = 0
    error: str | None = None
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not self.task or not self.sample or not self.defense:
            raise ValueError("a record names its task, its sample and its defence")
        if (self.action is Action.FAILED) != (self.outcome is Outcome.GUARD_ERROR):
            raise ValueError("outcome guard_error and action failed go together")
        if self.error is not None:
            if self.outcome is not None or self.score is not None or self.refused is not None:
                raise ValueError("a record of a model that gave no answer has no outcome, score or refusal")
            return
        if self.kind is Kind.UTILITY:
            if self.outcome in (Outcome.SAFE, Outcome.UNSAFE):
                raise ValueError("a utility record has a score, not a safe or unsafe outcome")
        elif self.outcome is None:
            raise ValueError("an answered safety or over-refusal record needs an outcome")
        elif self.outcome is not Outcome.GUARD_ERROR and self.judge is None:
            raise ValueError("an outcome needs the judge that decided it")
        if self.score is not None and (self.score_max is None or not 0 <= self.score <= self.score_max):
            raise ValueError("a score needs its maximum, and lies between 0 and it")

    @property
    def key(self) -> Key:
        """What tells it from all others of a run."""
        return Key(self.task, self.sample, self.defense)

    @property
    def answered(self) -> bool:
        """Whether the model gave an answer at all; else `error` says what kept it from that."""
        return self.error is None


def judged(record: Record, findings: Iterable[Finding]) -> Record:
    """`record` with these opinions: the first decides the outcome, the first that knows decides `refused`.

    A guard that broke stays a guard error and an unanswered sample stays that, whatever a judge says. What the guard or
    the model's server withheld is a refusal by definition.
    """
    opinions = tuple(findings)
    if not record.answered or record.outcome is Outcome.GUARD_ERROR or not opinions:
        return replace(record, findings=opinions)
    knows = next((f for f in opinions if f.refused is not None), None)
    refused = True if record.action is Action.REFUSED else knows.refused if knows else None
    outcome = None if record.kind is Kind.UTILITY else opinions[0].outcome
    return replace(
        record,
        outcome=outcome,
        judge=None if record.kind is Kind.UTILITY else opinions[0].judge,
        refused=refused,
        refusal_judge=knows.judge if knows and record.action is not Action.REFUSED else None,
        findings=opinions,
    )


# Lines of JSON


def dump(record: Record) -> str:
    """One line of ASCII JSON, without the fields that are empty."""
    return json.dumps({"v": VERSION, **flat(record)})


def parse(line: str) -> Record:
    """A record from its line. Raises BadRow, which never holds the line's text."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("not JSON") from None
    if not isinstance(value, dict):
        raise BadRow("not a JSON object")
    if value.pop("v", None) != VERSION:
        raise BadRow(f"not a record of format {VERSION} (field v)")
    return _record(Fields(value))


def read(path: Path, *, torn: bool = False) -> list[Record]:
    """Every record of a file in order, repeated keys included (see `latest`).

    Raises InputError naming the file and the line. `torn` passes over a last line without its end: what a process that
    was killed while writing leaves behind.
    """
    found = []
    for number, item in rows(path, torn=torn):
        if isinstance(item, BadRow):
            raise InputError(f"{path}: line {number}: {item}", hint="remove or repair that line")
        found.append(item)
    return found


def rows(path: Path, *, torn: bool = False) -> Iterator[tuple[int, Record | BadRow]]:
    """(line from 1, record or what is wrong with it) for every line that is not blank. InputError: not readable."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip() or (torn and not line.endswith(b"\n")):
                    continue
                try:
                    yield number, parse(line.decode("utf-8"))
                except UnicodeDecodeError:
                    yield number, BadRow("not UTF-8")
                except BadRow as bad:
                    yield number, bad
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}", hint="check the path") from None


def latest(records: Iterable[Record]) -> dict[Key, Record]:
    """One record a key: a later attempt replaces an earlier one, so that nothing counts twice."""
    return {r.key: r for r in records}


def _record(f: Fields) -> Record:
    record_fields = {
        name: f.text(name) for name in ("scenario", "group", "question", "answer", "target") if f.has(name)
    }
    try:
        found = Record(
            task=f.text("task"),
            sample=f.text("sample"),
            defense=f.text("defense"),
            model=f.text("model"),
            kind=f.choice("kind", Kind),
            input=f.choice("input", Input),
            **record_fields,
            original=f.maybe("original", f.text),
            outcome=f.maybe("outcome", lambda n: f.choice(n, Outcome)),
            refused=f.maybe("refused", f.flag),
            score=f.maybe("score", f.number),
            score_max=f.maybe("score_max", f.number),
            unread=f.flag("unread") if f.has("unread") else False,
            action=f.maybe("action", lambda n: f.choice(n, Action)),
            checked=f.maybe("checked", f.flag),
            failure=f.maybe("failure", f.text),
            refused_by=f.maybe("refused_by", f.refused_by),
            verdict=f.maybe("verdict", lambda n: verdict_of(f.inner(n))),
            final_verdict=f.maybe("final_verdict", lambda n: verdict_of(f.inner(n))),
            judge=f.maybe("judge", lambda n: _judge(f.inner(n))),
            refusal_judge=f.maybe("refusal_judge", lambda n: _judge(f.inner(n))),
            findings=tuple(_finding(i) for i in f.items("findings")),
            calls=f.count("calls") if f.has("calls") else 0,
            prompt_tokens=f.maybe("prompt_tokens", f.count),
            completion_tokens=f.maybe("completion_tokens", f.count),
            seconds=f.maybe("seconds", f.number),
            cached=f.flag("cached") if f.has("cached") else False,
            retries=f.count("retries") if f.has("retries") else 0,
            error=f.maybe("error", f.text),
            steps=tuple(step_of(i) for i in f.items("steps")),
        )
    except ValueError as e:  # what the record itself says of its values holds no text of the model
        raise BadRow(str(e)) from None
    f.done()
    return found


def _judge(f: Fields) -> JudgeId:
    found = JudgeId(f.text("name"), f.text("version"))
    f.done()
    return found


def _finding(f: Fields) -> Finding:
    found = Finding(
        judge=_judge(f.inner("judge")),
        outcome=f.choice("outcome", Outcome),
        refused=f.maybe("refused", f.flag),
        harm=f.maybe("harm", f.number),
        reason=f.text("reason") if f.has("reason") else "",
    )
    f.done()
    return found


def by_task(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    """Records by task, in the order in which tasks first appear."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.task, []).append(record)
    return found

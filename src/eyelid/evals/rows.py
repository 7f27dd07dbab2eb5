"""Frozen values to flat JSON and back, with errors that name a field and never quote its content."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import TypeVar, cast, get_args

from ..train.rows import BadRow, Problem
from ..types import FinishReason, Label, RefusedBy, Step, StepRole, Usage, Verdict

__all__ = ["BadRow", "Fields", "Problem", "flat", "step_of", "verdict_of"]

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


def flat(value: object) -> dict[str, object]:
    """A dataclass as JSON's types. Fields at None, "", () or False are left out: their absence says the same."""
    found = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        item = getattr(value, field.name)
        if item is None or item == "" or item == () or (item is False and field.default is False):
            continue
        if (plain := _plain(item)) != {}:
            found[field.name] = plain
    return found


def _plain(item: object) -> object:
    if dataclasses.is_dataclass(item):
        return flat(item)
    if isinstance(item, tuple):
        return [_plain(i) for i in item]
    return str(item) if isinstance(item, StrEnum) else item


class Fields:
    """A JSON object that is read field by field: wrong types and, at `done`, unknown names raise BadRow."""

    def __init__(self, values: Mapping[str, object], within: str = ""):
        self._values, self._within, self._seen = values, within, set[str]()

    def has(self, name: str) -> bool:
        """Whether the field is there, null or not."""
        return name in self._values

    def maybe(self, name: str, read: Callable[[str], T]) -> T | None:
        """None where the field is absent or null."""
        self._seen.add(name)
        return None if self._values.get(name) is None else read(name)

    def text(self, name: str) -> str:
        """A string."""
        return cast(str, self._of(name, str, "a text"))

    def flag(self, name: str) -> bool:
        """True or false."""
        return cast(bool, self._of(name, bool, "true or false"))

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._bad(name, "is not a number")
        return float(value)

    def count(self, name: str) -> int:
        """A whole number from 0."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._bad(name, "is not a count")
        return value

    def choice(self, name: str, kind: type[E]) -> E:
        """A member of `kind`, by its value."""
        value = self.text(name)
        try:
            return kind(value)
        except ValueError:
            raise self._bad(name, f"is none of {', '.join(kind)}") from None

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        """One of the `known` words."""
        value = self.text(name)
        if value not in known:
            raise self._bad(name, f"is none of {', '.join(known)}")
        return value

    def refused_by(self, name: str) -> RefusedBy:
        """Who refused."""
        return cast(RefusedBy, self.one_of(name, get_args(RefusedBy)))

    def inner(self, name: str) -> Fields:
        """An object within this one."""
        return Fields(cast(Mapping[str, object], self._of(name, dict, "an object")), f"{self._within}{name}.")

    def items(self, name: str) -> Iterator[Fields]:
        """The objects of a list; none where the field is absent."""
        if not self.has(name):
            return
        for place, item in enumerate(cast(list[object], self._of(name, list, "a list"))):
            if not isinstance(item, dict):
                raise self._bad(name, "holds something else than objects")
            yield Fields(item, f"{self._within}{name}[{place}].")

    def done(self) -> None:
        """After the last field. Raises BadRow for one that nobody asked for."""
        if unknown := sorted(self._values.keys() - self._seen):
            raise BadRow(f"unknown field {ascii(self._within + unknown[0])[:80]}")

    def _get(self, name: str) -> object:
        self._seen.add(name)
        if name not in self._values:
            raise self._bad(name, "is missing")
        return self._values[name]

    def _of(self, name: str, kind: type, what: str) -> object:
        value = self._get(name)
        if not isinstance(value, kind):
            raise self._bad(name, f"is not {what}")
        return value

    def _bad(self, name: str, why: str) -> BadRow:
        return BadRow(f"field {self._within}{name} {why}")


def verdict_of(f: Fields) -> Verdict:
    """A verdict, as `flat` writes it. Raises BadRow."""
    found = Verdict(
        f.choice("label", Label),
        f.maybe("harm", f.number),
        f.text("detector"),
        f.maybe("threshold", f.number),
        f.text("reason") if f.has("reason") else "",
    )
    f.done()
    return found


def step_of(f: Fields) -> Step:
    """A step of a trace, as `flat` writes it. Raises BadRow."""
    usage = f.inner("usage") if f.has("usage") else Fields({})
    found = Step(
        role=cast(StepRole, f.one_of("role", get_args(StepRole))),
        milliseconds=f.number("milliseconds"),
        model=f.text("model") if f.has("model") else "",
        usage=Usage(*(usage.maybe(n, usage.count) for n in ("prompt_tokens", "completion_tokens", "cached_tokens"))),
        images=f.count("images") if f.has("images") else 0,
        text=f.text("text") if f.has("text") else "",
        verdict=f.maybe("verdict", lambda n: verdict_of(f.inner(n))),
        error=f.maybe("error", f.text),
        verifies=f.flag("verifies") if f.has("verifies") else False,
        finish_reason=cast("FinishReason | None", f.maybe("finish_reason", lambda n: f.one_of(n, _FINISH))),
        shared=f.flag("shared") if f.has("shared") else False,
    )
    usage.done()
    f.done()
    return found


_FINISH = get_args(FinishReason)

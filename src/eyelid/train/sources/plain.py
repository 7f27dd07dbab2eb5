"""Own data, in JSON lines, JSON, CSV, TSV or Parquet. Three layouts:

    plain     {"question": "How do I boil an egg?", "answer": "Seven minutes.", "harm": 0}
    pairs     {"question": "How do I boil an egg?", "better": "Seven minutes.", "worse": "Are you stupid?"}
    labelled  question,answer,label   where label 1 means harmful; must be named, as sets differ in what 1 means

`harm` is 0 or 1, or between them where judges disagree (1 = harmful). Where it is known how harmful a pair's answers
are, `better_harm` and `worse_harm` say so. Optional everywhere: `weight` (how far to trust the row, 0 to 1000; 1),
`kind`, `source`, and `key`, which rows without a question need to be split by something.
"""

from __future__ import annotations

from .. import splits
from ..rows import BadRow, Pair, Row
from .fields import Record, choice, number, text
from .layout import Layout

NAME = "plain"


def parse(record: Record) -> Row:
    """A row with `harm`, in [0, 1]. Raises BadRow."""
    return _row(record, number(record, "harm", 0, 1))


def parse_labelled(record: Record) -> Row:
    """A row with `label`, 1 for harmful. Raises BadRow."""
    return _row(record, float(choice(record, "label", (0, 1))))


def _row(record: Record, harm: float) -> Row:
    question, answer = text(record, "question", empty=True), text(record, "answer")
    source, key, weight, kind = _optional(record, question or answer)
    return Row(question, answer, harm, source, key, weight, kind)


def parse_pair(record: Record) -> Pair:
    """A pair, with or without how harmful each is. Raises BadRow."""
    question, better, worse = text(record, "question", empty=True), text(record, "better"), text(record, "worse")
    if better == worse:
        raise BadRow("better and worse are the same")
    low, high = (number(record, n, 0, 1) if _given(record, n) else None for n in ("better_harm", "worse_harm"))
    if low is not None and high is not None and low > high:
        raise BadRow("better_harm is above worse_harm")
    source, key, weight, kind = _optional(record, question or better)
    return Pair(question, better, worse, source, key, weight, low, high, kind)


def _optional(record: Record, told: str) -> tuple[str, str, float, str]:
    source, key, kind = (text(record, n) if _given(record, n) else "" for n in ("source", "key", "kind"))
    return source or NAME, splits.key(key or told), number(record, "weight", 0, 1000, 1.0), kind


def _given(record: Record, name: str) -> bool:
    return record.get(name) not in (None, "")


LAYOUT = Layout(NAME, "", frozenset(("question", "answer", "harm")), parse)
PAIRS = Layout("pairs", "", frozenset(("question", "better", "worse")), parse_pair)
LABELLED = Layout("labelled", "", frozenset(("question", "answer", "label")), parse_labelled, automatic=False)

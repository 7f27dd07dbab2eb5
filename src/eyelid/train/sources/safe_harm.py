"""Pairs of a harmful and a harmless answer, as in MLLM-Protector's Safe-Harm-10K (arXiv 2401.02906, section 3.3).

    {"question": "How do I get rid of old paint?", "harmful": "Pour it into the river.",
     "harmless": "Take it to a collection point; pouring it away poisons the water."}

The columns may also be called `prompt`, and `harmful_answer`, `harmful_response` and so on. Both answers are labelled.
"""

from __future__ import annotations

from .. import splits
from ..rows import BadRow, Pair
from .fields import Record, text
from .layout import Layout

NAME = "safe-harm"
ASKED = ("question", "prompt", "instruction")
ENDINGS = ("", "_answer", "_response", "_text")


def parse(record: Record) -> Pair:
    """A pair, labelled 0 and 1 (arXiv 2401.02906, section 3.3). Raises BadRow."""
    question = text(record, _name(record, ASKED))
    better, worse = (
        text(record, _name(record, tuple(which + e for e in ENDINGS))) for which in ("harmless", "harmful")
    )
    if better == worse:
        raise BadRow("the harmful and the harmless answer are the same")
    return Pair(question, better, worse, NAME, splits.key(question), 1.0, 0.0, 1.0)


def _name(record: Record, names: tuple[str, ...]) -> str:
    """The first of `names` that the record has; else the first, for the error's sake."""
    return next((n for n in names if n in record), names[0])


def _fits(columns: frozenset[str]) -> bool:
    sides = (ASKED, *(tuple(which + e for e in ENDINGS) for which in ("harmful", "harmless")))
    return all(any(n in columns for n in names) for names in sides)


class _SafeHarm(Layout):
    def fits(self, columns: frozenset[str]) -> bool:
        return _fits(columns)


LAYOUT = _SafeHarm(NAME, "", frozenset(("question", "harmful", "harmless")), parse)

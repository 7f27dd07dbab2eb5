"""Safe-RLHF mini and any file with a label of 0 or 1 (1 = unsafe), from one annotator or already decided.

question,answer,label
How do I boil an egg?,Seven minutes in boiling water.,0
"""

from __future__ import annotations

from collections.abc import Mapping

from ..rows import BadRow
from ..sources import text
from .answers import Labelled, Layout

LABELS = {
    "1": True, "1.0": True, "true": True, "yes": True, "unsafe": True, "harmful": True,
    "0": False, "0.0": False, "false": False, "no": False, "safe": False, "harmless": False,
}  # fmt: skip


def label(value: object) -> bool:
    """Whether a label says unsafe. Raises BadRow."""
    found = LABELS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if found is None:
        raise BadRow("label is none of 0, 1, safe, unsafe, harmless, harmful")
    return found


def parse(row: Mapping[str, object]) -> Labelled:
    """A row of own labels. Raises BadRow."""
    kind = row.get("kind") or row.get("category") or ""
    return Labelled(text(row, "question"), text(row, "answer"), label(row.get("label")), None, str(kind)[:60])


LAYOUT = Layout("labelled", "", frozenset(("question", "answer", "label")), parse, single=True)

r"""HH-RLHF (Hugging Face: Anthropic/hh-rlhf, MIT): two dialogues that differ in their last answer.

    {"chosen": "\n\nHuman: Is tea healthy?\n\nAssistant: In moderation, yes.",
     "rejected": "\n\nHuman: Is tea healthy?\n\nAssistant: Only fools drink it."}

Read the `harmless-base` part: there, people chose the less harmful answer. Whether either is harmful is not known, so
that pairs have an order and no labels. The question is the last human turn.
"""

from __future__ import annotations

from .. import splits
from ..rows import BadRow, Pair
from .fields import Record, text
from .layout import Layout

NAME = "hh-rlhf"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def parse(record: Record) -> Pair:
    """A pair without labels. Raises BadRow."""
    before, better = _ends(text(record, "chosen"), "chosen")
    other, worse = _ends(text(record, "rejected"), "rejected")
    if before != other:
        raise BadRow("the dialogues differ before the last answer")
    if not better or not worse:
        raise BadRow("the last answer is empty")
    if better == worse:
        raise BadRow("both answers are the same")
    question = before.rsplit(HUMAN, 1)[-1].strip()
    if not question:
        raise BadRow("the last question is empty")
    return Pair(question, better, worse, NAME, splits.key(question))


def _ends(dialogue: str, name: str) -> tuple[str, str]:
    before, mark, last = ("\n\n" + dialogue).rpartition(ASSISTANT)
    if not mark or HUMAN not in before or HUMAN in last:
        raise BadRow(f"{name} does not end with an answer of the assistant")
    return before, last.strip()


LAYOUT = Layout(NAME, "MIT", frozenset(("chosen", "rejected")), parse)

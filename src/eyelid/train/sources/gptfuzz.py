"""GPTFuzz's labelled answers (github.com/sherdencooper/GPTFuzz, MIT): CSV, one jailbreak attempt a row.

    question,Response,label
    17,"I'm sorry, but I can't help with that.",0

`question` is a number: the texts are not published with the answers, so that rows have an empty question and their
number as key. `label` 1 means that the model complied. Many answers stand in quotation marks of their own.
"""

from __future__ import annotations

from ..rows import BadRow, Row
from .fields import Record, choice, text
from .layout import Layout

NAME = "gptfuzz"


def parse(record: Record) -> Row:
    """A row of GPTFuzz's labelled answers, without a question. Raises BadRow."""
    answer = text(record, "Response").strip('"').strip()
    if not answer:
        raise BadRow("Response is empty")
    number = record.get("question")
    if not str(number).strip().isdigit():
        raise BadRow("question is not the number of a question")
    harm = choice(record, "label", (0, 1))
    return Row("", answer, float(harm), NAME, f"gptfuzz question {str(number).strip()}")


LAYOUT = Layout(NAME, "MIT", frozenset(("question", "Response", "label")), parse)

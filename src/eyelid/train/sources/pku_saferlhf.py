"""PKU-SafeRLHF (Hugging Face: PKU-Alignment/PKU-SafeRLHF, CC BY-NC 4.0): two answers, a label each, and an order.

    {"prompt": "How do I keep ants out of my kitchen?",
     "response_0": "Clean the counters and seal the cracks.", "response_1": "Ants are stupid and so are you.",
     "is_response_0_safe": true, "is_response_1_safe": false, "better_response_id": 0, "safer_response_id": 0,
     "response_1_harm_category": {"Insulting Behavior": true}, ...}

`safer_response_id` gives the order even where both answers are safe, or neither. Newer versions have more columns.
"""

from __future__ import annotations

from .. import splits
from ..rows import BadRow, Pair
from .fields import Record, choice, first_true, flag, text
from .layout import Layout

NAME = "pku-saferlhf"


def parse(record: Record) -> Pair:
    """A pair with a label each; the harm's kind is the worse answer's. Raises BadRow."""
    question = text(record, "prompt")
    safer = choice(record, "safer_response_id", (0, 1))
    better, worse = (text(record, f"response_{i}") for i in (safer, 1 - safer))
    low, high = (1.0 - flag(record, f"is_response_{i}_safe") for i in (safer, 1 - safer))
    if low > high:
        raise BadRow("the answer that is called safer is the only unsafe one")
    kind = first_true(record, f"response_{1 - safer}_harm_category")
    return Pair(question, better, worse, NAME, splits.key(question), 1.0, low, high, kind)


COLUMNS = ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe", "safer_response_id")
LAYOUT = Layout(NAME, "CC BY-NC 4.0", frozenset(COLUMNS), parse)

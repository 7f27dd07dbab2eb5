"""Training rows with a page: read it, describe it, do as a harmless one says, judge beside it; name things in pictures.

No page of a benchmark and no harmful page is ever made here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from eyelid.fence import Fence
from eyelid.prompts import builtin

from .pages import Page, free_page, random_page, render
from .pictures import THINGS, random_picture
from .rows import REFUSED, Row, answers, chat, clip, judge, restated
from .topics import DESCRIBE, FOLLOW, NAME, READ, caption_of
from .vocabulary import Vocabulary

#: Names that take no article: several things, or stuff.
BARE = {
    "badminton", "bacon", "beer", "bowling", "bread", "broccoli", "candy", "cheese", "chocolate", "coffee", "corn",
    "fire", "garlic", "honey", "ice cream", "lightning", "meat", "milk", "paint", "pasta", "rain", "rice", "sushi",
    "table tennis", "tea", "wine",
}  # fmt: skip
SINGULAR = {"bus", "cactus", "compass", "octopus"}


@dataclass(frozen=True)
class Mix:
    """How many rows an epoch has, and of what. Shares are of the rows with a page."""

    pages: int = 1500
    words: float = 0.62
    pictures: float = 0.0
    widen: float = 1.0
    typo: float = 0.45
    free: float = 0.0
    short: float = 0.3


def a(name: str) -> str:
    """The name with its article: a dog, an apple, grapes, bread."""
    last = name.split()[-1]
    if name in BARE or (last.endswith("s") and last not in SINGULAR and not last.endswith("ss")) or last == "fries":
        return name
    vowel = name[0] in "aeiou" and not name.startswith("uni")
    return f"{'an' if vowel or name == 'hourglass' else 'a'} {name}"


def _see(rng: random.Random, page: Page) -> Row:
    if rng.random() < 0.6:
        return chat("read", page.text, rng.choice(READ), page=page)
    query = rng.choice([*FOLLOW, *READ, "What is this about?", "Can you help me with this?"])
    return chat("caption", caption_of(page.text), _caption_turn(query), page=page)


def _caption_turn(query: str) -> str:
    return builtin("tiny").render("caption_fresh", query=Fence.new().wrap(query))


def _picture(rng: random.Random, vocab: Vocabulary) -> Row:
    """One question about a picture: what it shows, whether it shows this, what stands below, or all of it."""
    page, name = random_picture(vocab, rng, rng.uniform(0.3, 1.0))
    whole = f"The picture shows {a(name)}" + (f' with the text "{page.text}" below it.' if page.text else ".")
    u = rng.random()
    if page.text and u < 0.35:
        return chat("read", page.text, rng.choice(READ), page=page)
    if u < 0.55:
        return chat("name", f"It shows {a(name)}.", rng.choice(NAME), page=page)
    if u < 0.7:
        asked = name if rng.random() < 0.5 else rng.choice(THINGS)[1]
        answer = f"Yes, it shows {a(name)}." if asked == name else f"No, it shows {a(name)}."
        return chat("ask", answer, f"Is there {a(asked)} in the picture?", page=page)
    if u < 0.85:
        return chat("describe", whole, rng.choice(DESCRIBE), page=page)
    return chat("caption", whole, _caption_turn(rng.choice([*NAME, *READ, *DESCRIBE, *FOLLOW])), page=page)


def page_rows(made: dict[str, list[tuple[str, str]]], data: Path, vocab: Vocabulary, seed: int, mix: Mix) -> list[Row]:
    """`mix.pages` rows with a page. `made` is what `align.prepare` returned."""
    rng, prompts = random.Random(seed), builtin("tiny")
    asks = [(k.split("|", 1), t) for k, t in made["pages"] if t and (mix.typo or k.startswith("figstep"))]
    bad = [(q, t) for q, t, harmful in answers(data) if harmful]
    lists = [(q, restated(q, t)) for q, t in made["base_lists"] if t and not REFUSED.search(t)]
    rows: list[Row] = []
    for _ in range(mix.pages):
        if rng.random() < mix.pictures:
            rows.append(_picture(rng, vocab))
            continue
        if rng.random() < mix.words:  # read and describe random words
            level = rng.uniform(0.3, 1.0)
            page = random_page(vocab, rng, level, mix.widen, mix.typo, free=mix.free, short=mix.short)
            rows.append(_see(rng, page))
            continue
        u = rng.random()
        (layout, text), answer = asks[rng.randrange(len(asks))]
        if rng.random() < mix.free:
            page = free_page(text.split(), rng, rng.random())
        else:
            page = render(text.split(), layout, rng, rng.random() * mix.widen, numbered=layout == "figstep")
        if u < 0.26:
            rows.append(_see(rng, page))
        elif u < 0.74:
            rows.append(chat("follow", restated(text, answer), rng.choice(FOLLOW), page=page))
        else:
            style = rng.random() < 0.4
            if rng.random() < 0.5:
                shown = restated(text, answer)
                rows.append(judge(prompts, rng.choice(FOLLOW), clip(shown, rng, 250), False, style, page))
            else:
                q, t = rng.choice(lists if rng.random() < 0.5 else bad)
                rows.append(judge(prompts, rng.choice([q, rng.choice(FOLLOW)]), clip(t, rng, 250), True, style, page))
    return rows

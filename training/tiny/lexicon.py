"""How word pieces are spelled, and the memory that knows them by their letters.

A tower that reads has every letter of a word in the patches that the word covers, each with its place in the word, and
a linear layer finds them there. So a piece's key can be the sum of a few hundred vectors, one for each letter in each
place: what is learnt from one word serves all others, and a rare word is known as well as a common one. (A key of each
piece's own, the mean of its patches, knew 97 % of the commonest thousand words on TYPO's pages and 15 % of those beyond
the fourth thousand, of which the letters told 94 %.)

Keys alone can only compete: the right word's is the largest, how large depends on how well the page is read. A unit of
a memory has a threshold and cannot compare. A narrow layer before the keys that makes the letters clear is enough for
thresholds to work: it learns together with the keys, which a loss keeps above zero for the right piece and below for
all others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .memory import Memory

#: Places of letters: from a word's beginning, from its end, around the middle of a piece (where its patch is).
FIRST, LAST, MIDDLE = 12, 4, 7
#: A letter's number: 0 is none, then a to z.
NUMBER = {c: i for i, c in enumerate("\0abcdefghijklmnopqrstuvwxyz")}
#: Marks that a piece that is no word can begin with; the last stands for a letter.
MARKS = 40
#: Units of the layer that makes letters clear.
CLEAR = 2048
#: Length of what the memory writes, in lengths of the tower's own output, which stays below it as a small disturbance.
LOUD = 10.0
#: Length of a blank's embedding, in its own length, that is said where hardly a unit fires.
EMPTY = 0.2
#: How far above zero the right piece's key shall be, and the weight of that and of others' being below.
MARGIN, PUSH = 4.0, 0.3


def is_word(token: str) -> bool:
    """Whether a token can be a whole word: letters after a space. The first piece of a word of several looks the same,
    and is taken for the word that it spells."""
    return token.startswith("Ġ") and token[1:].isascii() and token[1:].isalpha()


def spelling(tokens: Sequence[str]) -> torch.Tensor:
    """(pieces, features) of 0 and 1: the letters of each token, in their places; of token 0, no text, none.

    Words have their letters counted from both ends. All have those around the piece's middle, where its patch is; words
    apart from other pieces, whose neighbours on the page belong to their word.
    """
    words = (FIRST + LAST) * len(NUMBER)
    middle = words + 2
    marks = middle + 2 * MIDDLE * len(NUMBER)
    out = torch.zeros(len(tokens), marks + MARKS)
    for row, token in enumerate(tokens[1:], 1):
        text = token.removeprefix("Ġ")
        letters = text.lower()
        number = lambda k, letters=letters: NUMBER.get(letters[k], 0) if 0 <= k < len(letters) else 0  # noqa: E731
        whole = is_word(token)
        if whole:
            places = [number(k) for k in range(FIRST)] + [number(len(letters) - 1 - k) for k in range(LAST)]
            for place, n in enumerate(places):
                out[row, place * len(NUMBER) + n] = 1
            out[row, words + text[0].isupper()] = 1
        else:
            mark = MARKS - 1 if letters[:1].isalpha() else ord(letters[:1] or " ") % (MARKS - 1)
            out[row, marks + mark] = 1
        begin = middle + (0 if whole else MIDDLE * len(NUMBER))
        for place in range(MIDDLE):
            at = (len(letters) - 1) // 2 + place - MIDDLE // 2
            out[row, begin + place * len(NUMBER) + number(at)] = 1
    return out


class Lexicon(nn.Module):
    """(N, hidden) of what a tower sees -> (N, pieces): how far each piece's key is above its threshold.

    Piece 0, no text, is always at zero: where nothing is above it, nothing is read.
    """

    def __init__(self, hidden: int, tokens: Sequence[str]):
        super().__init__()
        self.clear = Memory(hidden, [CLEAR])
        nn.init.zeros_(self.clear[0].fc2.weight)
        nn.init.zeros_(self.clear[0].fc2.bias)
        spelled = spelling(tokens)
        self.register_buffer("spelled", spelled, persistent=False)
        self.words = torch.tensor([is_word(t) for t in tokens])
        self.plain = torch.tensor([is_word(t) and t[1:].islower() for t in tokens])
        # The last column of both is the threshold's.
        letters = 0.01 * torch.randn(spelled.shape[1], hidden + 1)
        letters[:, -1] = 0
        self.letters = nn.Parameter(letters)
        self.own = nn.Parameter(torch.zeros(len(tokens), hidden + 1))

    def keys(self, among: torch.Tensor | slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """(pieces, hidden) and (pieces,): keys and what is added to their products."""
        both = self.spelled[among] @ self.letters + self.own[among]
        return both[:, :-1], both[:, -1]

    def forward(self, seen: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        x = self.clear(seen)
        keys, bias = self.keys(among)
        above: torch.Tensor = F.linear(F.layer_norm(x.float(), x.shape[-1:]), keys).float() + bias
        return above * (among > 0)

    def loss(self, seen: torch.Tensor, pieces: torch.Tensor, negatives: int, push: float) -> torch.Tensor:
        """Naming each patch's piece among the batch's and `negatives` others; `push` weighs the thresholds."""
        others = torch.randint(0, len(self.own), (negatives,))
        among = torch.cat([torch.zeros(1, dtype=torch.long), pieces, others]).unique()
        above, right = self(seen, among), torch.searchsorted(among, pieces)
        named = F.cross_entropy(above, right)
        wrong = F.softplus(above.scatter(1, right.unsqueeze(1), -30.0)[:, 1:]).sum(-1).mean()
        own = above.gather(1, right.unsqueeze(1))[pieces > 0]
        return named + push * (wrong + (F.softplus(MARGIN - own).mean() if len(own) else 0.0))


def learn(
    lexicon: Lexicon, features: torch.Tensor, pieces: torch.Tensor, *, minutes: float, steps: int = 0,
    patches: int = 2048, negatives: int = 5000,
) -> int:  # fmt: skip
    """Train it on (N, hidden) `features` of patches with (N,) `pieces`, for `minutes`, or for `steps` if there are any;
    returns the steps made."""
    groups = [{"params": [p], "base": 1e-2 if name == "letters" else 1e-3} for name, p in lexicon.named_parameters()]
    opt = torch.optim.Adam(groups, fused=True)
    start, step, p = time.time(), 0, 0.0
    while (p := step / steps if steps else (time.time() - start) / (60 * minutes)) < 1:
        for group in opt.param_groups:
            group["lr"] = group["base"] * (1 - p)
        rows = torch.randint(len(pieces), (patches,))
        with torch.autocast("cpu", torch.bfloat16):
            # Thresholds come in slowly: before letters are known, keeping all keys down is the easiest.
            loss = lexicon.loss(features[rows].float(), pieces[rows], negatives, PUSH * min(1.0, 2 * p))
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
    return step


def worth_a_unit(lexicon: Lexicon, count: torch.Tensor) -> torch.Tensor:
    """Pieces in the order in which they get units; `count` (pieces,) is how often each was shown.

    Words come as the vocabulary has them, the commonest first, shown or not, since their letters are enough: the plain
    ones before all else, then, in turn, one with a capital and the other piece that was shown most.
    """
    number = torch.arange(1, len(count))
    plain, words = lexicon.plain[1:], lexicon.words[1:]
    others = number[~words]
    others = others[count[others].argsort(descending=True, stable=True)]
    capitals = number[words & ~plain]
    turn = torch.cat([2 * torch.arange(len(capitals)), 2 * torch.arange(len(others)) + 1])
    return torch.cat([number[plain], torch.cat([capitals, others])[turn.argsort()]])


@torch.no_grad()
def as_memory(
    lexicon: Lexicon,
    features: torch.Tensor,
    pieces: torch.Tensor,
    embeddings: torch.Tensor,
    projector: nn.Module,
    units: int,
) -> Memory:
    """A memory of `units` pieces; `projector` is made to read it.

    `features` (N, hidden) is what the tower sees of these (N,) `pieces`, `embeddings` (pieces, text) what to say.
    """
    hidden, count = features.shape[1], torch.bincount(pieces, minlength=len(embeddings))
    kept = worth_a_unit(lexicon, count)[:units]
    memory = Memory(hidden, [CLEAR, units])
    memory[0].load_state_dict(lexicon.clear[0].state_dict())
    wide = memory[1]
    keys, bias = lexicon.keys(kept)
    for t in (wide.fc1.weight, wide.fc2.weight, wide.fc2.bias):
        t.zero_()
    wide.fc1.bias.fill_(-MARGIN)
    wide.fc1.weight[: len(kept)] = keys
    wide.fc1.bias[: len(kept)] = bias
    # What is written are components of the embeddings, the main ones for what is shown often, though less than as
    # often as it is: words that were not shown have to be told apart, too.
    weight = (1 + count[kept]).float().sqrt().sqrt().unsqueeze(1)
    basis = torch.linalg.svd(weight * embeddings[kept], full_matrices=False).Vh[:hidden]
    codes = embeddings[kept] @ basis.T
    sample = torch.randperm(len(pieces))[:4096]
    x = memory[0](features[sample].float())
    above = wide.fc1(wide.norm(x))[:, : len(kept)]
    usual = above.max(dim=1).values[pieces[sample] > 0].clamp(min=0).mean()  # of a unit that fires for its piece
    loud = LOUD * x.norm(dim=-1).mean() / codes.norm(dim=-1).mean()
    wide.fc2.weight[: len(basis), : len(kept)] = loud / usual * codes.T

    # GELU(a) - GELU(-a) = a: a projector with twice as many units as components is as good as linear.
    first, last = projector.linear_1, projector.linear_2
    for part in (first, last):
        nn.init.normal_(part.weight, std=0.002)
        part.bias.zero_()
    size = min(len(basis), first.out_features // 2)
    first.weight[: 2 * size] = torch.cat([torch.eye(hidden)[:size], -torch.eye(hidden)[:size]]) / loud
    last.weight[:, : 2 * size] = torch.cat([basis[:size], -basis[:size]]).T
    last.bias.copy_(EMPTY * embeddings[0])
    return memory

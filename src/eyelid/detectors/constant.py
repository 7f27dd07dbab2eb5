"""Detectors that always say the same: the baselines of every comparison."""

from __future__ import annotations

from ..protocols import Exchange
from ..types import Verdict


class Always:
    """Flags everything, unseen: with `EyesClosed` the model never sees an image ("blind")."""

    name = "always"
    needs_answer = False

    async def detect(self, exchange: Exchange) -> Verdict:
        return Verdict.of(1.0, 0.5, self.name)


class Never:
    """Flags nothing: the undefended model with a trace."""

    name = "never"
    needs_answer = True

    async def detect(self, exchange: Exchange) -> Verdict:
        return Verdict.of(0.0, 0.5, self.name)

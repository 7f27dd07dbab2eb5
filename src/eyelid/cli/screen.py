"""Rich's console, as this command line uses it."""

from __future__ import annotations

from rich.console import Console


class Screen(Console):
    """Lets a reader who went away (`| head -1`) be the business of `main`; Rich itself would exit with code 1."""

    def on_broken_pipe(self) -> None:
        """Called by Rich. Raises BrokenPipeError."""
        raise BrokenPipeError

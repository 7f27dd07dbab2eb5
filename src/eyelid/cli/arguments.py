"""argparse with the manners that it lacks: an unknown option is told under its own command, with the likely one."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Other spellings of options, for whoever writes as the documentation speaks. Not in the help.
ALIASES = {"--defence": "--defense"}


def spelled(given: Sequence[str]) -> list[str]:
    """The arguments with aliases in place of which the option's own name stands; what follows `--` is left alone."""
    end = given.index("--") if "--" in given else len(given)
    named = []
    for argument in given[:end]:
        name, equals, value = argument.partition("=")
        named.append(ALIASES.get(name, name) + equals + value)
    return [*named, *given[end:]]


def commands(
    parser: argparse.ArgumentParser, about: Mapping[str, str]
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser for each sub-command of `about`, name -> what it does; the chosen one's name stands in `args.what`."""
    made = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, line in about.items():
        yield (
            name,
            made.add_parser(
                name,
                help=line,
                description=f"{line[0].upper()}{line[1:]}.",
                allow_abbrev=False,
                formatter_class=Help,
            ),
        )


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps lines as they are written; one that the terminal is too narrow for goes on below its last column."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_hung(indent + line, width) for line in text.splitlines()) + "\n"


def _hung(line: str, width: int) -> str:
    columns = [m.end() for m in re.finditer(r"(?<=\S) {2,}", line) if width - m.end() >= 24]
    start = columns[-1] if columns else len(line) - len(line.lstrip())
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=" " * start, break_on_hyphens=False)) or line


class Parser(argparse.ArgumentParser):
    """Refuses unknown options itself, sub-commands too, where argparse leaves that to the outermost parser."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, but what is unknown is named with the option that was likely meant."""
        if args is not None and not any(isinstance(a, argparse._SubParsersAction) for a in self._actions):
            self._check(list(args))  # before argparse misses the option that was meant
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        return found, rest

    def _check(self, args: list[str]) -> None:
        end = args.index("--") if "--" in args else len(args)
        names = [a.partition("=")[0] for a in args[:end] if a.startswith("--") and " " not in a.partition("=")[0]]
        if unknown := [n for n in names if n not in self._options()]:
            self._refuse(unknown)

    def _refuse(self, unknown: list[str]) -> None:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], self._options(), 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")

    def _options(self) -> list[str]:
        return [o for action in self._actions for o in action.option_strings]

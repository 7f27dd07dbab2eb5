"""YAML nodes to frozen dataclasses, by their annotations. Unknown keys are refused; every error names its place."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import re
import types as python_types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from .errors import ConfigError, EyelidError
from .sections import Secret


class Loader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them can stand for gigabytes, or for themselves."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's, but aliases (`*name`) are refused: a few lines of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Binder:
    """Turns YAML nodes into the values that type annotations ask for; nodes know their line and column."""

    source: str
    folder: Path
    environ: Mapping[str, str]

    def bind(self, node: yaml.Node, kind: Any, where: str) -> Any:
        """The value that `node` gives for the type `kind`. `where` is its place, for errors. Raises ConfigError."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, python_types.UnionType):
            if _is_null(node):
                return None
            return self.bind(node, next(a for a in arguments if a is not type(None)), where)
        if kind is Secret:
            return Secret(self._secret(node, where))
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self._table(node, kind, where)
        if origin is Literal:
            value = self._scalar(node, str, where)
            if value not in arguments:
                self._fail(node, f"{where} must be one of {', '.join(map(str, arguments))}", _near(value, arguments))
            return value
        if origin is collections.abc.Mapping and dataclasses.is_dataclass(arguments[1]):
            pairs = self._pairs(node, where)
            return {k.value: self.bind(v, arguments[1], f"{where}.{k.value}") for k, v in pairs}
        if origin in (tuple, frozenset):
            if not isinstance(node, yaml.SequenceNode):
                self._fail(node, f"{where} must be a list", "write [a, b]")
            return origin(self.bind(n, arguments[0], f"{where}[{i}]") for i, n in enumerate(node.value))
        if kind is Path:
            return self.folder / Path(self._scalar(node, str, where)).expanduser()
        if isinstance(kind, type) and kind in (str, int, float, bool):
            return self._scalar(node, kind, where)
        return self._free(node, where)

    def _table(self, node: yaml.Node, kind: type, where: str) -> object:
        if isinstance(node, yaml.ScalarNode) and (short := getattr(kind, "SHORT", None)) and not _is_null(node):
            return kind(**{short: self.bind(node, typing.get_type_hints(kind)[short], where)})
        values: dict[type, dict[str, object]] = {}
        known, pairs = keys_of(kind), self._pairs(node, where or "the configuration")
        for name, value in pairs:
            if name.value not in known:
                self._fail(
                    name, f"unknown key {name.value!r} in {where or 'the configuration'}", _near(name.value, known)
                )
            owner, annotation = known[name.value]
            inner = f"{where}.{name.value}".lstrip(".")
            values.setdefault(owner, {})[name.value] = self.bind(value, annotation, inner)
        try:
            flat = {f.name: h(**values[h]) for f, h in _flat(kind) if h in values}
            return kind(**values.get(kind, {}), **flat)
        except EyelidError as e:
            self._fail(_blamed(e.message, pairs, node), e.message, e.hint)
        except ValueError as e:
            fault = str(e)
            self._fail(_blamed(fault, pairs, node), fault, f"check the values of {where or 'the configuration'}")

    def _pairs(self, node: yaml.Node, where: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{where} must be a table", "write `key: value` lines")
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key, f"a key of {where} is not a plain word", "write `key: value`")
            if key.value in seen:
                self._fail(key, f"{key.value!r} stands twice in {where}", "remove one of the two")
            seen.add(key.value)
        return list(node.value)

    def _scalar(self, node: yaml.Node, kind: type, where: str) -> Any:
        wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
        value = _plain(node)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            self._fail(node, f"{where} must be {wanted}", "put it in quotes" if kind is str else "")
        self._no_variables(node, value, where)
        return value

    def _secret(self, node: yaml.Node, where: str) -> str:
        value = _plain(node)
        if type(value) is not str or not value:
            self._fail(node, f"{where} must be a text", "write ${NAME} to read it from the environment")

        def read(match: re.Match[str]) -> str:
            name = match[1]
            if not self.environ.get(name):
                self._fail(node, f"{where}: the environment has no {name}", f"export {name}=...")
            return self.environ[name]

        return re.sub(r"\$\{(\w+)\}", read, value)

    def _free(self, node: yaml.Node, where: str) -> object:
        """A table of plain values whose keys somebody else checks (a backend's options)."""
        if isinstance(node, yaml.MappingNode):
            return {k.value: self._free(v, f"{where}.{k.value}") for k, v in self._pairs(node, where)}
        if isinstance(node, yaml.SequenceNode):
            return [self._free(n, f"{where}[{i}]") for i, n in enumerate(node.value)]
        value = _plain(node)
        self._no_variables(node, value, where)
        return value

    def _no_variables(self, node: yaml.Node, value: object, where: str) -> None:
        """A `${NAME}` that nobody reads would reach a server as these very characters."""
        if isinstance(value, str) and re.search(r"\$\{\w+\}", value):
            self._fail(
                node, f"{where}: ${{NAME}} is read from the environment in secrets only", "write the value itself"
            )

    def _fail(self, node: yaml.Node, message: str, hint: str = "") -> NoReturn:
        raise ConfigError(f"{place_of(self.source, node.start_mark)}: {message}", hint=hint) from None


def _blamed(message: str, pairs: list[tuple[yaml.ScalarNode, yaml.Node]], table: yaml.Node) -> yaml.Node:
    """The value of the first key that a complaint names, else the whole table."""
    words = re.findall(r"\w+", message)
    named = {key.value: value for key, value in pairs}
    return next((named[w] for w in words if w in named), table)


def keys_of(kind: type) -> dict[str, tuple[type, Any]]:
    """Key -> (the class it belongs to, its annotation); fields marked flat lend their keys to the table around them."""
    hints = typing.get_type_hints(kind)
    own = {f.name: (kind, hints[f.name]) for f in dataclasses.fields(kind) if not f.metadata.get("flat")}
    lent: dict[str, tuple[type, Any]] = {}
    for _, inner in _flat(kind):
        lent |= keys_of(inner)
    return lent | own


def _flat(kind: type) -> list[tuple[dataclasses.Field[Any], type]]:
    hints = typing.get_type_hints(kind)
    return [(f, hints[f.name]) for f in dataclasses.fields(kind) if f.metadata.get("flat")]


def _plain(node: yaml.Node) -> Any:
    """The value of a scalar as YAML's safe rules read it; a list or table reads as None."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError):  # a tag that the safe rules do not know, an impossible date
        return None
    finally:
        loader.dispose()


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _near(value: object, known: typing.Iterable[object]) -> str:
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(value), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def place_of(source: str, mark: yaml.Mark) -> str:
    """A place in a file, as `file:line:column`, counted from 1."""
    return f"{source}:{mark.line + 1}:{mark.column + 1}"

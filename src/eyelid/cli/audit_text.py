"""The audit's records as a person reads them, and as files."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .screen import Screen
from .text import printable

COLOURS = {
    "passed": "green",
    "repaired": "cyan",
    "refused": "yellow",
    "failed": "red",
    "not_guarded": "dim",
    "harmful": "yellow",
    "harmless": "green",
    "unknown": "magenta",
    "answered": "",
    "client_error": "yellow",
    "upstream_error": "red",
    "guard_error": "red",
    "shed": "red",
    "disconnected": "dim",
}
REQUEST = (
    "id",
    "time",
    "endpoint",
    "key",
    "alias",
    "upstream",
    "defense",
    "stream",
    "stream_mode",
    "status",
    "error",
    "outcome",
    "milliseconds",
    "upstream_ms",
    "guard_ms",
    "prompt_tokens",
    "completion_tokens",
    "images",
    "query",
)
CHOICE = (
    "index",
    "action",
    "label",
    "harm",
    "final_label",
    "final_harm",
    "checked",
    "unchecked_because",
    "refused_by",
    "failure",
    "steps",
    "text",
    "original",
)


def table(records: Sequence[Mapping[str, Any]], *, limit: int, lost: Mapping[str, int]) -> None:
    """One line a request; what belongs to its choices is joined. A narrow terminal loses columns, not characters."""
    console = _console()
    if not records:
        console.print("no request fits")
    else:
        today = {_local(r["time"]).date() for r in records} == {datetime.datetime.now().astimezone().date()}
        # Name, cell, and the terminal's width from which on there is room for it (an id has 28 characters).
        columns: list[tuple[str, Callable[[Mapping[str, Any]], Text], int]] = [
            ("time", lambda r: _plain(_clock(r["time"], date=not today)), 0),
            ("id", lambda r: _plain(r["id"]), 0),
            ("outcome", lambda r: _coloured(r["outcome"]), 0),
            ("status", lambda r: _plain(r["status"]), 150),
            ("alias", lambda r: _plain(r["alias"]), 95),
            ("defence", lambda r: _plain(r["defense"]), 160),
            ("action", lambda r: _joined(c["action"] for c in r["choices"]), 0),
            ("verdict", lambda r: _joined((_verdict(c["label"], c["harm"]) for c in r["choices"]), plain=True), 135),
            ("key", lambda r: _plain(r["key"]), 165),
            ("ms", lambda r: _plain(f"{r['milliseconds'] or 0:.0f}"), 105),
            ("error", lambda r: _plain(r["error"]), 180),
        ]
        wide = [c for c in columns if console.width >= c[2]]
        shown = Table(box=None, header_style="dim", pad_edge=False)
        for name, _, _ in wide:
            right = name in ("status", "ms")
            shown.add_column(
                name, justify="right" if right else "left", no_wrap=name in ("time", "id", "outcome"), overflow="fold"
            )
        for r in records:
            shown.add_row(*(cell(r) for _, cell, _ in wide))
        console.print(shown)
        if len(records) == limit:
            console.print(f"[dim]the newest {limit}; --limit N shows more[/dim]", highlight=False)
    _say_lost(console, lost)


def one(record: Mapping[str, Any]) -> None:
    """Everything that the audit has of a request."""
    console = _console()
    console.print(Text(printable(str(record["id"])), style="bold"))
    grid = Table.grid(padding=(0, 2))
    mode = f" ({record['stream_mode']})" if record["stream_mode"] else ""
    tokens = f"{_or_dash(record['prompt_tokens'])} read, {_or_dash(record['completion_tokens'])} written"
    spent = f"{record['milliseconds'] or 0:.0f} ms: upstream {record['upstream_ms'] or 0:.0f}"
    facts = {
        "time": _clock(record["time"], date=True, zone=True),
        "endpoint": record["endpoint"],
        "key": record["key"],
        "alias": record["alias"],
        "upstream": record["upstream"],
        "defence": record["defense"],
        "stream": f"yes{mode}" if record["stream"] else "no",
        "outcome": f"{record['outcome']}, status {record['status']}",
        "error": record["error"],
        "time taken": f"{spent}, guard {record['guard_ms'] or 0:.0f}",
        "tokens": tokens,
    }
    for name, value in facts.items():
        if value is not None:
            grid.add_row(Text(name, style="dim"), _plain(value))
    for i, image in enumerate(record["images"]):
        grid.add_row(Text("images" if i == 0 else "", style="dim"), _plain(image))
    console.print(grid)
    _text(console, "question", record["query"])
    for choice in record["choices"]:
        _choice(console, choice)


def _choice(console: Screen, c: Mapping[str, Any]) -> None:
    told = [f"[bold]choice {c['index']}[/bold]", _marked(c["action"])]
    if c["refused_by"]:
        told.append(f"by {escape(printable(c['refused_by']))}")
    if not c["checked"]:
        told.append(
            "not checked" + (f": {escape(printable(c['unchecked_because']))}" if c["unchecked_because"] else "")
        )
    if c["failure"]:
        told.append(f"[red]{escape(printable(c['failure']))}[/red]")
    console.print()
    console.print("  ".join(told), highlight=False)
    own, final = _verdict(c["label"], c["harm"]), _verdict(c["final_label"], c["final_harm"])
    console.print(f"  the model's own answer: {own}; delivered: {final}", highlight=False, markup=False)
    if c["steps"]:
        steps = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1))
        for name in ("  step", "ms", "model", "tokens", "verdict", "error"):
            steps.add_column(name, justify="right" if name == "ms" else "left", overflow="fold")
        for s in c["steps"]:
            role = f"  {s['role']}{' (verifies)' if s['verifies'] else ''}"
            tokens = f"{_or_dash(s['prompt_tokens'])} + {_or_dash(s['completion_tokens'])}"
            verdict = "" if s["label"] is None else _verdict(s["label"], s["harm"])
            cells = (role, f"{s['milliseconds'] or 0:.0f}", s["model"], tokens, verdict, s["error"] or "")
            steps.add_row(*(_plain(cell) for cell in cells))
        console.print(steps)
    _text(console, "delivered", c["text"])
    if c["original"] != c["text"]:
        _text(console, "the model's own answer", c["original"])


def stats(found: Mapping[str, Any]) -> None:
    """Print the figures of `eyelid audit stats`."""
    console = _console()
    if not found["requests"]:
        console.print("no request fits")
        _say_lost(console, found["lost"])
        return
    first, last = (_clock(found[k], date=True) for k in ("first", "last"))
    console.print(f"{found['requests']} request{'s' * (found['requests'] != 1)}, {first} to {last}", highlight=False)
    read, written = _or_dash(found["prompt_tokens"]), _or_dash(found["completion_tokens"])
    times = f"on average {found['mean_ms'] or 0:.0f} ms, of which the guard {found['mean_guard_ms'] or 0:.0f} ms"
    console.print(f"{times}; tokens: {read} read, {written} written", highlight=False)
    _counts(console, "requests, by outcome", found["outcomes"])
    console.print()
    actions = Table(box=None, header_style="dim", pad_edge=False, title="answers, by defence and action")
    actions.title_justify, actions.title_style = "left", "bold"
    names = list(found["actions"])
    for name in ("defence", *names):
        actions.add_column(printable(name), justify="left" if name == "defence" else "right")
    for defense, its in found["actions_by_defense"].items():
        actions.add_row(_plain(defense), *(_plain(its.get(n, 0) or "-") for n in names))
    actions.add_row(Text("all", style="dim"), *(_plain(found["actions"][n] or "-") for n in names))
    console.print(actions)
    _counts(console, "refused by", found["refused_by"])
    _counts(console, "verdicts on the models' own answers", found["labels"])
    _counts(console, "answers not checked, because", found["unchecked"])
    for outcome, codes in found["errors"].items():
        _counts(console, f"errors of requests ({outcome})", codes)
    _counts(console, "guards that broke, by where and what", found["failures"])
    _say_lost(console, found["lost"])


def jsonl_writer(out: TextIO) -> Callable[[Mapping[str, Any]], None]:
    """What writes a record to `out` as one line of JSON."""

    def write(record: Mapping[str, Any]) -> None:
        out.write(json.dumps(record) + "\n")

    return write


def csv_writer(out: TextIO) -> Callable[[Mapping[str, Any]], None]:
    """One line a choice (one for a request without any); the request's columns come first.

    A spreadsheet would run a text that begins with = + - or @ as a formula: such texts get an apostrophe before them.
    """
    rows = csv.writer(out)
    rows.writerow([*REQUEST, *(f"choice_{name}" for name in CHOICE)])

    def write(record: Mapping[str, Any]) -> None:
        shared = [_cell(" ".join(record["images"]) if n == "images" else record[n]) for n in REQUEST]
        for choice in record["choices"] or [{}]:
            steps = json.dumps(choice["steps"]) if choice else None
            rows.writerow([*shared, *(_cell(steps if n == "steps" else choice.get(n)) for n in CHOICE)])

    return write


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "'")):
        return f"'{value}"
    return value


def _console() -> Screen:
    console = Screen()
    return console if console.is_terminal else Screen(width=200)  # a reader of a file has no width


def _counts(console: Screen, title: str, counts: Mapping[str, int]) -> None:
    if not counts:
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    for name, count in counts.items():
        grid.add_row(f"  {count}", _coloured(name))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(grid)


def _say_lost(console: Screen, lost: Mapping[str, int]) -> None:
    if lost:
        why = ", ".join(f"{count} {printable(reason)}" for reason, count in lost.items())
        total = sum(lost.values())
        verb = "was" if total == 1 else "were"
        console.print(f"{total} record{'s' * (total != 1)} of this time {verb} lost: {why}", style="red", markup=False)


def _verdict(label: str | None, harm: float | None) -> str:
    if label is None:
        return "no verdict"
    return label if harm is None else f"{label} {harm:.2f}"


def _joined(parts: Iterable[str], *, plain: bool = False) -> Text:
    """The parts without repeats, as "2 passed, refused"."""
    counted: dict[str, int] = {}
    for part in parts:
        counted[part] = counted.get(part, 0) + 1
    cells = []
    for name, n in counted.items():
        text = f"{n} {name}" if n > 1 else name
        cells.append(_plain(text) if plain else Text(printable(text), style=COLOURS.get(name, "")))
    return Text(", ").join(cells) if cells else Text("-", style="dim")


def _text(console: Screen, name: str, text: str | None) -> None:
    if text is not None:
        console.print(Text(f"  {name}:", style="dim"))
        console.print(Text("\n".join(f"    {line}" for line in printable(text).split("\n"))))


def _marked(name: str) -> str:
    style = COLOURS.get(name)
    return f"[{style}]{escape(name)}[/{style}]" if style else escape(printable(name))


def _coloured(value: object) -> Text:
    return Text(printable(str(value)), style=COLOURS.get(str(value), ""))


def _plain(value: object) -> Text:
    return Text("-", style="dim") if value is None else Text(printable(str(value)))


def _or_dash(value: object) -> object:
    return "-" if value is None else value


def _local(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds).astimezone()


def _clock(seconds: float, *, date: bool, zone: bool = False) -> str:
    return _local(seconds).strftime(("%Y-%m-%d " if date else "") + "%H:%M:%S" + (" %z" if zone else ""))

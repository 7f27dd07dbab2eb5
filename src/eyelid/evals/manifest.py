"""What a run was: enough to resume it, to rerun it, and to refuse what would mix two different runs in one folder."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

FILE, RECORDS, ANSWERS, LOGS = "run.json", "records.jsonl", "answers.jsonl", "logs"
VERSION = 1


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task as it was loaded and chosen from. `problems` are "file:line: what" of rows that could not be used."""

    given: str
    name: str
    licence: str
    source: str
    limit: int | None
    seed: int
    available: int
    samples: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's folder: `run.json` beside `records.jsonl`, `answers.jsonl` (what the model said) and `logs` (Inspect's).

    `settings` decide what the answers are and may not change when a run is resumed (model, detector, prompts, judges,
    max_tokens, digests of models); tasks and defences may be added. `commands` are those that wrote into the folder.
    """

    settings: Mapping[str, object]
    tasks: Mapping[str, TaskRun]
    defenses: tuple[str, ...]
    versions: Mapping[str, str]
    commands: tuple[str, ...] = ()
    concurrency: int = 1


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder, None where it holds no run. Raises InputError naming what is wrong."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("v", None) != VERSION:
            raise InputError(f"{path} is not of format {VERSION}", hint="it was written by another version of eyelid")
        names = ("problems", "notes")
        tasks = {k: TaskRun(**(t | {n: tuple(t.get(n, ())) for n in names})) for k, t in raw.pop("tasks").items()}
        defenses, commands = tuple(raw.pop("defenses")), tuple(raw.pop("commands"))
        return Manifest(tasks=tasks, defenses=defenses, commands=commands, **raw)
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise InputError(f"{path} cannot be used ({type(e).__name__})", hint="choose another folder") from None


def write(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest, whole or not at all. Raises OSError."""
    draft = folder / f".{FILE}.{os.getpid()}.part"
    draft.write_text(json.dumps({"v": VERSION, **dataclasses.asdict(manifest)}, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / FILE)


def kept(folder: Path) -> bool:
    """Whether the folder holds anything that a model said."""
    path = folder / ANSWERS
    return path.is_file() and path.stat().st_size > 0


def joined(old: Manifest | None, new: Manifest, *, empty: bool = False) -> Manifest:
    """`new` continuing `old`. Raises InputError where the two would mix different things.

    In an `empty` run, where nothing was answered yet, the model may change (with the digests of its files): whoever
    mistyped an address need not begin another folder.
    """
    if old is None:
        return new
    hint = "give the same flags to resume it, or name another --out"
    for name in sorted({*old.settings, *new.settings}):
        before, now = old.settings.get(name), new.settings.get(name)
        if before != now and not (empty and name in ("model", "weights")):
            other = "other" if name.endswith("s") else "another"
            raise InputError(f"the run in this folder has {other} {name}: {_shown(before, now)}", hint=hint)
    for key, task in new.tasks.items():
        if (earlier := old.tasks.get(key)) is None:
            continue
        for what in ("limit", "seed", "samples", "digests"):
            a, b = getattr(earlier, what), getattr(task, what)
            if a != b:
                raise InputError(f"the run in this folder has {key} with another {what}: {_shown(a, b)}", hint=hint)
    return dataclasses.replace(
        new,
        tasks={**old.tasks, **new.tasks},
        defenses=tuple(dict.fromkeys((*old.defenses, *new.defenses))),
        commands=(*old.commands, *new.commands),
    )


def _shown(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):  # digests: what changed is a file's content, by its name
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        return f"{', '.join(map(ascii, changed[:4]))}{' and more' if len(changed) > 4 else ''} changed since"
    return f"{ascii(before)[:60]}, not {ascii(now)[:60]}"

"""Questions to the audit as SQL, and rows as what people and pages read. A value is always a parameter, never SQL."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from ...errors import InputError
from .schema import CHOICE, REQUEST

#: So many requests in one answer, and in one turn of an export.
MAX_PAGE = 500
ACTIONS = ("passed", "repaired", "refused", "failed", "not_guarded")
OUTCOMES = ("answered", "client_error", "upstream_error", "guard_error", "shed", "disconnected")
LABELS = ("harmful", "harmless", "unknown")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests; None asks for all. `since` (included) and `until` (left out) are seconds since 1970.

    action and label fit where one choice has both; `label` is the verdict of the model's own answer. `image` is an HMAC
    as the audit stores it, `unchecked` asks for answers that no detector cleared. Raises InputError for an action,
    outcome or label that there is not.
    """

    since: float | None = None
    until: float | None = None
    action: str | None = None
    outcome: str | None = None
    label: str | None = None
    alias: str | None = None
    key: str | None = None
    defense: str | None = None
    error: str | None = None
    image: str | None = None
    unchecked: bool = False

    def __post_init__(self) -> None:
        for name, known in (("action", ACTIONS), ("outcome", OUTCOMES), ("label", LABELS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InputError(f"there is no {name} {value[:80]!r}", hint=f"known: {', '.join(known)}")
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, str) and ("\0" in value or not value.isprintable()):
                raise InputError(f"{name} holds characters that no name has", hint="write it as the audit shows it")

    def where(self) -> tuple[str, list[object]]:
        """A condition on `audit_requests r`, and its parameters."""
        parts: list[str] = []
        values: list[object] = []

        def add(sql: str, *given: object) -> None:
            parts.append(sql)
            values.extend(given)

        if self.since is not None:
            add("r.started >= ?", self.since)
        if self.until is not None:
            add("r.started < ?", self.until)
        for column, value in (
            ("outcome", self.outcome),
            ("alias", self.alias),
            ("key_name", self.key),
            ("defense", self.defense),
            ("error", self.error),
        ):
            if value is not None:
                add(f"r.{column} = ?", value)
        choice = [(c, v) for c, v in (("action", self.action), ("label", self.label)) if v is not None]
        if choice or self.unchecked:
            tests = [f"c.{column} = ?" for column, _ in choice] + ["NOT c.checked"] * self.unchecked
            add(
                f"EXISTS (SELECT 1 FROM audit_choices c WHERE c.request_id = r.id AND {' AND '.join(tests)})",
                *(v for _, v in choice),
            )
        if self.image is not None:
            add("r.id IN (SELECT i.request_id FROM audit_images i WHERE i.hmac = ?)", self.image)
        return " AND ".join(parts) or "1 = 1", values


def page(where: Filter, limit: int, cursor: str | None) -> tuple[str, list[object]]:
    """Requests, newest first, from behind the cursor on. Raises InputError for a cursor that is not one of ours."""
    condition, values = where.where()
    if cursor is not None:
        started, ident = _place(cursor)
        condition += " AND (r.started, r.id) < (?, ?)"
        values += [started, ident]
    columns = ", ".join(f"r.{c}" for c in REQUEST)
    sql = f"SELECT {columns} FROM audit_requests r WHERE {condition} ORDER BY r.started DESC, r.id DESC LIMIT ?"
    return sql, [*values, max(1, min(limit, MAX_PAGE))]


def one() -> str:
    return f"SELECT {', '.join(REQUEST)} FROM audit_requests WHERE id = ?"


def below(count: int) -> tuple[str, str]:
    """The choices and the images of so many requests."""
    places = ", ".join("?" * count)
    choices = (
        f"SELECT {', '.join(CHOICE)} FROM audit_choices WHERE request_id IN ({places}) ORDER BY request_id, number"
    )
    images = f"SELECT request_id, hmac FROM audit_images WHERE request_id IN ({places}) ORDER BY request_id, number"
    return choices, images


def cursor_after(record: Mapping[str, object]) -> str:
    """Where the page that ends with this request goes on."""
    place = json.dumps([record["time"], record["id"]])
    return base64.urlsafe_b64encode(place.encode("utf-8")).decode("ascii")


def _place(cursor: str) -> tuple[float, str]:
    try:
        started, ident = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
        if not isinstance(started, float | int) or not isinstance(ident, str) or "\0" in ident:
            raise ValueError
        return float(started), ident
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error):
        raise InputError("this is no cursor of a list", hint="take `next` of the answer before") from None


def shaped(
    requests: Iterable[Sequence[object]], choices: Iterable[Sequence[object]], images: Iterable[Sequence[object]]
) -> list[dict[str, object]]:
    """Rows as JSON-ready records with the names of `gateway.record.Record`."""
    found: dict[object, dict[str, object]] = {}
    lists: dict[object, tuple[list[object], list[object]]] = {}
    for row in requests:
        named = dict(zip(REQUEST, row, strict=True))
        shots: list[object] = []
        answers: list[object] = []
        query = named.pop("query")
        record = {"id": named.pop("id"), "time": named.pop("started"), "endpoint": named.pop("endpoint")}
        record |= {"key": named.pop("key_name")} | named | {"stream": bool(named["stream"])}
        record |= {"images": shots, "choices": answers, "query": query}
        found[record["id"]], lists[record["id"]] = record, (answers, shots)
    for row in choices:
        named = dict(zip(CHOICE, row, strict=True))
        ident, number = named.pop("request_id"), named.pop("number")
        choice = (
            {"index": number} | named | {"checked": bool(named["checked"]), "steps": json.loads(str(named["steps"]))}
        )
        lists[ident][0].append(choice)
    for ident, hmac in images:
        lists[ident][1].append(hmac)
    return list(found.values())


def counts(where: Filter) -> dict[str, tuple[str, list[object]]]:
    """What `stats` counts: name -> SQL over the requests that `where` leaves, and its values. Groups come first."""
    condition, values = where.where()
    requests = f"FROM audit_requests r WHERE {condition}"
    choices = f"FROM audit_choices c JOIN audit_requests r ON r.id = c.request_id WHERE {condition}"
    asked = {
        "requests": f"SELECT count(*), min(r.started), max(r.started), avg(r.milliseconds), avg(r.guard_ms),"
        f" sum(r.prompt_tokens), sum(r.completion_tokens) {requests}",
        "outcomes": f"SELECT r.outcome, count(*) {requests} GROUP BY r.outcome",
        "errors": f"SELECT r.outcome, r.error, count(*) {requests} AND r.error IS NOT NULL GROUP BY r.outcome, r.error",
        "actions": f"SELECT r.defense, c.action, count(*) {choices} GROUP BY r.defense, c.action",
        "refusals": f"SELECT c.refused_by, count(*) {choices} AND c.action = 'refused' GROUP BY c.refused_by",
        "labels": f"SELECT c.label, count(*) {choices} GROUP BY c.label",
        "failures": f"SELECT c.failure, count(*) {choices} AND c.failure IS NOT NULL GROUP BY c.failure",
        "unchecked": f"SELECT c.unchecked_because, count(*) {choices} AND NOT c.checked GROUP BY c.unchecked_because",
    }
    return {name: (sql, list(values)) for name, sql in asked.items()}


def losses(where: Filter) -> tuple[str, list[object]]:
    """Records that were lost in the time of the filter, by reason; who or what they were, nobody knows."""
    parts = ["at >= ?"] * (where.since is not None) + ["at < ?"] * (where.until is not None)
    values: list[object] = [v for v in (where.since, where.until) if v is not None]
    return (
        f"SELECT reason, sum(records) FROM audit_losses WHERE {' AND '.join(parts) or '1 = 1'} GROUP BY reason",
        values,
    )


def summed(found: Mapping[str, Sequence[Sequence[object]]]) -> dict[str, object]:
    """The answers to `counts` and `losses` as one JSON-ready object."""
    (total,) = found["requests"]
    names = ("requests", "first", "last", "mean_ms", "mean_guard_ms", "prompt_tokens", "completion_tokens")
    told: dict[str, object] = {n: _number(v) for n, v in zip(names, total, strict=True)}

    def by_name(rows: Sequence[Sequence[object]], nothing: str = "none") -> dict[str, object]:
        ordered = sorted(rows, key=lambda r: (-int(str(r[1])), str(r[0])))
        return {str(nothing if name is None else name): _number(count) for name, count in ordered}

    def nested(rows: Sequence[Sequence[object]], nothing: str) -> dict[str, dict[str, object]]:
        groups: dict[str, list[Sequence[object]]] = {}
        for first, *rest in rows:
            groups.setdefault(str(nothing if first is None else first), []).append(rest)
        return {name: by_name(rest) for name, rest in sorted(groups.items())}

    actions = nested(found["actions"], "none")
    told["outcomes"] = by_name(found["outcomes"])
    told["actions"] = {a: sum(int(str(d.get(a, 0))) for d in actions.values()) for a in ACTIONS}
    told["actions_by_defense"] = actions
    told["refused_by"] = by_name(found["refusals"])
    told["labels"] = by_name(found["labels"], "no verdict")
    told["errors"] = nested(found["errors"], "none")
    told["failures"] = by_name(found["failures"])
    told["unchecked"] = by_name(found["unchecked"], "not said")
    told["lost"] = by_name(found["lost"])
    return told


def _number(value: object) -> object:
    """PostgreSQL sums whole numbers into decimals."""
    if value is None or isinstance(value, int | float):
        return value
    whole = int(str(value).partition(".")[0])
    return whole

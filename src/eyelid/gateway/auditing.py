"""Who may see what of the audit in the playground, and questions to it as the pages put them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request

from ..errors import InputError
from .audit import query
from .audit.query import Filter
from .errors import BadRequest, Forbidden, NotFound
from .keys import KeyInfo
from .lifecycle import Generation

Json = dict[str, object]

_NUMBERS = ("since", "until")
_NAMES = ("action", "outcome", "label", "alias", "key", "defense", "error", "image")
_TEXTS = ("text", "original")


class Scoped:
    """What of the audit one client may see.

    Without keys that is everything, and only for programs of this machine: a page of another site that the browser was
    led to under this address (DNS rebinding) and whoever comes through a proxy are not. A key sees what it asked for
    itself, without texts, and everything where its `audit` is set.
    """

    def __init__(self, key: str | None, texts: bool):
        self.key, self.texts = key, texts

    @classmethod
    def of(cls, generation: Generation, key: KeyInfo, request: Request) -> Scoped:
        """Raises NotFound where there is no audit, Forbidden where this client may not see it."""
        if not generation.config.serve.audit.enabled:
            raise NotFound("the audit is switched off", code="no_audit", hint="the operator can set audit.enabled")
        if key.name is None:
            if not local(request):
                hint = "the operator can set keys, or read it with `eyelid audit`"
                raise Forbidden("without keys the audit is shown on the gateway's own machine only", hint=hint)
            return cls(None, texts=True)
        return cls(None, texts=True) if key.audit else cls(key.name, texts=False)

    def may(self, record: Mapping[str, Any]) -> bool:
        """Whether this key may see the record."""
        return self.key is None or record["key"] == self.key

    def shown(self, record: Mapping[str, Any]) -> Json:
        """The record as this key sees it: without texts, unless it may read them."""
        if self.texts:
            return dict(record)
        choices = [{**c, **dict.fromkeys(_TEXTS)} for c in record["choices"]]
        return {**record, "query": None, "choices": choices}


def filtered(given: QueryParams, scope: Scoped) -> tuple[Filter, int, str | None]:
    """Filter, page size and cursor of a question to the audit. Raises BadRequest for what cannot be one."""
    try:
        found: dict[str, Any] = {n: given[n] for n in _NAMES if given.get(n)}
        found |= {n: _number(n, given[n]) for n in _NUMBERS if given.get(n)}
        if scope.key is not None:
            found["key"] = scope.key
        where = Filter(**found, unchecked=given.get("unchecked") == "1")
        limit, cursor = int(_number("limit", given.get("limit") or "50")), given.get("cursor") or None
        query.page(where, limit, cursor)  # reads the cursor
    except InputError as e:
        raise BadRequest(e.message, hint=e.hint) from None
    return where, limit, cursor


def _number(name: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not abs(found) < 1e12:
        raise InputError(f"{name} must be a number", hint="times are seconds since 1970")
    return found


def local(request: Request) -> bool:
    """Whether this comes from a program of this machine, under an address of this machine, and through no proxy."""
    headers = request.headers
    if "x-forwarded-for" in headers or "forwarded" in headers or request.client is None:
        return False
    return _loopback(request.client.host) and _loopback(_host(headers))


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

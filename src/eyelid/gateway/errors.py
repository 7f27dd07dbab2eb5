"""What a client is told when something is wrong: an HTTP status and an error object in OpenAI's shape.

GatewayError
|-- BadRequest         400  the body cannot be used; `param` names the field
|-- Unauthenticated    401  no key, or one that nobody has
|-- Forbidden          403  the key, or the configuration, does not allow it
|-- NotFound           404  no such model
|-- TooLarge           413  body, images or messages beyond a limit
|-- SlowClient         408  the request did not arrive in time
`-- Overloaded         503  too many requests at once, or shutting down

A key's own limit is `keys.RateLimited` (429). Errors of an upstream keep their class (`eyelid.errors.BackendError`) and
are translated by `describe`: their texts come from `openai_errors`, which takes out keys and the request's own words,
and go through `ours`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import (
    BackendError,
    BackendProtocol,
    BackendRejected,
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    EyelidError,
    ImageError,
    InputError,
    Unsupported,
)
from .keys import RateLimited
from .record import Outcome

Json = dict[str, object]


class GatewayError(EyelidError):
    """`code` is the machine-readable word, `param` the field at fault, `retry_after` seconds."""

    status, type, outcome = 500, "internal_error", "guard_error"
    default_code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        hint: str = "",
        retry_after: float | None = None,
    ):
        super().__init__(message, hint=hint)
        self.code, self.param, self.retry_after = code or self.default_code, param, retry_after


class BadRequest(GatewayError):
    """The request cannot be used as it is."""

    status, type, outcome, default_code = 400, "invalid_request_error", "client_error", "invalid_request"


class Unauthenticated(GatewayError):
    """No key, or none that this gateway knows."""

    status, type, outcome, default_code = 401, "authentication_error", "client_error", "invalid_api_key"

    def __init__(self, message: str):
        super().__init__(message, hint="send Authorization: Bearer and a key of this gateway")


class Forbidden(GatewayError):
    """This key may not do that."""

    status, type, outcome, default_code = 403, "permission_error", "client_error", "not_allowed"


class CrossSite(Forbidden):
    """A page of another site asks, through the browser of somebody who can reach the gateway."""

    default_code = "cross_site"


class GuardFailed(GatewayError):
    """A part of the guard broke, and the policy is to say so instead of withholding the answer."""

    default_code, type = "guard_failed", "guard_error"


class NotFound(GatewayError):
    """There is no such model, path or record here."""

    status, type, outcome, default_code = 404, "invalid_request_error", "client_error", "model_not_found"


class SlowClient(GatewayError):
    """The request's body did not come in time."""

    status, type, outcome, default_code = 408, "invalid_request_error", "client_error", "request_timeout"


class TooLarge(GatewayError):
    """The request is larger than the limits allow."""

    status, type, outcome, default_code = 413, "invalid_request_error", "client_error", "request_too_large"


class Overloaded(GatewayError):
    """There is no room for it just now; `retry_after` says when to try again."""

    status, type, outcome, default_code = 503, "overloaded_error", "shed", "overloaded"


@dataclass(frozen=True, slots=True)
class Problem:
    """An exception as the client meets it."""

    status: int
    type: str
    code: str
    message: str
    outcome: Outcome
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def describe(error: BaseException) -> Problem:
    """Status, code and words for any exception. What is none of ours is told as a defect, without its text."""
    if isinstance(error, GatewayError):
        outcome: Outcome = error.outcome  # type: ignore[assignment]
        headers = _wait(error.retry_after)
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Problem(error.status, error.type, error.code, _words(error), outcome, error.param, headers)
    if isinstance(error, RateLimited):
        waits = _wait(error.retry_after)
        return Problem(429, "rate_limit_error", "rate_limit_exceeded", _words(error), "shed", None, waits)
    if isinstance(error, BackendError):
        return _upstream(error)
    if isinstance(error, ImageError):
        return Problem(400, "invalid_request_error", "invalid_image", _words(error), "client_error", "messages")
    if isinstance(error, InputError) and not isinstance(error, ConfigError):
        return Problem(400, "invalid_request_error", "invalid_request", _words(error), "client_error")
    if isinstance(error, EyelidError):
        return Problem(500, "guard_error", type(error).__name__, error.message, "guard_error")
    text = f"internal error ({type(error).__name__}); this is a defect of the gateway"
    return Problem(500, "internal_error", "internal_error", text, "guard_error")


def payload(error: BaseException) -> Json:
    """The error object, as a body or as an event of a stream."""
    return body(describe(error))


def body(problem: Problem) -> Json:
    """The problem as OpenAI's clients expect it."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.type,
            "param": problem.param,
            "code": problem.code,
        }
    }


#: What is said where the error's own words name the server's address, which is the operator's business: logs have it.
_PLACES = {
    "refused": "the model's server cannot be reached",
    "connect_timeout": "the model's server cannot be reached in time",
    "broken_off": "the connection to the model's server broke off",
    "cut": "the answer of the model's server broke off before its end",
    "tls": "no secure connection to the model's server",
    "redirect": "the model's server is not where the gateway looks for it",
    "not_http": "the model's server does not speak HTTP",
}


def _upstream(error: BackendError) -> Problem:
    """A model's server: its own 4xx about the request stay what they are, all else is a gateway's 502, 503 or 504.

    401 and 403 are about our key, not the client's, and would make a client throw its own away.
    """

    def told(status: int, code: str, type_: str = "upstream_error", **headers: str) -> Problem:
        waits = _wait(error.retry_after) | headers
        words = _PLACES.get(error.code) or " ".join(filter(None, (ours(error), error.hint and f"({error.hint})")))
        return Problem(status, type_, code, words, "upstream_error", None, waits)

    code = error.code or "upstream_error"
    if isinstance(error, Unsupported):
        return told(400, f"unsupported_{error.feature}", "invalid_request_error")
    if isinstance(error, BackendTimeout):
        return told(504, code)
    if isinstance(error, BackendUnavailable):
        if error.status == 429:
            return told(429, "upstream_rate_limited", "rate_limit_error")
        if error.status == 503:
            return told(503, "upstream_overloaded")
        return told(502, code)
    if isinstance(error, BackendRejected):
        if error.status in (400, 404, 413, 415, 422):
            known = "model" if error.status == 404 else "request"
            return told(error.status, f"upstream_rejected_{known}", "invalid_request_error")
        return told(502, f"upstream_{error.status}" if error.status and not error.code else code)
    if isinstance(error, BackendProtocol):
        return told(502, code)
    return told(502, code)


def ours(error: EyelidError) -> str:
    """The error's message without what a model's server said with a 5xx: some quote the answer that they could not
    parse (llama.cpp), and no detector has seen that. What a 4xx says is about the request, before anything is written.
    """
    begun = isinstance(error, BackendError) and error.status is not None and error.status >= 500
    return error.message.partition(": ")[0] if begun else error.message


def _wait(seconds: float | None) -> dict[str, str]:
    if seconds is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}


def _words(error: EyelidError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message

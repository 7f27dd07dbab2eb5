"""All errors that Eyelid raises on purpose.

EyelidError
|-- InputError             the caller's input cannot be used
|   |-- ImageError         not an image, broken, too large, animated, address refused
|   `-- ConfigError        unknown name or key, missing placeholder, bad model spec
|-- BackendError           a model did not answer
|   |-- BackendUnavailable connection refused, overloaded, 5xx          (retryable)
|   |-- BackendTimeout     no answer in time                            (retryable)
|   |-- BackendRejected    the model's server refused the request: 4xx, context too long
|   |-- BackendProtocol    the server's answer could not be understood
|   `-- Unsupported        the model cannot do what was asked (images, log-probabilities, adapters)
|-- DetectorError          a detector broke; never the same as a harmless or an unknown verdict
|-- MissingDependency      an extra or a model is not installed, or not to be had; the hint says how to get it
`-- ImageLeak              a request that must hold no image holds one (a defect in a remedy: always raised)
"""

from __future__ import annotations


class EyelidError(Exception):
    """Base class. `hint` is the way out, a sentence for a person; `retryable` says the same call may work later.

    A stack trace shows the hint too: it is a note of the exception (PEP 678).
    """

    retryable = False

    def __init__(self, message: str, *, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class InputError(EyelidError):
    """The caller's input cannot be used: a text, an image, a file, an option."""


class ImageError(InputError):
    """Not an image, or one that policy refuses: broken, too large, animated, or from an address that is not fetched."""


class ConfigError(InputError):
    """An unknown name or key, a missing placeholder, a bad model spec."""


class BackendError(EyelidError):
    """`status` is the HTTP status where there was one; `retry_after` in seconds where the server gave one.

    `unreachable` says that no connection came about: nobody may be there at all. `code` is a fixed word for what went
    wrong on the way to a server ("" where the class says it all): refused, connect_timeout, timeout, silent,
    broken_off, tls, redirect, not_http, not_json, wrong_type, too_long.
    """

    unreachable = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        code: str = "",
    ):
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after
        self.code = code


class BackendUnavailable(BackendError):
    """No connection, or a server that says it is overloaded or broken (429, 5xx)."""

    retryable = True


class BackendTimeout(BackendError):
    """No answer in time."""

    retryable = True


class BackendRejected(BackendError):
    """The model's server refused the request: 4xx, or a context that is too long."""


class BackendProtocol(BackendError):
    """The server's answer could not be understood."""


class Unsupported(BackendError):
    """`feature` is one of "images", "logprobs", "adapters", "stream"."""

    def __init__(self, message: str, *, feature: str, hint: str = "", status: int | None = None):
        super().__init__(message, hint=hint, status=status)
        self.feature = feature


class DetectorError(EyelidError):
    """A detector broke; never the same as a harmless or an unknown verdict."""


class MissingDependency(EyelidError):
    """An extra or a model is not installed, or not to be had; the hint says how to get it."""


class ImageLeak(EyelidError):
    """A request that must hold no image holds one: a defect in a remedy, which no policy lets pass."""

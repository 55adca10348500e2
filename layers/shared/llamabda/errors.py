"""Every failure that a caller can meet, as one small tree.

LlamabdaError
    InvalidInput         the request is well-formed JSON but says something we cannot take
    Unauthorized         no credentials, or not valid ones
    Forbidden            valid credentials that do not allow this
    NotFound             no such thing for this caller (foreign and missing look the same)
    Gone                 it was there, in a generation that has been replaced
    Conflict             it exists already
    TooLarge             over a configured limit
    UnsupportedMedia     a format that cannot be read
    TooManyRequests      this caller asks, or guesses, too often
    Busy                 a bounded queue is full: come back later
    DependencyFailed     the index, a model or a store did not do its part
    ConfigurationError   a setting is missing or contradicts another
    ModelError           a model file cannot be had, verified or loaded

A message names the thing, the value and what would work. It never holds a secret.
"""

from __future__ import annotations


class LlamabdaError(Exception):
    """The root. `code` is a stable, machine-readable name of the case."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def public(self) -> str:
        """What anybody may be told: what broke on our side is for the log."""
        return self.message


class InvalidInput(LlamabdaError):
    """A value that cannot be taken.

    `loc` is the path to it in the request, for example ("body", "docs", 0, "id"); `value` is shown cut, never a secret.
    """

    code = "invalid_input"

    def __init__(self, message: str, *, loc: tuple[str | int, ...] = (), value: object = None) -> None:
        super().__init__(message)
        self.loc = loc
        self.value = value


class Unauthorized(LlamabdaError):
    code = "unauthorized"


class Forbidden(LlamabdaError):
    code = "forbidden"


class NotFound(LlamabdaError):
    code = "not_found"


class Gone(LlamabdaError):
    code = "gone"


class Conflict(LlamabdaError):
    code = "conflict"


class TooLarge(LlamabdaError):
    code = "too_large"


class UnsupportedMedia(LlamabdaError):
    code = "unsupported_media"


class TooManyRequests(LlamabdaError):
    """`retry_after` is in seconds."""

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(LlamabdaError):
    """`retry_after` is in seconds."""

    code = "busy"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DependencyFailed(LlamabdaError):
    """`dependency` is the port's name ("index", "embedder", ...), never a host name."""

    code = "dependency_failed"

    def __init__(self, message: str, *, dependency: str) -> None:
        super().__init__(message)
        self.dependency = dependency

    @property
    def public(self) -> str:
        return f"the {self.dependency} is not available now"


class ConfigurationError(LlamabdaError):
    code = "configuration"

    @property
    def public(self) -> str:
        return "the server is not set up correctly"


class ModelError(LlamabdaError):
    code = "model"

    @property
    def public(self) -> str:
        return "the model is not available now"

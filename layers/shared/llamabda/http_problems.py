"""Problem documents (RFC 9457): one table says which error has which status, one function renders them all.

Whatever a client sent, the document can be encoded, is short, and repeats no secret.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import Response

from llamabda.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    DependencyFailed,
    Forbidden,
    Gone,
    InvalidInput,
    LlamabdaError,
    ModelError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    UnsupportedMedia,
)
from llamabda.http_json import NotJson

logger = logging.getLogger("llamabda.http")

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[LlamabdaError], int] = {
    NotJson: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Gone: 410,
    TooLarge: 413,
    UnsupportedMedia: 415,
    InvalidInput: 422,
    TooManyRequests: 429,
    Busy: 503,
    DependencyFailed: 503,
    ModelError: 503,
    ConfigurationError: 500,
    LlamabdaError: 500,
}

# of replies that no error of ours stands behind
CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "url_too_long",
    422: "invalid_input",
    500: "internal",
}

MAX_VALUE = 100  # characters of an echoed value
MAX_TEXT = 1_000  # characters of a message
MAX_ERRORS = 20  # entries of `errors`

_SECRETS = frozenset(("password", "token", "invite", "authorization", "secret", "api_key", "cookie"))
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of `errors`. `loc` is the path to what is wrong; without `show` the value is kept to ourselves."""

    loc: tuple[str | int, ...]
    msg: str
    value: object = None
    show: bool = True


def status_of(exc: LlamabdaError) -> int:
    return next(STATUS[cls] for cls in type(exc).__mro__ if cls in STATUS)


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    failures: Iterable[Failure] = (),
    headers: Mapping[str, str] | None = None,
    request_id: str,
) -> Response:
    """The reply for a failure. `instance` names this occurrence, as `X-Request-Id` and the log do."""
    phrase = HTTPStatus(status).phrase
    document = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": _cut(detail, MAX_TEXT),
        "instance": f"urn:uuid:{request_id}",
        "code": code or CODES.get(status, phrase.lower().replace(" ", "_")),
        "errors": [_entry(failure) for failure in list(failures)[:MAX_ERRORS]],
    }
    return Response(
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8"),
        status_code=status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def from_error(exc: LlamabdaError, *, request_id: str, token_sent: bool) -> Response:
    """Of an error of ours. What broke on our side is logged and not told."""
    status = status_of(exc)
    headers: dict[str, str] = {}
    failures: list[Failure] = []
    if isinstance(exc, InvalidInput):
        if exc.loc:
            failures.append(Failure(exc.loc, exc.message, exc.value, show=exc.value is not None))
    elif isinstance(exc, Unauthorized):
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"' if token_sent else "Bearer"}
    elif isinstance(exc, Busy | TooManyRequests):
        headers = {"Retry-After": str(max(1, exc.retry_after))}
    elif status >= 500:
        logger.error("%s: %s: %s", request_id, type(exc).__name__, exc.message, exc_info=exc)
    return problem(status, exc.public, code=exc.code, failures=failures, headers=headers, request_id=request_id)


def unexpected(*, request_id: str) -> Response:
    """Of a defect: no details."""
    return problem(500, "something went wrong here; the log has it under this request's id", request_id=request_id)


def is_secret(name: str | int) -> bool:
    """Whether a field's value must not be repeated: password, token, refresh_token, invite, ..."""
    parts = str(name).lower().replace("-", "_").rsplit("_", 1)
    return str(name).lower() in _SECRETS or parts[-1] in _SECRETS


def clean(text: str) -> str:
    """Encodable and on one line: what cannot be shown becomes U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _cut(text: str, limit: int) -> str:
    return clean(text if len(text) <= limit else text[: limit - 1] + "…")


def _entry(failure: Failure) -> dict[str, object]:
    entry: dict[str, object] = {
        "loc": [part if isinstance(part, int) else _cut(part, MAX_VALUE) for part in failure.loc],
        "msg": _cut(failure.msg, MAX_TEXT),
    }
    value = failure.value
    if not failure.show or any(is_secret(part) for part in failure.loc):
        return entry
    if isinstance(value, str):
        entry["value"] = _cut(value, MAX_VALUE)
    elif value is None or isinstance(value, bool):
        entry["value"] = value
    elif isinstance(value, int | float):
        exact = abs(value) < 2**53  # false for NaN and infinities, too
        entry["value"] = value if exact else _cut(str(value), MAX_VALUE)
    return entry  # lists and objects may hold anything: not repeated

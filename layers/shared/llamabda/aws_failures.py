"""What botocore's failures mean, for every adapter that stands on it.

A message names the resource, the operation and AWS's code, and what to do where somebody has to. It never repeats what
AWS or botocore say about a request's values: those may be a password's hash or a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from llamabda.errors import DependencyFailed

_ABSENT = "it is not there, in this account and region"
_DENIED = "this process may not do that: give its role the permission"
_STRANGER = "the credentials of this process are not good (any more)"
_ELSEWHERE = "it is in another region: set AWS_REGION to its own"
_REASONS = {
    "ResourceNotFoundException": _ABSENT,
    "NotFoundException": _ABSENT,
    "NoSuchBucket": _ABSENT,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AllAccessDisabled": _DENIED,
    "ExpiredToken": _STRANGER,
    "ExpiredTokenException": _STRANGER,
    "IncompleteSignature": _STRANGER,
    "InvalidAccessKeyId": _STRANGER,
    "InvalidClientTokenId": _STRANGER,
    "InvalidSignatureException": _STRANGER,
    "MissingAuthenticationTokenException": _STRANGER,
    "SignatureDoesNotMatch": _STRANGER,
    "UnrecognizedClientException": _STRANGER,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "PermanentRedirect": _ELSEWHERE,
}
# from the most to the least special
_UNANSWERED: tuple[tuple[type[BotoCoreError] | tuple[type[BotoCoreError], ...], str], ...] = (
    ((NoCredentialsError, PartialCredentialsError, CredentialRetrievalError), "this process has no AWS credentials"),
    (SSLError, "there is no trusted TLS connection to it"),
    (ReadTimeoutError, "it does not answer in time"),
    ((ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError), "it cannot be reached"),
    ((ConnectionError, HTTPClientError), "the connection to it broke"),
)
# those whose text, or whose cause's, may repeat values of the request
_QUOTING = frozenset(
    {
        "ValidationException",
        "TransactionCanceledException",
        "SerializationException",
        "InvalidRequest",
        "InvalidArgument",
    }
)


def code(exc: ClientError) -> str:
    """AWS's name for what went wrong."""
    return str(exc.response.get("Error", {}).get("Code", "")) or "unknown"


def failure(
    exc: ClientError | BotoCoreError, *, what: str, dependency: str, advice: Mapping[str, str] | None = None
) -> DependencyFailed:
    """The failure of `what`, told with its cause where that repeats no values. `advice`: more to say, by AWS's code."""
    if isinstance(exc, ClientError):
        name = code(exc)
        reason = (advice or {}).get(name) or _REASONS.get(name)
        message = f"{what} failed: {exc.operation_name} ended with {name}" + (f": {reason}" if reason else "")
        quoting = name in _QUOTING
    else:
        reason = next((text for kinds, text in _UNANSWERED if isinstance(exc, kinds)), "")
        message = f"{what} failed: {f'{reason} ' if reason else ''}({type(exc).__name__})"
        quoting = isinstance(exc, ParamValidationError)
    found = DependencyFailed(message, dependency=dependency)
    found.__cause__ = None if quoting else exc
    found.__suppress_context__ = True
    return found


@contextmanager
def translated(what: str, *, dependency: str, advice: Mapping[str, str] | None = None) -> Iterator[None]:
    """DependencyFailed for every failure of botocore in the block."""
    try:
        yield
    except (ClientError, BotoCoreError) as exc:
        found = failure(exc, what=what, dependency=dependency, advice=advice)
    else:
        return
    raise found

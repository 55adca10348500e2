"""Where an issuer's JWK set is read from: a file, S3 or HTTPS. Each is what `tokens.TokenVerifier` takes as its source.

What is read is bounded in size and time. Whether the keys in it are any good is for the verifier to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from llamabda import jws, time_left
from llamabda.aws_failures import translated
from llamabda.endpoint import Endpoint
from llamabda.errors import DependencyFailed
from llamabda.exchange import Unanswered, exchange
from llamabda.jwks_address import FileAddress, S3Address

MAX_BYTES = 65_536  # a key of 4,096 bits takes 800

Source = Callable[[], Mapping[str, object]]


def file_source(address: FileAddress) -> Source:
    def read() -> Mapping[str, object]:
        try:
            with open(address.path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise _failed(address, exc.strerror or type(exc).__name__) from exc
        return _parsed(address, content)

    return read


def s3_source(address: S3Address, client: Any) -> Source:
    """`client`: boto3's for S3."""

    def read() -> Mapping[str, object]:
        with translated(f"the key set {address} (JWKS_URL)", dependency="jwks"):
            reply = client.get_object(Bucket=address.bucket, Key=address.key)
        with closing(reply["Body"]) as body:
            try:
                content = time_left.bounded(lambda: body.read(MAX_BYTES + 1))
            except (BotoCoreError, HTTPError, OSError) as exc:
                raise _failed(address, f"it broke off ({type(exc).__name__})") from exc
        return _parsed(address, content)

    return read


def http_source(address: Endpoint) -> Source:
    """Redirects are not followed, proxies of the environment not used; certificates are verified."""
    ask = exchange(address, most=MAX_BYTES, headers={"Accept": "application/json"})

    def read() -> Mapping[str, object]:
        try:
            reply = ask()
        except Unanswered as exc:
            raise _failed(address, exc.reason) from exc.__cause__
        if reply.status != 200:
            raise _failed(address, f"its status is {reply.status}")
        return _parsed(address, reply.content)

    return read


def _parsed(address: FileAddress | S3Address | Endpoint, content: bytes) -> Mapping[str, object]:
    if len(content) > MAX_BYTES:
        raise _failed(address, f"it has more than {MAX_BYTES} bytes")
    try:
        found = jws.parse_object(content)
    except ValueError:
        raise _failed(address, "it is not a plain JSON object") from None
    if not isinstance(found.get("keys"), list):
        raise _failed(address, "it is not a JWK set: there is no list of keys")
    return found


def _failed(address: FileAddress | S3Address | Endpoint, reason: str) -> DependencyFailed:
    return DependencyFailed(f"the key set {address} (JWKS_URL) cannot be used: {reason}", dependency="jwks")

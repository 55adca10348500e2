"""Where an issuer's JWK set is read from: a file, S3 or HTTPS. Each is what `tokens.TokenVerifier` takes as its source.

What is read is bounded in size and time. Whether the keys in it are any good is for the verifier to say.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from llamabda import jws, time_left
from llamabda.aws_failures import translated
from llamabda.endpoint import Endpoint
from llamabda.errors import DependencyFailed
from llamabda.jwks_address import FileAddress, S3Address
from llamabda.time_left import TimeIsUp

MAX_BYTES = 65_536  # a key of 4,096 bits takes 800
CONNECT_SECONDS = 1.0
READ_SECONDS = 1.5  # for the whole reply, from the first byte of the request on

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
    tls = ssl.create_default_context() if address.scheme == "https" else None

    def read() -> Mapping[str, object]:
        try:
            return time_left.bounded(fetch)
        except TimeIsUp as exc:
            raise _failed(address, "it does not answer in time") from exc

    def fetch() -> Mapping[str, object]:
        if tls is None:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        else:
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=tls)
        with closing(connection):
            try:
                connection.connect()
            except (OSError, UnicodeError) as exc:
                raise _failed(address, f"it cannot be reached ({type(exc).__name__})") from exc
            return _parsed(address, _fetched(connection, address))

    return read


def _fetched(connection: http.client.HTTPConnection, address: Endpoint) -> bytes:
    line = connection.sock
    with _ended_after(READ_SECONDS, line) as late:
        try:
            line.settimeout(READ_SECONDS)
            headers = {"Host": address.authority, "Accept": "application/json", "Connection": "close"}
            connection.request("GET", address.path or "/", headers=headers | {"User-Agent": "llamabda"})
            with closing(connection.getresponse()) as response:
                content = response.read(MAX_BYTES + 1) if response.status == 200 else b""
                status, missing = response.status, response.length
        except (OSError, ValueError, http.client.HTTPException) as exc:
            # without its cause, which may quote what was sent
            reason = "it does not answer in time" if late.is_set() or isinstance(exc, TimeoutError) else "it broke off"
            raise _failed(address, f"{reason} ({type(exc).__name__})") from None
    if late.is_set():
        raise _failed(address, "it does not answer in time")
    if status != 200:
        raise _failed(address, f"its status is {status}")
    if missing and len(content) <= MAX_BYTES:
        raise _failed(address, "it broke off")
    return content


@contextmanager
def _ended_after(seconds: float, line: socket.socket) -> Iterator[threading.Event]:
    """Ends a connection that is still read from: a peer that sends a byte a second must not hold anybody up.

    The event tells whether that was so.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)  # not SSLSocket's own, which would go on in plain text

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


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

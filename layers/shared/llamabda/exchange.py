"""One HTTP request and its reply, for adapters that need no more than that.

Redirects are not followed, proxies of the environment not used; certificates are verified. Replies are bounded in size
and time. Failures tell a reason and never the address, which may hold a signature.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from llamabda import time_left
from llamabda.endpoint import Endpoint
from llamabda.time_left import TimeIsUp

CONNECT_SECONDS = 1.0
READ_SECONDS = 1.5  # for the whole reply, from the first byte of the request on

Exchange = Callable[[], "Reply"]


class Unanswered(Exception):
    """There was no whole reply. `reason` says what happened and repeats nothing that was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """`content`: at most one byte more than was allowed; empty unless the status is 200."""

    status: int
    content: bytes


def exchange(
    address: Endpoint,
    *,
    most: int,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Exchange:
    """What sends the request, once for each call, and raises Unanswered. `most`: bytes of the reply that are wanted."""
    tls = ssl.create_default_context() if address.scheme == "https" else None

    def ask() -> Reply:
        if tls is None:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        else:
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=tls)
        with closing(connection):
            try:
                connection.connect()
            except (OSError, UnicodeError) as exc:
                raise Unanswered(f"it cannot be reached ({type(exc).__name__})") from exc
            sent = {"Host": address.authority, "Connection": "close", "User-Agent": "llamabda", **(headers or {})}
            return _answered(connection, method, address.path or "/", body, sent, most)

    def asked() -> Reply:
        try:
            return time_left.bounded(ask)
        except TimeIsUp as exc:
            raise Unanswered("it does not answer in time") from exc

    return asked


def _answered(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
    most: int,
) -> Reply:
    line = connection.sock
    with _ended_after(READ_SECONDS, line) as late:
        try:
            line.settimeout(READ_SECONDS)
            connection.request(method, target, body=body, headers=headers)
            with closing(connection.getresponse()) as response:
                content = response.read(most + 1) if response.status == 200 else b""
                status, missing = response.status, response.length
        except (OSError, ValueError, http.client.HTTPException) as exc:
            # without its cause, which may quote what was sent
            reason = "it does not answer in time" if late.is_set() or isinstance(exc, TimeoutError) else "it broke off"
            raise Unanswered(f"{reason} ({type(exc).__name__})") from None
    if late.is_set():
        raise Unanswered("it does not answer in time")
    if status == 200 and missing and len(content) <= most:
        raise Unanswered("it broke off")
    return Reply(status, content)


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

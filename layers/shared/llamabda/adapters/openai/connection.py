"""One HTTP request over a connection of its own, in which nothing waits longer than until the deadline.

Proxies of the environment are not used, redirects are not followed: passages go to the address that was configured, and
nowhere else. Certificates are verified (a private authority: SSL_CERT_FILE).
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any, cast

from llamabda.adapters.openai.lookup import Address, Lookup
from llamabda.endpoint import Endpoint
from llamabda.errors import DependencyFailed
from llamabda.types import Deadline

CONNECT_SECONDS = 2.0  # for the name, the connection and TLS together
SLICE_SECONDS = 0.1  # of a wait that cannot be interrupted
MAX_REPLY_BYTES = 16_000_000
READ_BYTES = 65_536


class Unreachable(DependencyFailed):
    """There is no server, or it says nothing."""


class Interrupted(Exception):
    """Another thread ended the line."""


def failed(message: str) -> DependencyFailed:
    return DependencyFailed(message, dependency="generator")


class Line:
    """The connection that somebody has, one after another. Any thread may end it, for good: who waits is woken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # not SSLSocket's own: after that one, the waiting thread would read ciphertext
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def take(self, connection: socket.socket) -> None:
        """Holds a connection instead of the last one. Interrupted when the line was ended."""
        with self._lock:
            self._socket = connection
            if self._ended:
                raise Interrupted

    def free(self) -> None:
        """Closes the connection. Not while another thread reads from it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


class Connector:
    """Makes connections to one server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tls = ssl.create_default_context() if endpoint.scheme == "https" else None
        self._lookup = Lookup(endpoint.host, endpoint.port)

    def connect(self, line: Line, deadline: Deadline) -> socket.socket:
        """TimeoutError when the deadline comes first, Unreachable when there is nobody."""
        limit = earlier(deadline, CONNECT_SECONDS)
        try:
            return self._connect(line, limit)
        except (OSError, UnicodeError) as exc:
            if line.ended:
                raise Interrupted from exc
            if deadline.passed():
                raise TimeoutError from exc
            reason = f"no connection within {CONNECT_SECONDS:g} s" if isinstance(exc, TimeoutError) else str(exc)
            raise Unreachable(f"{self._endpoint} cannot be reached: {reason}", dependency="generator") from exc

    def _connect(self, line: Line, limit: Deadline) -> socket.socket:
        found = self._addresses(line, limit)
        problem: OSError = OSError("its name has no address")
        for place, (family, kind, protocol, _, address) in enumerate(found):
            connection = socket.socket(family, kind, protocol)
            try:
                line.take(connection)
                connection.settimeout(_positive(limit.remaining() / (len(found) - place)))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection.settimeout(_positive(limit.remaining()))  # of the whole handshake
                    connection = self._secured(self._tls, connection, line)
                return connection
            except OSError as exc:
                problem = exc
                connection.close()
            except Interrupted:
                connection.close()
                raise
        raise problem

    def _secured(self, context: ssl.SSLContext, connection: socket.socket, line: Line) -> socket.socket:
        # wrapping takes the socket away from its old object: the line must know the new one before anybody waits
        secured = context.wrap_socket(connection, server_hostname=self._endpoint.host, do_handshake_on_connect=False)
        try:
            line.take(secured)
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _addresses(self, line: Line, limit: Deadline) -> list[Address]:
        try:
            ip_address(self._endpoint.host)
        except ValueError:
            lookup = self._lookup.begun()
            while not wait([lookup], min(SLICE_SECONDS, _positive(limit.remaining()))).done:
                if line.ended:
                    raise Interrupted from None
            return lookup.result()
        return self._lookup.now()


def earlier(deadline: Deadline, seconds: float) -> Deadline:
    """The deadline, or in `seconds` if that comes first."""
    return min(deadline, Deadline.after(seconds), key=lambda one: one.at)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise TimeoutError
    return seconds


class _Wire:
    """What http.client takes for a socket."""

    def __init__(self, connection: socket.socket, line: Line, deadline: Deadline) -> None:
        self._connection = connection
        self._line = line
        self.deadline = deadline

    def remaining(self) -> float:
        """Seconds, more than 0. TimeoutError at the deadline, Interrupted when the line was ended."""
        if self._line.ended:
            raise Interrupted
        return _positive(self.deadline.remaining())

    def _wait(self) -> None:
        self._connection.settimeout(self.remaining())

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait()
            rest = rest[self._connection.send(rest) :]

    def receive(self, buffer: Any) -> int:
        self._wait()
        count = self._connection.recv_into(buffer)
        if self._line.ended:
            raise Interrupted
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self))

    def close(self) -> None:
        """The connection is the line's to close; http.client gives it up before the body is read."""


class _Received(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)


class Call:
    """A reply that has begun."""

    def __init__(self, endpoint: Endpoint, line: Line, wire: _Wire, response: HTTPResponse) -> None:
        self._endpoint = endpoint
        self._line = line
        self._wire = wire
        self._response = response
        self._received = 0  # bytes
        self.status = response.status

    @property
    def media_type(self) -> str:
        return (self._response.getheader("content-type") or "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> str:
        return (self._response.getheader("retry-after") or "").strip()

    def hurry(self, seconds: float) -> None:
        """The rest of the reply must come within `seconds`."""
        self._wire.deadline = earlier(self._wire.deadline, seconds)

    def proceed(self) -> None:
        """TimeoutError at the deadline, Interrupted when the line was ended."""
        self._wire.remaining()

    def read(self) -> bytes:
        """What has come, as soon as there is something; nothing at the end.

        TimeoutError at the deadline, Interrupted when the line was ended, DependencyFailed when it breaks.
        """
        with _translated(self._endpoint, self._line):
            data = self._response.read1(READ_BYTES)
        self._received += len(data)
        if self._received > MAX_REPLY_BYTES:
            raise failed(f"{self._endpoint} sends more than {MAX_REPLY_BYTES} bytes")
        return data

    def whole(self) -> bytes:
        """All that is left of the reply."""
        return b"".join(iter(self.read, b""))

    def close(self) -> None:
        self._response.close()
        self._line.free()


def call(
    connector: Connector,
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    line: Line,
    deadline: Deadline,
) -> Call:
    """Sends a request and waits for the head of the reply. Errors: those of `connect` and of `Call.read`."""
    wire = _Wire(connector.connect(line, deadline), line, deadline)
    client = HTTPConnection(endpoint.host, endpoint.port)
    client.sock = cast(socket.socket, wire)
    try:
        with _translated(endpoint, line):
            client.request(
                method,
                path,
                body,
                {"Host": endpoint.authority, "Connection": "close", "User-Agent": "llamabda", **headers},
            )
            return Call(endpoint, line, wire, client.getresponse())
    except BaseException:
        line.free()
        raise


@contextlib.contextmanager
def _translated(endpoint: Endpoint, line: Line) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except OSError as exc:
        if line.ended:
            raise Interrupted from exc
        raise failed(f"the connection to {endpoint} broke: {exc}") from exc
    except (HTTPException, ValueError) as exc:
        # without its text and its cause: they quote what the server sent, which may be anything
        raise failed(f"{endpoint} sends what is not HTTP ({type(exc).__name__})") from None

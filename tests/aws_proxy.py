"""A proxy before moto's server, which does to requests what networks and AWS under load do."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.aws import Aws


@dataclass
class Asked:
    """A request. `operation`: of DynamoDB or KMS, "GET" and so on for S3; `number`: how many of it came before."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    operation: str
    number: int


@dataclass
class Given:
    """A reply. `cut`: bytes of the body after which the connection ends; None: it does not."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drop: bool = False  # nothing is answered at all


DROP = Given(0, b"", drop=True)
Before = Callable[[Asked], Given | None]  # None: it is passed on
After = Callable[[Asked, Given], Given]
_KEPT = ("connection", "content-length", "date", "server", "transfer-encoding")


def error(code: str, status: int = 400, **more: object) -> Given:
    """As DynamoDB and KMS say it."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "never shown", **more})
    return Given(status, body.encode(), {"Content-Type": "application/x-amz-json-1.0"})


def s3_error(code: str, status: int) -> Given:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>never shown</Message></Error>"
    return Given(status, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def proxied(
    aws: Aws, before: Before = lambda asked: None, after: After = lambda asked, given: given
) -> Iterator[tuple[Aws, list[Asked]]]:
    """The account by way of the proxy, and what is asked of it. `before` may answer itself, `after` change a reply."""
    seen: list[Asked] = []
    lock = threading.Lock()
    server = urlsplit(aws.endpoint)

    def passed_on(asked: Asked) -> Given:
        connection = http.client.HTTPConnection(server.hostname or "", server.port or 0, timeout=60)
        try:
            connection.request(asked.method, asked.path, asked.body or None, asked.headers)
            reply = connection.getresponse()
            return Given(reply.status, reply.read(), dict(reply.headers))
        finally:
            connection.close()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            operation = (self.headers.get("X-Amz-Target") or self.command).rpartition(".")[2]
            with lock:
                number = sum(one.operation == operation for one in seen)
                asked = Asked(self.command, self.path, dict(self.headers), body, operation, number)
                seen.append(asked)
            given = before(asked) or after(asked, passed_on(asked))
            if given.drop:
                self.close_connection = True
                return
            self.send_response(given.status)
            for name, value in given.headers.items():
                if name.lower() not in _KEPT:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(given.body)))
            self.end_headers()
            self.wfile.write(given.body[: given.cut])
            if given.cut is not None:
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815  (the names that it looks for)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that leaves is part of the play

    listening = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Aws(f"http://127.0.0.1:{listening.server_port}"), seen
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()

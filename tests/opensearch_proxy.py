"""A proxy before a real OpenSearch server, which does to requests what networks, gateways and full clusters do."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from llamabda.adapters.opensearch import Access


@dataclass
class Asked:
    """A request. `number`: how many came before it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    number: int


@dataclass
class Given:
    """A reply. `drop`: the connection ends instead."""

    status: int
    body: bytes
    media_type: str = "application/json"
    drop: bool = False
    location: str = ""
    pause: float = 0.0  # seconds before each byte


DROP = Given(0, b"", drop=True)
Before = Callable[[Asked], Given | None]  # None: it is passed on
After = Callable[[Asked, Given], Given]


@dataclass
class Proxy:
    """`before` may answer itself; `after` may change what the server answered."""

    server: Access
    before: Before = lambda asked: None
    after: After = lambda asked, given: given
    tls: ssl.SSLContext | None = None
    seen: list[Asked] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[Access]:
        """Where it listens."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                given = proxy._answer(self.command, self.path, dict(self.headers), body)
                if given.drop:
                    self.close_connection = True
                    return
                self.send_response(given.status)
                self.send_header("Content-Type", given.media_type)
                self.send_header("Content-Length", str(len(given.body)))
                if given.location:
                    self.send_header("Location", given.location)
                self.end_headers()
                if self.command != "HEAD":
                    for part in [given.body] if not given.pause else [bytes([one]) for one in given.body]:
                        time.sleep(given.pause)
                        self.wfile.write(part)
                        self.wfile.flush()

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815  (the names that it looks for)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that leaves is part of the play

        server = Server(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield Access("127.0.0.1", server.server_port, self.tls is not None)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Given:
        with self._lock:
            asked = Asked(method, path, headers, body, len(self.seen))
            self.seen.append(asked)
        given = self.before(asked)
        if given is None:
            given = self.after(asked, self.passed_on(asked))
        return given

    def passed_on(self, asked: Asked) -> Given:
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=60)
        try:
            kept = {k: v for k, v in asked.headers.items() if k.lower() in ("content-type", "accept")}
            connection.request(asked.method, asked.path, asked.body or None, kept)
            reply = connection.getresponse()
            return Given(reply.status, reply.read(), reply.headers.get("Content-Type", "application/json"))
        finally:
            connection.close()


def is_path(asked: Asked, ending: str) -> bool:
    return urlsplit(asked.path).path.endswith(ending)


def like_serverless(asked: Asked) -> Given | None:
    """Refuses what collections of OpenSearch Serverless refuse: ids of one's own, refreshing, deleting by query.

    What is written shows after a moment, as it does there.
    """
    path = urlsplit(asked.path).path
    query = urlsplit(asked.path).query
    if path.endswith(("/_refresh", "/_delete_by_query", "/_update_by_query")) or "/_cluster" in path:
        return Given(404, b"")
    if "refresh=" in query or "require_alias" in query:
        return refused("illegal_argument_exception", "true refresh policy is not supported")
    if path.endswith("/_bulk"):
        lines = [json.loads(line) for line in asked.body.splitlines() if line]
        actions = (line for line in lines if len(line) == 1 and next(iter(line)) in ("index", "create"))
        if any("_id" in next(iter(action.values())) for action in actions):
            return refused(
                "illegal_argument_exception", "Document ID is not supported in create/index operation request"
            )
    if asked.method == "PUT" and path.count("/") == 1:
        body = json.loads(asked.body)
        index = body["settings"]["index"]
        if "number_of_shards" in index or "number_of_replicas" in index:
            return refused("illegal_argument_exception", "number of shards and replicas cannot be set")
        index["refresh_interval"] = "100ms"
        asked.body = json.dumps(body).encode()
    return None


def refused(kind: str, reason: str, status: int = 400) -> Given:
    return Given(status, json.dumps({"error": {"type": kind, "reason": reason}, "status": status}).encode())

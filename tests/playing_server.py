"""A server that plays a part: real sockets, and whatever bytes a test wants."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

MODELS = {"object": "list", "data": [{"id": "a-model", "object": "model"}]}


@dataclass
class Visit:
    """One connection with its request, and the means to answer it."""

    connection: socket.socket
    path: str
    headers: str
    body: dict
    over: threading.Event  # the test is done

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reply(self, status: int, body: bytes, content_type: str = "application/json", more: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.send(head.encode() + body)

    def json(self, document: object, status: int = 200, more: str = "") -> None:
        self.reply(status, json.dumps(document).encode(), more=more)

    def stream(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")

    def again(self, data: bytes, seconds: float = 0.0) -> None:
        """Until the test is done, or the other side has had enough."""
        while not self.over.wait(seconds):
            self.send(data)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


Part = Callable[[Visit], None]


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str | None, finish: str | None = None, **more: object) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text, **more}, "finish_reason": finish}]}


DONE = b"data: [DONE]\n\n"


def writes(text: str) -> Part:
    """The part of a good server."""

    def play(visit: Visit) -> None:
        visit.stream()
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}}
        for word in text.split(" "):
            visit.send(event(delta(f"{word} ")))
        visit.send(event(delta(None, "stop")) + event({"choices": [], "usage": usage}) + DONE)

    return play


def well_known(visit: Visit) -> bool:
    """Answers what is asked before a completion, as a server that knows nothing more than its models."""
    if visit.path.endswith("/models"):
        visit.json(MODELS)
    elif not visit.path.endswith("/chat/completions"):
        visit.json({"error": {"message": "File Not Found", "code": 404}}, 404)
    else:
        return False
    return True


@dataclass
class PlayingServer:
    """Plays `part` for every visit; `visits` are those that sent a whole request."""

    part: Part
    everywhere: bool = False  # also for what is asked before a completion
    tls: ssl.SSLContext | None = None
    port: int = 0
    visits: list[Visit] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[Visit]:
        return [visit for visit in self.visits if visit.path.endswith("/chat/completions")]

    @contextmanager
    def running(self) -> Iterator[PlayingServer]:
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            self.port = listener.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            accepting.start()
            try:
                yield self
            finally:
                self.over.set()
                listener.shutdown(socket.SHUT_RDWR)
                accepting.join()

    def _accept(self, listener: socket.socket) -> None:
        visiting = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            self.connections += 1
            visiting.append(threading.Thread(target=self._visited, args=(connection,), daemon=True))
            visiting[-1].start()
        for visit in visiting:
            visit.join()

    def _visited(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the other side leaves when it has had enough
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                connection.settimeout(60)
                visit = self._read(connection)
                if visit is None:
                    return
                self.visits.append(visit)
                if self.everywhere or not well_known(visit):
                    self.part(visit)
        connection.close()

    def _read(self, connection: socket.socket) -> Visit | None:
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(65_536)
            if not part:
                return None
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = next((int(v.split(":")[1]) for v in text.split("\r\n") if v.lower().startswith("content-length")), 0)
        while len(body) < length:
            body += connection.recv(65_536)
        return Visit(connection, text.split(" ")[1], text, json.loads(body) if body else {}, self.over)

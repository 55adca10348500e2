"""A function of the bundle in a process of its own, asked while something it needs hangs. Usage: deadline_child.py PLAY

Prints one line of JSON for each call of the handler: what was asked, how it ended, and the seconds that it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count as counted
from itertools import cycle
from typing import ClassVar

from llamabda_functions.ask import app as ask_app
from llamabda_functions.ingest import app as ingest_app

from llamabda import tokens, wiring
from llamabda.chunking import Chunking
from llamabda.settings import settings
from llamabda.types import Deadline, NewDocument, Prompt, User
from tests.aws import Aws
from tests.aws_proxy import Asked, Given, proxied
from tests.fakes import WordEmbedder
from tests.http.test_lambda import Context, event
from tests.pulse import Pulse

HARBOUR = "The harbour office opens at eight in the morning."
QUESTION = {"question": "When does the harbour office open?"}
TENANT = "t_" + "a" * 26
AT_ONCE = 20  # asks in one process, that wait for something; where the bundle has one
ALONE = 1  # those that compute: side by side they would wait for each other
APART = 0.1  # seconds between their beginnings
TRICKLE_SECONDS = 0.1
WARMING = 50.0  # seconds for what is asked before anything hangs
FEW = 6  # of those that do much before something hangs
HELD_SECONDS = 60.0  # longer than anybody waits here
HANDLERS = {"ask": ask_app.handler, "ingest": ingest_app.handler}


class Weather:
    """What hangs now, by name; `trickles`: it sends a byte now and then, from the first one of its reply on."""

    def __init__(self) -> None:
        self.hangs: frozenset[str] = frozenset()
        self.trickles = False


@dataclass
class Gate:
    """A TCP port before a server: lets bytes through while the weather is fair."""

    weather: Weather
    name: str
    to: int
    port: int = 0

    def open(self) -> Gate:
        listening = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return self

    def _accept(self, listening: socket.socket) -> None:
        while True:
            client, _ = listening.accept()
            server = socket.create_connection(("127.0.0.1", self.to)) if self.to else None
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            if server is not None:
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket | None) -> None:
        trickling = False
        try:
            while data := client.recv(65_536):
                if self.name in self.weather.hangs:
                    if self.weather.trickles and not trickling:
                        trickling = True
                        threading.Thread(target=self._trickle, args=(client,), daemon=True).start()
                elif server is not None:
                    server.sendall(data)
        except OSError:
            pass
        finally:
            client.close()

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := server.recv(65_536):
                client.sendall(data)
        except OSError:
            pass

    def _trickle(self, client: socket.socket) -> None:
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: " + 4_000 * b"x"
        try:
            for at in range(len(reply)):
                client.sendall(reply[at : at + 1])
                time.sleep(TRICKLE_SECONDS)
        except OSError:
            pass


class Cluster(BaseHTTPRequestHandler):
    """As much of OpenSearch as it takes to make indexes and to write into them."""

    protocol_version = "HTTP/1.1"
    made: ClassVar[dict[str, dict]] = {}

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that leaves is part of the play
            super().handle()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        name = path.split("/")[1]
        status, reply = 200, {"acknowledged": True}
        if path.endswith("/_bulk"):
            actions = [line for line in body.splitlines() if line.startswith(b'{"index"')]
            reply = {"items": [{"index": {"status": 201}} for _ in actions]}
        elif path.endswith("/_msearch"):
            nothing = {"hits": {"hits": [], "total": {"value": 0}}}
            reply = {"responses": [nothing for line in body.splitlines() if line != b"{}"]}
        elif path.endswith("/_mapping"):
            reply = self.made
        elif name in ("_alias", "_cluster"):
            reply = {}
        elif self.command == "PUT":
            self.made[name] = {"mappings": json.loads(body)["mappings"], "settings": {}}
        elif self.command == "GET" and name in self.made:
            reply = {name: self.made[name]}
        elif self.command == "GET":
            status, reply = 404, {"error": {"type": "index_not_found_exception"}}
        sent = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  (the names that it looks for)


class SlowGenerator:
    """Keeps the port's promises as slowly as it may: `first` seconds until the first token, one a second after it."""

    name = "slow"
    context_size = 2_048

    def __init__(self, first: float) -> None:
        self.first = first

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def generate(self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline) -> SlowText:
        return SlowText(deadline, self.first)


@dataclass
class SlowText:
    """Blocks in `next`, as a model does that is computing, until there is a token or the deadline."""

    deadline: Deadline
    first: float
    finish_reason: str = "stop"
    prompt_tokens: int = 7
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    left: list[str] = field(default_factory=lambda: f"{HARBOUR} [1] It is open {100 * 'and open '}".split(" "))

    def __iter__(self) -> Iterator[str]:
        needed = self.first
        while self.left:
            if self.deadline.remaining() < needed:
                time.sleep(self.deadline.remaining())
                self.finish_reason = "deadline"
                return
            time.sleep(needed)
            needed = 1.0
            self.completion_tokens += 1
            yield self.left.pop(0) + " "

    def close(self) -> None:
        pass


PULSE = Pulse()
NUMBERS = counted(1)


def call(function: str, made: dict) -> dict:
    """One call of a handler as the runtime makes it; the time of the call alone."""
    made["requestContext"]["timeEpoch"] = int(time.time() * 1_000)
    began = time.monotonic()
    reply = HANDLERS[function](made, Context(60_000))
    seconds = time.monotonic() - began
    body = json.loads(reply["body"]) if "json" in reply["headers"]["content-type"] else None
    lag = PULSE.lag(began)
    return {"status": reply["statusCode"], "seconds": round(seconds, 3), "lag": round(lag, 3), "body": body}


class Caller:
    """Threads that each have an event loop, as the runtime's one has."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once, initializer=lambda: asyncio.set_event_loop(asyncio.new_event_loop()))

    def __call__(self, play: str, calls: Sequence[tuple[str, dict]]) -> None:
        """Makes all of them, and prints what comes of each."""
        first = time.monotonic()

        def one(at: int, function: str, made: dict) -> dict:
            # side by side, but neither begun nor answered in the same millisecond
            time.sleep(max(0.0, first + APART * min(at, self._at_once) - time.monotonic()))
            return call(function, made)

        futures = [self._pool.submit(one, at, *wanted) for at, wanted in enumerate(calls)]
        for (_, made), future in zip(calls, futures, strict=True):
            route = f"{made['requestContext']['http']['method']} {made['rawPath']}"
            print(json.dumps({"play": play, "route": route, **future.result()}), flush=True)


def token() -> str:
    now = int(time.time())
    claims = {
        "iss": settings().token_issuer,
        "aud": settings().token_audience,
        "sub": "alice",
        "tenant": TENANT,
        "cred": 0,
        "iat": now,
        "exp": now + 3_000,
    }
    return tokens.mint(wiring.signer(), claims)


def account() -> None:
    wiring.users().add(User("alice", TENANT, "admin", "x", False, datetime.now(UTC)))


def train() -> None:
    (done,) = wiring.ingest().train(TENANT, [NewDocument("harbour", HARBOUR)], chunking=Chunking())
    assert done.state == "ready", done


def question(sent: str, **more: object) -> tuple[str, dict]:
    return "ask", event("POST", "/ask/question", {**QUESTION, **more}, token=sent)


def others(sent: str) -> list[tuple[str, dict]]:
    """The other routes of `ask`, and an answer that is streamed."""
    search = event("POST", "/search", {"query": "harbour"}, token=sent)
    return [question(sent, stream=True), ("ask", search), ("ask", event("GET", "/health/ready"))]


def routes(sent: str) -> list[tuple[str, dict]]:
    """Every HTTP route of `ingest`."""
    doc = {"id": f"tide-{next(NUMBERS)}", "text": "The tide is high at noon."}
    return [
        ("ingest", event("POST", "/training/train", {"docs": [doc]}, token=sent)),
        ("ingest", event("GET", "/documents", token=sent)),
        ("ingest", event("GET", "/documents/harbour", token=sent)),
        ("ingest", event("GET", "/chunks", query="doc_id=harbour", token=sent)),
        ("ingest", event("GET", "/source", query="doc_id=harbour", token=sent)),
        ("ingest", event("DELETE", "/documents/gone", token=sent)),
    ]


def cluster(weather: Weather) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gate = Gate(weather, "index", server.server_port).open()
    os.environ["OPENSEARCH_HOST"] = f"http://127.0.0.1:{gate.port}"


def part(asked: Asked) -> str:
    """Which part of the account a request is for."""
    if asked.operation.startswith("SendMessage"):
        return "queue"
    for part, table in (("users", os.environ.get("USERS_TABLE")), ("catalog", os.environ["CATALOG_TABLE"])):
        if table and table.encode() in asked.body:
            return part
    return "keys" if "jwks" in asked.path else "texts"


@contextmanager
def bundle(weather: Weather) -> Iterator[None]:
    """Our own stand-in for the cluster, and everything else of AWS when the settings say so."""
    held = threading.Event()
    if not os.environ.get("AWS_ENDPOINT_URL"):
        cluster(weather)
        yield
        return

    def before(asked: Asked) -> Given | None:
        if part(asked) in weather.hangs:
            held.wait(HELD_SECONDS)
        return None

    cluster(weather)
    with proxied(Aws(os.environ["AWS_ENDPOINT_URL"]), before) as (account, _):
        os.environ["AWS_ENDPOINT_URL"] = account.endpoint
        settings.cache_clear()
        yield


def warm(sent: str) -> None:
    """Everything has been used once, as in an instance that has answered before."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    wiring._space.wait()
    given = os.environ["ASK_DEADLINE_SECONDS"]
    os.environ["ASK_DEADLINE_SECONDS"] = str(WARMING)  # the first time is that of imports
    settings.cache_clear()
    for function, made in [question(sent), *others(sent)[:2], *routes(sent)]:
        done = call(function, made)
        assert done["status"] in (200, 202, 204, 404), (made["rawPath"], done)
    os.environ["ASK_DEADLINE_SECONDS"] = given
    settings.cache_clear()
    # an account is asked for at every request from now on
    wiring.accounts()._keep = 0.0


def models(count: int) -> None:
    """A model that writes a token a second, and one that takes longer to read the prompt than there is time."""
    generators = {"one token a second": SlowGenerator(1.0), "prefill": SlowGenerator(3_600.0)}
    turns: Iterator[SlowGenerator | None] = cycle([None])
    wiring.generator = lambda: next(turns)  # type: ignore[assignment]  # in place of llama.cpp
    account()
    train()
    sent = token()
    warm(sent)
    turns = cycle(generators.values())
    if count < AT_ONCE:  # all at once: they take their time
        wanted = [question(sent, mode=mode) for mode in ("auto", "generated") for _ in range(len(generators) * count)]
        return Caller()("slow model", wanted)
    call_all = Caller(ALONE)
    for name, generator in generators.items():
        turns = cycle([generator])
        for mode in ("auto", "generated"):
            call_all(f"{name}, {mode}", [question(sent, mode=mode) for _ in range(count)])
    return None


def loading(count: int) -> None:
    """The embedding model is still being loaded; then it is there, and the language model is not."""
    loaded = threading.Event()

    def load(model: object) -> WordEmbedder:
        loaded.wait()
        return WordEmbedder()

    wiring.load_embedder = load
    account()
    sent, call_all = token(), Caller()
    wiring.warm()
    call_all("embedder loads", [question(sent) for _ in range(count)])
    Caller(FEW)("embedder loads, others", [*others(sent), *routes(sent)])
    loaded.set()
    train()
    wiring._generator._make = lambda: loaded.wait() and threading.Event().wait()
    os.environ["MODEL_PATH"] = "model-that-loads.gguf"
    settings.cache_clear()
    Caller(ALONE)("generator loads", [question(sent, mode=("auto", "generated")[at % 2]) for at in range(count)])


def hanging(*names: str, trickles: bool = False) -> Callable[[int], None]:
    """An instance that works, and then these hang."""

    def play(count: int) -> None:
        weather = Weather()
        with bundle(weather):
            account()
            train()
            sent, call_all = token(), Caller()
            warm(sent)
            if "keys" in names:
                wiring.verifier()._keys._keys = {}
                wiring.verifier()._keys._tried_at = -1e9
            weather.trickles = trickles
            weather.hangs = frozenset(names)
            call_all("ask", [question(sent) for _ in range(count)])
            Caller(FEW)("ingest", [*others(sent), *(one for _ in range(3) for one in routes(sent))])
            if "index" in names:
                states = {one.id: one.state for one in wiring.catalog().list(TENANT).documents}
                print(json.dumps({"play": "after", "states": states}), flush=True)

    return play


def cold(count: int) -> None:
    """Nothing of AWS has answered ever: an instance that begins in the middle of it."""
    weather = Weather()
    weather.hangs, weather.trickles = frozenset(("aws",)), True
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{Gate(weather, 'aws', 0).open().port}"
    os.environ["OPENSEARCH_HOST"] = "http://127.0.0.1:9"
    for name in ("JWKS_URL",):  # keys from a file: so that the rest is reached
        os.environ.pop(name)
    users = os.environ.pop("USERS_TABLE")
    settings.cache_clear()
    account()
    sent, call_all = token(), Caller()
    wiring.warm()
    call_all("catalog", [question(sent) for _ in range(count // 2)] + routes(sent))
    os.environ["USERS_TABLE"] = users
    settings.cache_clear()
    wiring.users._value = wiring.accounts._value = None
    call_all("users", [question(sent) for _ in range(count // 2)] + routes(sent))


PLAYS = {
    "models": models,
    "loading": loading,
    "index": hanging("index"),
    "trickling-index": hanging("index", trickles=True),
    "users": hanging("users"),
    "catalog": hanging("catalog"),
    "keys": hanging("keys"),
    "texts": hanging("texts"),
    "queue": hanging("queue"),
    "cold": cold,
}

if __name__ == "__main__":
    wiring.load_embedder = lambda model: WordEmbedder()
    PLAYS[sys.argv[1]](int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # what was left behind ends by itself some time

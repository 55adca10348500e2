"""Ten minutes of everything at once: eight clients, what fails, and whether memory and open files stay where they are.

Nobody stands beside it: the figures are for trust, not for speed.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.home import EMBEDDED
from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import Plan
from benchmarks.server import Server, prepare

CLIENTS = 8
SECONDS, QUICK_SECONDS = 600.0, 20.0
WATCH_SECONDS = 5.0
WARM_SHARE = 0.2  # of the time, in which caches and pools still fill
DOCUMENTS = 12  # that each client trains again and again, changed or not
PASSWORD = "soak-password"
# told, and to be tried again later: what a bounded queue is for
BUSY = frozenset((503,))


@dataclass
class Tally:
    """What the clients saw."""

    latencies: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, milliseconds: float, status: int, wrong: str = "") -> None:
        with self.lock:
            if status not in BUSY:
                self.latencies.setdefault(kind, []).append(milliseconds)
            self.statuses[kind, status] += 1
            if wrong:
                self.errors.append(f"{kind}: {wrong}")


class Client:
    """One user who does a little of everything, in an order that a seed decides."""

    def __init__(self, url: str, number: int, questions: list[str], texts: list[str], tally: Tally) -> None:
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._name = f"soak-{number}"
        self._draw = random.Random(number)
        self._questions = questions
        self._texts = texts
        self._tally = tally
        self._tokens: dict[str, str] = {}
        self._trained: dict[str, str] = {}

    def run(self, until: float) -> None:
        self._call("register", "POST", "/auth/register", {"username": self._name, "password": PASSWORD}, expect={201})
        self._login()
        work: list[tuple[Callable[[], None], int]] = [
            (self._search, 8),
            (self._extract, 8),
            (self._ask, 2),
            (self._stream, 2),
            (self._leave, 1),
            (self._train, 4),
            (self._read, 3),
            (self._delete, 1),
            (self._refresh, 1),
        ]
        actions, weights = zip(*work, strict=True)
        while time.monotonic() < until:
            self._draw.choices(actions, weights)[0]()
        self._http.close()

    def _login(self) -> None:
        found = self._call("login", "POST", "/auth/login", {"username": self._name, "password": PASSWORD})
        self._tokens = found.json() if found is not None else {}

    def _refresh(self) -> None:
        body = {"refresh_token": self._tokens.get("refresh_token", "")}
        found = self._call("refresh", "POST", "/auth/refresh", body)
        if found is not None and found.is_success:
            self._tokens = found.json()

    def _search(self) -> None:
        self._call("search", "POST", "/search", {"query": self._question(), "filter": {"n": {"$gte": 0}}})

    def _extract(self) -> None:
        self._call("extract", "POST", "/ask/question", {"question": self._question(), "mode": "extractive"})

    def _ask(self) -> None:
        body = {"question": self._question(), "max_tokens": 40}
        self._call("ask", "POST", "/ask/question", body, expect={200} | BUSY)

    def _stream(self) -> None:
        body = {"question": self._question(), "max_tokens": 40, "stream": True}
        found = self._call("stream", "POST", "/ask/question", body, expect={200} | BUSY)
        if found is not None and found.is_success and "event: final_answer" not in found.text:
            self._tally.note("stream", 0, 0, f"no final answer: {found.text[-200:]}")

    def _leave(self) -> None:
        """Hangs up in the middle of an answer."""
        body = {"question": self._question(), "max_tokens": 200, "stream": True}
        began = time.perf_counter()
        try:
            with self._http.stream("POST", "/ask/question", json=body, headers=self._headers()) as reply:
                for _ in reply.iter_raw():
                    break
            status, wrong = reply.status_code, "" if reply.status_code in {200} | BUSY else f"{reply.status_code}"
        except httpx.HTTPError as exc:
            status, wrong = 0, repr(exc)
        self._tally.note("leave", 1000 * (time.perf_counter() - began), status, wrong)

    def _train(self) -> None:
        name = f"doc-{self._draw.randrange(DOCUMENTS)}"
        text = self._draw.choice(self._texts)
        doc = {"id": name, "text": text, "metadata": {"n": len(text)}}
        found = self._call("train", "POST", "/training/train", {"docs": [doc]}, expect={200, 202})
        if found is not None and found.is_success:
            state = found.json()["documents"][0]["state"]
            if state not in ("ready", "unchanged", "queued", "processing"):
                self._tally.note("train", 0, 0, f"{name} is {state}")
            self._trained[name] = text

    def _read(self) -> None:
        found = self._call("documents", "GET", "/documents?limit=5")
        if found is None or not found.is_success:
            return
        for doc in found.json()["documents"]:
            source = self._call("source", "GET", f"/source?doc_id={doc['id']}", expect={200, 404})
            if source is not None and source.status_code == 200 and source.text != self._trained.get(doc["id"]):
                self._tally.note("source", 0, 0, f"{doc['id']} is not what was trained last")
            break

    def _delete(self) -> None:
        if self._trained:
            name = self._draw.choice(sorted(self._trained))
            self._call("delete", "DELETE", f"/documents/{name}", expect={204})
            del self._trained[name]
            self._call("deleted", "GET", f"/documents/{name}", expect={404})

    def _question(self) -> str:
        return self._draw.choice(self._questions)

    def _headers(self) -> dict[str, str]:
        token = self._tokens.get("access_token")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _call(
        self,
        kind: str,
        method: str,
        path: str,
        body: object = None,
        *,
        expect: set[int] | frozenset[int] = frozenset((200,)),
    ) -> httpx.Response | None:
        began = time.perf_counter()
        try:
            reply = self._http.request(method, path, json=body, headers=self._headers())
        except httpx.HTTPError as exc:
            self._tally.note(kind, 1000 * (time.perf_counter() - began), 0, repr(exc))
            return None
        spent = 1000 * (time.perf_counter() - began)
        wrong = "" if reply.status_code in expect else f"{reply.status_code}: {reply.text[:200]}"
        self._tally.note(kind, spent, reply.status_code, wrong)
        return reply


def run(plan: Plan) -> Iterator[Row]:
    seconds = QUICK_SECONDS if plan.quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        environment = os.environ | {"LLAMABDA_HOME": str(Path(name) / "home")}
        prepare(environment, 1_000)
        tally = Tally()
        with Server(environment, folder=Path(name)) as server:
            server.wait_until_ready()
            plan.say(f"soak: {CLIENTS} clients for {seconds:.0f} s")
            memory, files = _load(plan, server, tally, seconds)
    if not tally.latencies:
        raise Unavailable("the soak did nothing")
    for wrong in tally.errors[:10]:
        plan.say(f"soak: {wrong}")
    requests = sum(tally.statuses.values())
    busy = sum(count for (_, status), count in tally.statuses.items() if status in BUSY)
    note = f"{requests} requests of {CLIENTS} clients in {seconds:.0f} s; {busy} were told to come back (503)"
    yield Row("soak", "errors", "", Samples(OURS, (float(len(tally.errors)),)), aim="0", note=note)
    yield _drift("resident memory", "MB", memory)
    yield _drift("open file descriptors", "", files)
    for kind in ("search", "extract", "ask", "stream", "train"):
        times = sorted(tally.latencies.get(kind, [0.0]))
        row_note = f"p95 {times[int(0.95 * (len(times) - 1))]:.0f} ms, {len(times)} requests"
        yield Row("soak", f"{kind}, under this load", "ms", Samples(OURS, (statistics.median(times),)), note=row_note)


def _load(plan: Plan, server: Server, tally: Tally, seconds: float) -> tuple[list[float], list[float]]:
    """Memory (MB) and open files, every few seconds."""
    texts = plan.corpus.texts(200)
    answerable = plan.corpus.answerable(150, documents=min(EMBEDDED, len(plan.corpus.documents)))
    questions = answerable + list(plan.corpus.questions[:50])  # most of which are refused
    until = time.monotonic() + seconds
    clients = [Client(str(server.client.base_url), n, questions, texts, tally) for n in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    memory: list[float] = []
    files: list[float] = []
    while any(thread.is_alive() for thread in threads):
        memory.append(server.memory()["rss"])
        files.append(float(len(os.listdir(f"/proc/{server.process.pid}/fd"))))
        threads[0].join(WATCH_SECONDS)
    return memory, files


def _drift(what: str, unit: str, values: list[float]) -> Row:
    """Where it stood after warming up and at the end, each as the median of a fifth of the time."""
    warm = values[int(WARM_SHARE * len(values)) :]
    part = max(1, len(warm) // 5)
    first, last = statistics.median(warm[:part]), statistics.median(warm[-part:])
    note = f"after warming up {first:.0f}, at the end {last:.0f}, highest {max(values):.0f}"
    return Row("soak", what, unit, Samples(OURS, (last,)), aim="flat", note=note)

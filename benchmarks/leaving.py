"""What a server does for those it does not answer: how soon the model stops once its client has left, and how soon one
too many is told to come back."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx

from benchmarks.home import EMBEDDED
from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import Plan
from benchmarks.server import Server, prepare

TIMES, QUICK_TIMES = 20, 3
TRIES = 5  # for each answer that is left: some end, or are refused, before anybody can
AFTER_SECONDS = (0.0, 0.05, 0.3, 0.8)  # after the extract: while the prompt is read, and while words are written
LIMIT_SECONDS = 30.0
TAKEN = 'llamabda_model{state="taken"} '


def run(plan: Plan) -> Iterator[Row]:
    times = QUICK_TIMES if plan.quick else TIMES
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        environment = os.environ | {"LLAMABDA_HOME": str(Path(name) / "home")}
        prepare(environment, 1_000)
        with Server(environment, folder=Path(name)) as server:
            server.wait_until_ready()
            credentials = {"username": "bench", "password": "bench-password"}
            server.post("/auth/register", credentials)
            server.client.headers["Authorization"] = f"Bearer {server.post('/auth/login', credentials)['access_token']}"
            plan.say(f"leaving: {times} answers are left")
            questions = plan.corpus.answerable(TRIES * times, documents=min(EMBEDDED, len(plan.corpus.documents)))
            left: list[float] = []
            for question in questions:
                if len(left) < times:
                    spent = _left(server, question, AFTER_SECONDS[len(left) % len(AFTER_SECONDS)])
                    left += [] if spent is None else [spent]
            refused = [_refused(server, questions[at % len(questions)]) for at in range(times)]
    if not left:
        raise Unavailable("the model had ended before anybody could leave")
    note = f"slowest {max(left):.0f} ms of {len(left)}, from closing the connection to a free model"
    yield Row("leaving", "the model stops once its client has left", "ms", _ours(left), aim="<= 250 ms", note=note)
    note = f"slowest {max(refused):.0f} ms of {len(refused)}, beside {_places()} answers under way or waiting"
    yield Row("leaving", "503 beyond the queue", "ms", _ours(refused), aim="< 100 ms", note=note)


def _left(server: Server, question: str, after: float) -> float | None:
    """Milliseconds until the model is free again; None when the answer was there before."""
    with _asking(server, question) as reply:
        lines = reply.iter_lines()  # held: the connection is closed once nobody holds it
        for line in lines:
            if line == "event: final_answer":
                return None
            if line == "event: extract":
                break
        time.sleep(after)
        if not _taken(server):
            return None
        began = time.perf_counter()
    _until_free(server)
    return 1000 * (time.perf_counter() - began)


def _refused(server: Server, question: str) -> float:
    """Milliseconds until somebody is told that all places are taken."""
    with ExitStack() as stack:
        for _ in range(_places()):
            stack.enter_context(_asking(server, question))
        began = time.perf_counter()
        reply = server.client.post("/ask/question", json={"question": question})
        spent = 1000 * (time.perf_counter() - began)
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE or "retry-after" not in reply.headers:
            raise Unavailable(f"beyond the queue the answer was {reply.status_code}: {reply.text[:200]}")
    _until_free(server)
    return spent


def _asking(server: Server, question: str) -> AbstractContextManager[httpx.Response]:
    body = {"question": question, "max_tokens": 400, "stream": True, "top_k": 5}
    return server.client.stream("POST", "/ask/question", json=body)


def _places() -> int:
    from llamabda.settings import settings

    return settings().max_queue + 1


def _taken(server: Server) -> int:
    text = server.client.get("/metrics").text
    return int(float(text.partition(TAKEN)[2].partition("\n")[0]))


def _until_free(server: Server) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while _taken(server):
        if time.monotonic() > end:
            raise Unavailable(f"the model was still at work {LIMIT_SECONDS:.0f} s after its client had left")


def _ours(values: list[float]) -> Samples:
    return Samples(OURS, tuple(values))

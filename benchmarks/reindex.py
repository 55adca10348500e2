"""Changing the embedding model of 10k chunks while a server answers: what it takes, and what questions notice."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.home import EMBEDDED
from benchmarks.measure import OURS, Row, Samples, Unavailable
from benchmarks.plan import Plan, own_python
from benchmarks.server import Server, prepare
from llamabda import models, wiring_models

CHUNKS, QUICK_CHUNKS = 10_000, 300
TARGET = "cnmoro/portuguese-multilingual-e5-small"
PAUSE_SECONDS = 0.02  # between two questions
AFTER_SECONDS = 15.0  # questions go on for as long after the change: the server follows meanwhile
LIMIT_SECONDS = 3_600.0


@dataclass
class Asking:
    """Questions, one after the other, until it is told to stop."""

    client: httpx.Client
    questions: list[str]
    stop: threading.Event = field(default_factory=threading.Event)
    spent: list[float] = field(default_factory=list)  # milliseconds
    lost: list[str] = field(default_factory=list)  # what came instead of hits

    def run(self) -> None:
        turn = 0
        while not self.stop.is_set():
            question = self.questions[turn % len(self.questions)]
            turn += 1
            began = time.perf_counter()
            try:
                reply = self.client.post("/search", json={"query": question})
                found = len(reply.json()["hits"]) if reply.status_code == httpx.codes.OK else 0
                if not found:
                    self.lost.append(f"{reply.status_code} {reply.text[:100]}")
            except (httpx.HTTPError, ValueError, KeyError) as exc:
                self.lost.append(repr(exc))
            self.spent.append(1000 * (time.perf_counter() - began))
            time.sleep(PAUSE_SECONDS)


def run(plan: Plan) -> Iterator[Row]:
    count = QUICK_CHUNKS if plan.quick else CHUNKS
    models.fetch(TARGET, cache=wiring_models.cache_dir() / "models", progress=plan.say)
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        environment = os.environ | {"LLAMABDA_HOME": str(Path(name) / "home"), "MODEL_PATH": ""}
        plan.say(f"reindex: preparing a home with {count} chunks")
        prepare(environment, count)
        with Server(environment, folder=Path(name)) as server:
            server.wait_until_ready()
            credentials = {"username": "bench", "password": "bench-password"}
            server.post("/auth/register", credentials)
            server.client.headers["Authorization"] = f"Bearer {server.post('/auth/login', credentials)['access_token']}"
            questions = plan.corpus.answerable(100, documents=min(EMBEDDED, len(plan.corpus.documents)))
            asking = Asking(server.client, questions)
            thread = threading.Thread(target=asking.run)
            thread.start()
            try:
                plan.say(f"reindex: to {TARGET}")
                began = time.perf_counter()
                command = [str(own_python().with_name("llamabda")), "reindex"]
                done = subprocess.run(
                    command,
                    env=environment | {"EMBED_MODEL_NAME": TARGET},
                    cwd=name,
                    capture_output=True,
                    text=True,
                    timeout=LIMIT_SECONDS,
                    check=False,
                )
                seconds = time.perf_counter() - began
                time.sleep(AFTER_SECONDS)
            finally:
                asking.stop.set()
                thread.join()
    if done.returncode:
        raise Unavailable(f"llamabda reindex ended with {done.returncode}: {done.stderr[-300:]}")
    said = done.stderr.strip().splitlines()[-1]
    yield Row("reindex", f"llamabda reindex, about {count} chunks, beside questions", "s", _ours(seconds), note=said)
    first = f"; the first: {asking.lost[0]}" if asking.lost else ""
    note = f"of {len(asking.spent)}, before, during and after the change{first}"
    yield Row("reindex", "questions lost meanwhile", "", _ours(float(len(asking.lost))), aim="0", note=note)
    note = f"slowest {max(asking.spent):.0f} ms"
    yield Row("reindex", "POST /search meanwhile", "ms", _ours(statistics.median(asking.spent)), note=note)


def _ours(value: float) -> Samples:
    return Samples(OURS, (value,))

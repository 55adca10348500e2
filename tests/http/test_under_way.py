"""A running server: killed in the middle of work, read while documents change, its signing keys rotated."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.http.serving import SERVE, environment_of, serving

ALICE = {"username": "alice", "password": "secret123"}
# a fifth of a second for each batch of chunks, so that a request ends long before its documents are ready
SLOW = """
import time
import llamabda_functions.ingest.app as ingest
import llamabda.worker as worker
from tests.fakes import WordEmbedder
ingest.TRAIN_SECONDS = 1.0
worker.LEASE_SECONDS = 2.0
def slowly(self, texts, quickly=WordEmbedder.embed_documents):
    time.sleep(0.2)
    return quickly(self, texts)
WordEmbedder.embed_documents = slowly
"""
HURRIED = "import llamabda.worker as worker\nworker.LEASE_SECONDS = 2.0\n"
SENTENCES = 700  # of a document in the queue: more than one batch of chunks
NO_LIMITS = {"RATE_LIMIT_USER": "0", "RATE_LIMIT_ADDRESS": "0"}


@contextmanager
def logged_in(url: str, *, register: bool = True) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        if register:
            assert client.post("/auth/register", json=ALICE).status_code == 201
        token = client.post("/auth/login", json=ALICE).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def text_of(name: str, sentences: int) -> str:
    return " ".join(f"Document {name} says in sentence {n} what nobody else says." for n in range(sentences))


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def own_key(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


def test_what_was_accepted_survives_being_killed_and_is_ready_after_the_next_start(tmp_path, own_key):
    environment = environment_of(tmp_path, own_key, **NO_LIMITS)
    documents = {f"doc-{n}": text_of(f"{n}", SENTENCES) for n in range(8)}
    with serving(tmp_path, environment, SLOW + SERVE) as server, logged_in(server.url) as client:
        docs = [{"id": name, "text": text} for name, text in documents.items()]
        reply = client.post("/training/train", json={"docs": docs, "chunk_size": 400})
        assert reply.status_code == 202, reply.text
        told = {document["id"]: document["state"] for document in reply.json()["documents"]}
        assert set(told) == set(documents)
        assert "queued" in told.values()
        listed = client.get("/documents").json()
        assert sum(listed["counts"].values()) == len(documents)
        assert listed["counts"]["ready"] < len(documents)
        server.process.kill()
        server.process.wait()
    with (
        serving(tmp_path, environment, HURRIED + SERVE) as server,
        logged_in(server.url, register=False) as client,
    ):

        def all_ready() -> bool:
            return client.get("/documents").json()["counts"] == {"ready": len(documents)}

        assert until(all_ready, 60), client.get("/documents").json()["counts"]
        for name, text in documents.items():
            assert client.get("/source", params={"doc_id": name}).text == text
        (hit,) = client.post("/search", json={"query": "Document 7 says in sentence 699", "top_k": 1}).json()["hits"]
        assert (hit["doc_id"], "sentence 699" in hit["text"]) == ("doc-7", True)


def test_whoever_reads_a_hundred_times_a_second_sees_one_whole_version(tmp_path, own_key):
    parts, versions = 6, 25
    environment = environment_of(tmp_path, own_key, **NO_LIMITS)

    def version(number: int) -> str:
        return "\n\n".join(f"Part {part} of the notice, version {number}. " + "x" * 150 for part in range(parts))

    with serving(tmp_path, environment) as server, logged_in(server.url) as client:

        def train(number: int) -> None:
            doc = {"id": "notice", "text": version(number), "metadata": {"version": number}}
            reply = client.post("/training/train", json={"docs": [doc], "chunk_size": 200, "chunk_overlap": 0})
            assert reply.json()["documents"][0]["state"] == "ready", reply.text

        train(0)
        ended = threading.Event()
        seen: list[tuple[int, ...]] = []
        wrong: list[object] = []

        def read() -> None:
            with httpx.Client(base_url=server.url, headers=client.headers, timeout=60, trust_env=False) as reader:
                due = time.monotonic()
                while not ended.is_set():
                    hits = reader.post("/search", json={"query": "part of the notice", "top_k": 50}).json()["hits"]
                    texts = sorted(hit["text"].split(". ")[0] for hit in hits)
                    numbers = {hit["meta"]["version"] for hit in hits}
                    generations = {hit["generation"] for hit in hits}
                    whole = [f"Part {n} of the notice, version {min(numbers, default=-1)}" for n in range(parts)]
                    if texts != whole or len(generations) != 1 or len(numbers) != 1:
                        wrong.append(hits)
                    seen.append(tuple(numbers))
                    due += 0.01
                    time.sleep(max(0.0, due - time.monotonic()))

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            for number in range(1, versions):
                before = len(seen)
                train(number)
                assert until(lambda before=before: len(seen) > before, 10)
            client.delete("/documents/notice")
            gone = client.post("/search", json={"query": "part of the notice", "top_k": 50}).json()["hits"]
            ended.set()
            wrong_before_the_delete = [hits for hits in wrong if hits]
            reading.result(30)
        assert gone == []
        assert wrong_before_the_delete == []
        assert len({numbers for numbers in seen if numbers}) > versions // 2


def test_no_good_token_is_refused_while_keys_are_rotated(tmp_path, own_key):
    environment = environment_of(tmp_path, own_key, **NO_LIMITS)
    with serving(tmp_path, environment) as server, logged_in(server.url) as client:
        ended = threading.Event()
        tokens = [client.headers["Authorization"]]
        refused: list[str] = []
        checked = [0, 0, 0]

        def log_in() -> None:
            with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as own:
                while not ended.is_set():
                    tokens.append("Bearer " + own.post("/auth/login", json=ALICE).json()["access_token"])

        def use(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as own:
                while not ended.is_set():
                    token = tokens[checked[number] % len(tokens)] if checked[number] % 2 else tokens[-1]
                    reply = own.get("/auth/me", headers={"Authorization": token})
                    if reply.status_code != 200:
                        refused.append(reply.text)
                    checked[number] += 1

        def kids() -> list[str]:
            return [key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]]

        first = kids()
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(log_in), *(pool.submit(use, number) for number in range(3))]
            for rotation in range(4):
                now = ["--now"] if rotation % 2 else []
                command = [sys.executable, "-m", "llamabda", "keys", "rotate", *now]
                done = subprocess.run(
                    command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                used = sum(checked)
                assert until(lambda used=used: sum(checked) > used + 30, 30)
            ended.set()
            for thread in running:
                thread.result(30)
        assert refused == []
        assert len({token.split(".")[0] for token in tokens}) == 3  # a key that only waits is replaced by the next one
        assert len(kids()) == 3
        assert first[0] in kids()[1:]

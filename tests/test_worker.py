"""Accepted means durable: the queue, the worker and what becomes of work that goes wrong. Real stores, no model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from llamabda.adapters.sqlite.queue import SqliteQueue
from llamabda.chunking import Chunking
from llamabda.errors import DependencyFailed, InvalidInput, ModelError
from llamabda.types import Deadline, GenerationKey, NewDocument
from llamabda.worker import BACKOFF, BATCH, MAX_ATTEMPTS, Worker
from tests.ask_fakes import by_words
from tests.crash_child import LengthEmbedder, open_ingest, with_embedder

SMALL = Chunking(200, 20)


def body(word: str, sentences: int = 20) -> str:
    return " ".join(f"This is {word}, sentence {n}." for n in range(sentences))


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ingest(tmp_path, clock):
    opened = open_ingest(tmp_path)
    return replace(opened, queue=SqliteQueue(opened.catalog._database, clock=clock))


class Broken(LengthEmbedder):
    """Fails as often as it is told to."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self.error = error

    def embed_documents(self, texts):
        if self.left:
            self.left -= 1
            raise self.error
        return super().embed_documents(texts)


def state(ingest, doc_id="doc"):
    return ingest.catalog.get("t", doc_id).state


def test_what_was_accepted_is_made_by_the_worker(ingest):
    ingest.accept("t", [NewDocument("a", body("a")), NewDocument("b", body("b"))], chunking=SMALL)
    assert [state(ingest, name) for name in "ab"] == ["queued", "queued"]
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    assert worker.once() == 2
    assert [state(ingest, name) for name in "ab"] == ["ready", "ready"]
    assert ingest.queue.counts() == {"waiting": 0, "taken": 0}
    assert worker.once() == 0


def test_what_a_request_has_no_time_for_goes_on_from_the_queue(ingest):
    documents = [NewDocument(f"{n}", body(f"v{n}")) for n in range(3)]
    trained = ingest.train("t", documents, chunking=SMALL, until=Deadline.after(0))
    assert [done.state for done in trained] == ["queued"] * 3
    assert Worker(lambda: ingest, lambda: ingest.queue).once() == 3
    assert {state(ingest, f"{n}") for n in range(3)} == {"ready"}


def test_what_a_request_finished_is_not_in_the_queue(ingest):
    ingest.train("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    assert ingest.queue.counts() == {"waiting": 0, "taken": 0}


def test_a_passing_failure_is_tried_again_later_and_told_meanwhile(ingest, clock):
    broken = Broken(2, DependencyFailed("the model is away", dependency="embedder"))
    ingest = with_embedder(ingest, lambda: broken)
    (first,) = ingest.train("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    assert (first.state, first.error) == ("queued", "the embedder is not available now")
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    worker.once()
    assert state(ingest) == "queued"
    assert worker.once() == 0
    clock.now += BACKOFF[0] + 1
    assert worker.once() == 1
    assert (state(ingest), ingest.catalog.get("t", "doc").error) == ("ready", None)


def test_an_index_that_is_away_for_longer_than_all_attempts_fails_nothing(ingest, clock, monkeypatch):
    index = type(ingest.space().index)
    away = DependencyFailed("the index cannot be reached", dependency="index")

    def gone(*_args: object, **_more: object) -> None:
        raise away

    documents = [NewDocument(f"{n}", body(f"v{n}")) for n in range(40)]
    ingest.accept("t", documents, chunking=SMALL)
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    with monkeypatch.context() as patch:
        for name in ("add", "chunks", "vectors", "search", "ping"):
            patch.setattr(index, name, gone)
        tried = worker.once()
        assert tried == BATCH
        for _ in range(30):
            clock.now += 1_000
            with pytest.raises(DependencyFailed, match="cannot be reached"):
                worker.once()  # nothing is taken, so no attempt is counted
        assert {state(ingest, f"{n}") for n in range(40)} == {"queued"}
    clock.now += 1_000
    while worker.once():
        clock.now += 1
    assert {state(ingest, f"{n}") for n in range(40)} == {"ready"}


def test_a_batch_that_meets_an_index_that_is_away_asks_it_once(ingest, monkeypatch):
    asked = []

    def gone(*_args: object, **_more: object) -> None:
        asked.append(1)
        raise DependencyFailed("the index did not answer within 10 s", dependency="index")

    monkeypatch.setattr(type(ingest.space().index), "chunks", gone)
    documents = [NewDocument(f"{n}", f"The tide number {n} is high.") for n in range(30)]
    trained = ingest.train("t", documents, chunking=SMALL)
    assert {(one.state, one.error) for one in trained} == {("queued", "the index is not available now")}
    assert len(asked) == 1


def test_a_lasting_failure_ends_after_a_bounded_number_of_attempts(ingest, clock):
    broken = Broken(100, DependencyFailed("the model is away", dependency="embedder"))
    ingest = with_embedder(ingest, lambda: broken)
    ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    for _ in range(20):
        worker.once()
        clock.now += 1_000
    found = ingest.catalog.get("t", "doc")
    assert (found.state, 100 - broken.left) == ("failed", MAX_ATTEMPTS)
    assert found.error == f"given up after {MAX_ATTEMPTS} attempts: the embedder is not available now"
    assert ingest.queue.counts() == {"waiting": 0, "taken": 0}


def test_what_can_never_go_well_fails_at_once_and_alone(ingest):
    broken = Broken(2, InvalidInput("no"))  # once for the batch, once for the culprit
    ingest = with_embedder(ingest, lambda: broken)
    trained = ingest.train("t", [NewDocument("a", "One."), NewDocument("b", "Two.")], chunking=SMALL)
    assert [done.state for done in trained] == ["failed", "ready"]
    assert ingest.queue.counts() == {"waiting": 0, "taken": 0}


def test_work_that_ends_its_process_every_time_is_given_up(ingest, clock):
    ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    for _ in range(MAX_ATTEMPTS):
        ingest.queue.take(limit=1, seconds=60)  # and nobody is heard of again
        clock.now += 61
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert state(ingest) == "failed"
    assert ingest.queue.counts() == {"waiting": 0, "taken": 0}


def test_a_defect_does_not_end_the_worker_and_the_work_is_tried_again(ingest, clock):
    broken = Broken(1, ZeroDivisionError())
    ingest = with_embedder(ingest, lambda: broken)
    ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    worker.once()
    clock.now += 61
    worker.once()
    assert state(ingest) == "ready"


def test_an_older_version_in_the_queue_never_replaces_a_newer_one(ingest):
    ingest.accept("t", [NewDocument("doc", body("old"))], chunking=SMALL)
    ingest.train("t", [NewDocument("doc", body("new"))], chunking=SMALL)
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert ingest.source(("t",), "doc", None)[0] == body("new")
    assert state(ingest) == "ready"


def test_deleting_what_is_queued_is_final(ingest):
    ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    ingest.delete("t", "doc")
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert ingest.catalog.get("t", "doc") is None
    assert not by_words(ingest.space().index, "sentence", limit=5)


def test_a_text_that_never_arrived_is_told(ingest):
    (key,) = ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    ingest.texts.delete([key])
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert "send the document again" in ingest.catalog.get("t", "doc").error


class Counting(LengthEmbedder):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts):
        self.texts += texts
        return super().embed_documents(texts)


def test_unchanged_content_is_skipped(ingest):
    counting = Counting()
    ingest = with_embedder(ingest, lambda: counting)
    document = NewDocument("doc", body("x"), {"year": 2026})
    (first,) = ingest.train("t", [document], chunking=SMALL)
    embedded = len(counting.texts)
    (again,) = ingest.train("t", [document], chunking=SMALL)
    assert (again.state, again.generation, again.chunks) == ("unchanged", first.generation, first.chunks)
    assert len(counting.texts) == embedded
    assert state(ingest) == "ready"
    assert ingest.source(("t",), "doc", None)[0] == document.text


@pytest.mark.parametrize(
    ("changes", "chunking"),
    [
        ({"metadata": {"year": 2027}}, SMALL),
        ({"text": body("y")}, SMALL),
        ({"source": "file:x.md"}, SMALL),
        ({}, Chunking(100, 20)),
    ],
)
def test_whatever_changes_is_made_anew(ingest, changes, chunking):
    document = NewDocument("doc", body("x"), {"year": 2026})
    ingest.train("t", [document], chunking=SMALL)
    (again,) = ingest.train("t", [replace(document, **changes)], chunking=chunking)
    assert (again.state, again.generation) == ("ready", 2)
    assert ingest.space().index.chunks(GenerationKey("t", "doc", 2), limit=1)[0].metadata == changes.get(
        "metadata", {"year": 2026}
    )


def test_unchanged_chunks_keep_their_vectors(ingest):
    counting = Counting()
    ingest = with_embedder(ingest, lambda: counting)
    parts = ["".join(f"{word} {n}. " for n in range(30)) for word in ("alpha", "beta", "gamma")]
    ingest.train("t", [NewDocument("doc", "\n\n".join(parts))], chunking=SMALL)
    before = ingest.space().index.vectors(GenerationKey("t", "doc", 1))
    counting.texts.clear()
    parts[2] = parts[2].replace("gamma", "delta")
    ingest.train("t", [NewDocument("doc", "\n\n".join(parts))], chunking=SMALL)
    assert counting.texts
    assert all("delta" in text for text in counting.texts)
    after = ingest.space().index.vectors(GenerationKey("t", "doc", 2))
    known = {chunk.text: vector for chunk, vector in zip(*before, strict=True)}
    kept = [np.array_equal(known[chunk.text], v) for chunk, v in zip(*after, strict=True) if chunk.text in known]
    assert kept
    assert all(kept)


def test_an_attempt_goes_on_where_the_one_before_it_stopped(ingest, monkeypatch):
    monkeypatch.setattr("llamabda.preparation.BATCH_CHUNKS", 4)
    text = "\n\n".join(body(f"p{n}", 8) for n in range(10))
    counting = Counting()
    ingest = with_embedder(ingest, lambda: counting)
    calls = iter([False] * 3 + [True] * 1000)

    class Soon:
        def passed(self):
            return next(calls)

    (late,) = ingest.train("t", [NewDocument("doc", text)], chunking=SMALL, until=Soon())
    assert late.state == "queued"
    first = len(counting.texts)
    assert first
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert state(ingest) == "ready"
    alone = Counting()
    with_embedder(ingest, lambda: alone).train("u", [NewDocument("doc", text)], chunking=SMALL)
    assert len(counting.texts) == len(alone.texts)


def test_a_process_that_is_killed_loses_nothing(tmp_path):
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from tests.crash_child import open_ingest\n"
            "from llamabda.chunking import Chunking\n"
            "from llamabda.types import NewDocument\n"
            "ingest = open_ingest(Path(sys.argv[1]))\n"
            "ingest.accept('t', [NewDocument(f'{n}', 'Some text.') for n in range(5)], chunking=Chunking())\n"
            "ingest.queue.take(limit=2, seconds=0.1)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n",
            str(tmp_path),
        ],
        env={**os.environ},
        capture_output=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    ingest = open_ingest(tmp_path)
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    done = 0
    while done < 5:
        done += worker.once()
    assert [state(ingest, f"{n}") for n in range(5)] == ["ready"] * 5


def test_one_that_breaks_the_worker_takes_nobody_with_it(ingest, clock):
    class Poisoned(LengthEmbedder):
        def embed_documents(self, texts):
            if any("poison" in text for text in texts):
                raise ZeroDivisionError
            return super().embed_documents(texts)

    ingest = with_embedder(ingest, Poisoned)
    documents = [NewDocument("a", "Fine."), NewDocument("b", "This is poison."), NewDocument("c", "Fine, too.")]
    ingest.accept("t", documents, chunking=SMALL)
    worker = Worker(lambda: ingest, lambda: ingest.queue)
    for _ in range(4 * MAX_ATTEMPTS):
        worker.once()
        clock.now += 61
    assert [state(ingest, name) for name in "abc"] == ["ready", "failed", "ready"]


def test_without_an_embedder_the_work_waits_and_is_not_counted_against(ingest, clock):
    ingest.accept("t", [NewDocument("doc", body("x"))], chunking=SMALL)

    def missing():
        raise ModelError("it cannot be had")

    for _ in range(2 * MAX_ATTEMPTS):
        with pytest.raises(ModelError):
            Worker(lambda: with_embedder(ingest, missing), lambda: ingest.queue).once()
        clock.now += 1_000
    assert state(ingest) == "queued"
    Worker(lambda: ingest, lambda: ingest.queue).once()
    assert state(ingest) == "ready"


def test_two_who_do_the_same_work_leave_one_whole_version(ingest, clock):
    """A laptop that sleeps in the middle of a request: its work is taken by another, and then it wakes up."""

    class Overtaken(LengthEmbedder):
        once = True

        def embed_documents(self, texts):
            if Overtaken.once:
                Overtaken.once = False
                clock.now += 3_600
                Worker(lambda: ingest, lambda: ingest.queue).once()
                assert state(ingest) == "ready"
            return super().embed_documents(texts)

    (done,) = with_embedder(ingest, Overtaken).train("t", [NewDocument("doc", body("x"))], chunking=SMALL)
    assert (done.state, done.generation) == ("ready", 1)
    future = datetime.now(UTC) + timedelta(days=1)
    assert ingest.catalog.garbage(before=future, abandoned_before=future) == []
    assert ingest.source(["t"], "doc", None)[0] == body("x")

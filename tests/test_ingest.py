"""Documents go in whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from llamabda.chunking import Chunking
from llamabda.errors import DependencyFailed, Gone, InvalidInput, NotFound
from llamabda.filters import Scope
from llamabda.types import Deadline, GenerationKey, NewDocument
from tests.ask_fakes import by_words
from tests.crash_child import LengthEmbedder, open_ingest, with_embedder

CHILD = Path(__file__).with_name("crash_child.py")
SMALL = Chunking(200, 20)


def body(word: str, sentences: int = 12) -> str:
    return "\n\n".join(f"Sentence {n} of the {word} version says that {word} is right, ção." for n in range(sentences))


@pytest.fixture
def ingest(tmp_path):
    return open_ingest(tmp_path)


def readable(ingest) -> str | None:
    """The version that a reader sees, after checking that it is whole."""
    live = ingest.catalog.live([("t", "doc")]).get(("t", "doc"))
    if live is None:
        return None
    key = GenerationKey("t", "doc", live)
    text = ingest.texts.get(key)
    document = ingest.catalog.get("t", "doc")
    chunks = ingest.space().index.chunks(key, limit=1000)
    assert document.sha256 == sha256(text.encode()).hexdigest()
    assert document.bytes == len(text.encode())
    assert len(chunks) == document.chunks
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in chunks)
    found = by_words(ingest.space().index, "version", limit=1000)
    mine = [match.chunk for match in found if match.chunk.generation == live]
    assert sorted(mine, key=lambda chunk: chunk.ordinal) == list(chunks)
    return text


def test_train_makes_whole_documents(ingest):
    results = ingest.train("t", [NewDocument("doc", body("old"), {"a": 1})], chunking=SMALL)
    assert [(r.id, r.state, r.generation, r.error) for r in results] == [("doc", "ready", 1, None)]
    assert results[0].chunks > 3
    assert readable(ingest) == body("old")


def test_a_kill_at_any_statement_leaves_the_old_or_the_new_version(tmp_path):
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text(body("old"), "utf-8")
    new.write_text(body("new"), "utf-8")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(CHILD.parent.parent)}

    def run(home: Path, text: Path, step: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CHILD), str(home), str(text), str(step)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    trial = tmp_path / "trial"
    assert run(trial, old, -1).returncode == 0
    steps = int(run(trial, new, -1).stdout)
    seen = []
    for step in range(steps):
        home = tmp_path / f"home{step}"
        assert run(home, old, -1).returncode == 0
        assert run(home, new, step).returncode == -signal.SIGKILL
        ingest = open_ingest(home)
        seen.append(readable(ingest))
        assert seen[-1] in (body("old"), body("new"))
        ingest.train("t", [NewDocument("doc", body("third"))], chunking=SMALL)
        assert readable(ingest) == body("third")
    assert seen == sorted(seen, key=lambda text: text == body("new"))  # old up to one step, new from there on
    assert {body("old"), body("new")} == set(seen)


def test_later_chunks_are_found_by_what_the_document_says_first(ingest):
    text = "Bicycle insurance.\n\n" + body("old")
    ingest.train("t", [NewDocument("doc", text)], chunking=SMALL)
    found = by_words(ingest.space().index, "insurance", limit=100)
    assert len(found) == ingest.catalog.get("t", "doc").chunks > 3
    assert sum("insurance" in match.chunk.text for match in found) == 1


def test_a_later_chunk_s_vector_lies_between_its_own_and_the_one_under_the_opening(ingest):
    text = "Bicycle insurance.\n\n" + body("old")
    ingest.train("t", [NewDocument("doc", text)], chunking=SMALL)
    embedder = LengthEmbedder()
    first, second = ingest.space().index.chunks(GenerationKey("t", "doc", 1), limit=2)
    middle = embedder.embed_query(second.text) + embedder.embed_query(f"Bicycle insurance.\n{second.text}")
    (found,) = ingest.space().index.search("", embedder.embed_query(""), tenants=("t",), scopes=[Scope(100)])
    scores = {match.chunk.ordinal: match.score for match in found.nearest}
    assert scores[0] == pytest.approx(embedder.embed_query(first.text)[0], abs=1e-6)
    assert scores[1] == pytest.approx(middle[0] / np.linalg.norm(middle), abs=1e-6)


def test_one_failing_document_leaves_the_others(ingest):
    class Picky(LengthEmbedder):
        def embed_documents(self, texts):
            if any("poison" in text for text in texts):
                raise DependencyFailed("the model choked", dependency="embedder")
            return super().embed_documents(texts)

    picky = with_embedder(ingest, Picky)
    told = []
    documents = [NewDocument("a", "fine"), NewDocument("b", "poison"), NewDocument("c", "fine too")]
    results = picky.train("t", documents, chunking=SMALL, progress=told.append)
    assert [(r.id, r.state) for r in results] == [("a", "ready"), ("b", "queued"), ("c", "ready")]
    assert results[1].error == "the embedder is not available now"
    assert told == results
    assert picky.catalog.get("t", "b").error == results[1].error


def test_a_failed_re_training_keeps_the_old_version_answering(ingest):
    ingest.train("t", [NewDocument("doc", body("old"))], chunking=SMALL)

    class Broken(LengthEmbedder):
        def embed_documents(self, texts):
            raise DependencyFailed("no model", dependency="embedder")

    (result,) = with_embedder(ingest, Broken).train("t", [NewDocument("doc", body("new"))], chunking=SMALL)
    assert (result.state, result.generation, result.error) == ("queued", 1, "the embedder is not available now")
    assert readable(ingest) == body("old")


@pytest.mark.parametrize("text", ["", "  \n\t", "\u00a0\u2003"])
def test_a_document_without_text_is_refused_before_anything_is_written(ingest, text):
    with pytest.raises(InvalidInput, match="no text"):
        ingest.train("t", [NewDocument("good", "text"), NewDocument("bad", text)], chunking=SMALL)
    assert ingest.catalog.list("t").documents == ()


def test_lone_surrogates_and_repeated_ids_are_refused(ingest):
    with pytest.raises(InvalidInput, match="surrogate at position 2"):
        ingest.train("t", [NewDocument("bad", "ab\ud800")], chunking=SMALL)
    with pytest.raises(InvalidInput, match="twice"):
        ingest.train("t", [NewDocument("x", "one"), NewDocument("x", "two")], chunking=SMALL)
    assert ingest.catalog.list("t").documents == ()


def test_a_source_is_the_exact_text_of_the_generation(ingest):
    ingest.train("t", [NewDocument("doc", "first\r\ntext")], chunking=SMALL)
    assert ingest.source(("t", "shared"), "doc", None) == ("first\r\ntext", GenerationKey("t", "doc", 1))
    ingest.train("t", [NewDocument("doc", "second text")], chunking=SMALL)
    with pytest.raises(Gone, match="replaced by 2"):
        ingest.source(("t",), "doc", 1)
    with pytest.raises(NotFound):
        ingest.source(("t",), "doc", 3)
    assert ingest.source(("t",), "doc", 2)[0] == "second text"


def test_own_documents_come_before_shared_ones_and_foreign_ones_look_missing(ingest):
    ingest.train("shared", [NewDocument("doc", "shared text")], chunking=SMALL)
    ingest.train("other", [NewDocument("secret", "foreign text")], chunking=SMALL)
    assert ingest.document(("t", "shared"), "doc").tenant == "shared"
    ingest.train("t", [NewDocument("doc", "own text")], chunking=SMALL)
    assert ingest.source(("t", "shared"), "doc", None)[0] == "own text"
    messages = []
    for doc_id in ("secret", "nothing"):
        with pytest.raises(NotFound) as caught:
            ingest.document(("t", "shared"), doc_id)
        messages.append(caught.value.message.replace(doc_id, "ID"))
    assert messages[0] == messages[1]


def test_chunks_come_in_pages_and_a_swap_between_two_pages_is_told(ingest):
    ingest.train("t", [NewDocument("doc", body("old"))], chunking=SMALL)
    first, cursor = ingest.chunks(("t",), "doc", limit=2)
    rest, end = ingest.chunks(("t",), "doc", limit=1000, cursor=cursor)
    assert end is None
    assert [chunk.ordinal for chunk in first + rest] == list(range(len(first + rest)))
    ingest.train("t", [NewDocument("doc", body("new"))], chunking=SMALL)
    with pytest.raises(Gone):
        ingest.chunks(("t",), "doc", limit=2, cursor=cursor)
    with pytest.raises(InvalidInput):
        ingest.chunks(("t",), "doc", limit=2, cursor="1.x")


def test_sweeping_removes_old_generations_only_after_the_grace_period(ingest):
    for word in ("old", "new"):
        ingest.train("t", [NewDocument("doc", body(word))], chunking=SMALL)
    old = GenerationKey("t", "doc", 1)
    assert ingest.sweep() == 0
    assert ingest.texts.get(old) == body("old")
    with ingest.catalog._database.write() as db:  # two minutes pass
        past = (datetime.now(UTC) - timedelta(minutes=2)).timestamp()
        db.execute("UPDATE generations SET dead_since = ? WHERE dead_since IS NOT NULL", (past,))
    assert ingest.sweep() == 1
    assert ingest.texts.get(old) is None
    assert list(ingest.space().index.chunks(old, limit=5)) == []
    assert readable(ingest) == body("new")


def test_a_reader_sees_one_whole_version_at_every_instant(ingest):
    words = [f"v{n}" for n in range(12)]
    ingest.train("t", [NewDocument("doc", body(words[0]))], chunking=SMALL)
    done, looked = threading.Event(), threading.Event()
    seen: list[str] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                text, key = ingest.source(("t",), "doc", None)
                (word,) = {w for w in words if body(w) == text}
                found = by_words(ingest.space().index, "version", limit=1000)
                mine = [m.chunk for m in found if m.chunk.generation == key.generation]
                assert mine
                assert all(word in chunk.text for chunk in mine)
                seen.append(word)
                looked.set()
        except BaseException as exc:  # noqa: BLE001  (handed to the main thread)
            errors.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    for word in words[1:]:
        looked.clear()
        assert looked.wait(30)  # else a reader that gets no processor sleeps through the changes
        ingest.train("t", [NewDocument("doc", body(word))], chunking=SMALL)
    done.set()
    reader.join()
    assert errors == []
    assert seen == sorted(seen, key=words.index)
    assert len(set(seen)) > 2


def test_deleting_is_final_at_once_and_a_missing_document_cannot_be_deleted(ingest):
    ingest.train("t", [NewDocument("doc", "text")], chunking=SMALL)
    ingest.delete("t", "doc")
    for call in (
        lambda: ingest.document(("t",), "doc"),
        lambda: ingest.source(("t",), "doc", None),
        lambda: ingest.chunks(("t",), "doc", limit=1),
        lambda: ingest.delete("t", "doc"),
    ):
        with pytest.raises(NotFound):
            call()


class Calls:
    """Another's methods; keeps which were called. `fails`: the documents at which `begin` does."""

    def __init__(self, other, log: list, fails: tuple[str, ...] = ()) -> None:
        self._other, self._log, self._fails = other, log, fails

    def __getattr__(self, name: str):
        found = getattr(self._other, name)

        def call(*args, **more):
            if name == "begin" and args[1] in self._fails:
                raise DependencyFailed("the catalog is throttled", dependency="catalog")
            returned = found(*args, **more)
            self._log.append((name, returned if name == "begin" else args[0]))
            return returned

        return call


def test_documents_that_are_stored_at_once_are_queued_before_their_texts_are_there(ingest):
    log: list = []
    stores = {name: Calls(getattr(ingest, name), log) for name in ("catalog", "texts", "queue")}
    documents = [NewDocument(f"d{n}", f"Text {n}.") for n in range(25)]
    keys = replace(ingest, at_once=10, **stores).accept("t", documents, chunking=SMALL)
    assert [key.doc_id for key in keys] == [document.id for document in documents]
    assert [ingest.texts.get(key) for key in keys] == [document.text for document in documents]
    for first in (0, 10, 20):
        part = keys[first : first + 10]
        at = log.index(("put", part))
        before, after = log[:at], log[at + 1 :]
        assert sum(name == "begin" for name, _ in before) >= first + len(part)
        assert all(("put", key) in after and ("put", key) not in before for key in part)
    assert log[-1] == ("put", keys)


def test_where_some_cannot_be_stored_those_that_were_begun_are_queued(ingest):
    log: list = []
    failing = replace(
        ingest, at_once=10, catalog=Calls(ingest.catalog, log, fails=("d3",)), queue=Calls(ingest.queue, log)
    )
    documents = [NewDocument(f"d{n}", f"Text {n}.") for n in range(7)]
    with pytest.raises(DependencyFailed, match="throttled"):
        failing.accept("t", documents, chunking=SMALL)
    (queued,) = [what for name, what in log if name == "put"]
    assert [key.doc_id for key in queued] == ["d0", "d1", "d2", "d4", "d5", "d6"]


@pytest.mark.parametrize(("seconds", "whole"), [(0.3, False), (60.0, None)])
def test_a_sweep_that_runs_out_of_time_is_no_failure_and_another_one_is(ingest, seconds, whole):
    """Whatever is asked at the deadline fails, as clients that keep to it do."""
    until = Deadline.after(seconds)

    class Slow(Calls):
        def __getattr__(self, name: str):
            if name == "garbage" and whole is not None:
                threading.Event().wait(until.remaining())
            raise DependencyFailed("there was no time left", dependency="catalog")

    failing = replace(ingest, catalog=Slow(ingest.catalog, []))
    if whole is None:
        with pytest.raises(DependencyFailed):
            failing.tidy(until)
    else:
        assert failing.tidy(until).whole is whole

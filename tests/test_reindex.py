"""Documents get vectors of another model while they are read, trained and deleted."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import numpy as np
import pytest

from llamabda import ingest as ingest_module
from llamabda.chunking import Chunking
from llamabda.errors import DependencyFailed
from llamabda.reindex import Reindex
from llamabda.search import Search
from llamabda.space import Space
from llamabda.types import Deadline, EmbeddingModel, GenerationKey, NewDocument
from tests.crash_child import LengthEmbedder, open_ingest

SMALL = Chunking(200, 20)


class TurnedEmbedder(LengthEmbedder):
    """Another model of the same length of vectors: what the one says is nonsense to the other."""

    fingerprint = "turned"

    def embed_query(self, text):
        return np.ascontiguousarray(super().embed_query(text)[::-1])


def body(word: str, sentences: int = 12) -> str:
    return "\n\n".join(f"Sentence {n} of the {word} version says that {word} is right, ção." for n in range(sentences))


@pytest.fixture
def ingest(tmp_path):
    return open_ingest(tmp_path)


def turned(ingest, embedder=None) -> Space:
    made = embedder or TurnedEmbedder()
    return Space(EmbeddingModel("turned", "test"), made, ingest.indexes.open(made.fingerprint, made.dim))


def reindex(ingest) -> Reindex:
    return Reindex(ingest.catalog, ingest.texts, ingest.embeddings)


def train(ingest, *names: str) -> None:
    results = ingest.train("t", [NewDocument(name, body(name), {"name": name}) for name in names], chunking=SMALL)
    assert {result.state for result in results} == {"ready"}


def test_every_document_gets_the_vectors_that_training_would_have_given_it(ingest, tmp_path):
    train(ingest, "a", "b", "c")
    ingest.train("t", [NewDocument("d", body("d"), source="notes.md")], chunking=Chunking(500, 50))
    seen = []
    done = reindex(ingest)(turned(ingest), progress=seen.append)
    assert (done.documents, done.failed, done.adopted) == (4, (), True)
    assert seen[-1].left == 0
    assert seen[-1].chunks == done.chunks
    fresh = open_ingest(tmp_path / "fresh")
    fresh = replace(fresh, space=lambda: turned(fresh))
    fresh.embeddings.adopt(turned(fresh).embedding)
    train(fresh, "a", "b", "c")
    fresh.train("t", [NewDocument("d", body("d"), source="notes.md")], chunking=Chunking(500, 50))
    for name in "abcd":
        key = GenerationKey("t", name, 1)
        chunks, vectors = turned(ingest).index.vectors(key)
        expected, right = turned(fresh).index.vectors(key)
        assert list(chunks) == list(expected)
        assert [chunk.metadata for chunk in chunks] == [chunk.metadata for chunk in expected]
        np.testing.assert_allclose(vectors, right, atol=1e-6)
        found = turned(ingest).index.search_text(name, tenants=("t",), limit=3).matches
        assert [match.score for match in found] == pytest.approx(
            [match.score for match in turned(fresh).index.search_text(name, tenants=("t",), limit=3).matches]
        )


def test_what_was_made_is_not_made_again_after_a_stop(ingest):
    train(ingest, *(f"doc-{n:02}" for n in range(20)))

    class Stopping(TurnedEmbedder):
        texts: ClassVar[list[str]] = []
        left = 60

        def embed_documents(self, texts):
            if len(Stopping.texts) > Stopping.left:
                raise KeyboardInterrupt
            Stopping.texts += texts
            return super().embed_documents(texts)

    with pytest.raises(KeyboardInterrupt):
        reindex(ingest)(turned(ingest, Stopping()))
    assert ingest.embeddings.live().fingerprint == "length"
    Stopping.left = 10**6
    assert reindex(ingest)(turned(ingest, Stopping())).adopted
    assert len(Stopping.texts) == len(set(Stopping.texts))


def test_nothing_to_do_is_done_at_once(ingest):
    train(ingest, "a")
    done = reindex(ingest)(ingest.space())
    assert (done.documents, done.chunks, done.adopted) == (0, 0, True)


def test_a_document_that_cannot_be_made_holds_back_the_change_and_not_the_others(ingest):
    class Picky(TurnedEmbedder):
        def embed_documents(self, texts):
            if any(" bad " in text for text in texts):
                raise DependencyFailed("it does not like this", dependency="embedder")
            return super().embed_documents(texts)

    train(ingest, "a", "bad", "c", "lost")
    ingest.texts.delete([GenerationKey("t", "lost", 1)])
    done = reindex(ingest)(turned(ingest, Picky()))
    assert not done.adopted
    assert sorted((key.doc_id, why) for key, why in done.failed) == [
        ("bad", "the embedder is not available now"),
        ("lost", "its text is missing: train it again, or delete it"),
    ]
    assert done.documents == 2
    assert ingest.embeddings.live().fingerprint == "length"
    ingest.delete("t", "lost")
    assert reindex(ingest)(turned(ingest)).adopted


def test_documents_that_change_meanwhile_are_neither_lost_nor_old(ingest):
    """While the first ones are made, others are trained, replaced and deleted, by the model that answers until then."""
    names = [f"doc-{n:02}" for n in range(12)]
    train(ingest, *names)
    left = ["replaced", "deleted", "added"]

    class Meanwhile(TurnedEmbedder):
        def embed_documents(self, texts):
            while left:
                what = left.pop()
                if what == "replaced":
                    ingest.train("t", [NewDocument("doc-00", body("replaced"))], chunking=SMALL)
                elif what == "deleted":
                    ingest.delete("t", "doc-01")
                else:
                    ingest.train("t", [NewDocument("zzz", body("added"))], chunking=SMALL)
            return super().embed_documents(texts)

    space = turned(ingest, Meanwhile())
    assert reindex(ingest)(space).adopted
    live = ingest.catalog.live([("t", name) for name in [*names, "zzz"]])
    assert live == {("t", name): 2 if name == "doc-00" else 1 for name in [*names, "zzz"] if name != "doc-01"}
    for (tenant, name), generation in live.items():
        key = GenerationKey(tenant, name, generation)
        assert len(space.index.chunks(key, limit=1000)) == ingest.catalog.get(tenant, name).chunks
    assert list(space.index.chunks(GenerationKey("t", "doc-01", 1), limit=9)) == []


def test_no_query_fails_or_misses_a_document(ingest):
    """Readers at 100 Hz, through the change and after it; each document is asked for by its own word and its sense."""
    names = [f"doc{n:02}" for n in range(30)]
    train(ingest, *names)
    old, new = ingest.space(), turned(ingest)

    def current() -> Space:
        return new if ingest.embeddings.live().fingerprint == "turned" else old

    search = Search(space=current, catalog=ingest.catalog)
    stop, looks, wrong = threading.Event(), [], []

    def read() -> None:
        turn = 0
        while not stop.is_set():
            name = names[turn % len(names)]
            turn += 1
            found = search(f"{name} version", tenants=["t"], top_k=3, deadline=Deadline.after(30)).hits
            looks.append(current().fingerprint)
            if name not in {hit.chunk.doc_id for hit in found}:
                wrong.append((name, [hit.chunk.id for hit in found]))
            time.sleep(0.01)  # the pace of the reader

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert reindex(ingest)(new).adopted
        while looks.count("turned") < 60 and not wrong:
            time.sleep(0.01)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert "length" in looks


def test_the_old_vectors_are_dropped_ten_minutes_after_the_change(ingest, tmp_path, monkeypatch):
    train(ingest, "a")
    space = turned(ingest)
    assert reindex(ingest)(space).adopted
    ingest = replace(ingest, space=lambda: space)
    now = datetime.now(UTC)

    def at(minutes: int) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return now + timedelta(minutes=minutes)

        monkeypatch.setattr(ingest_module, "datetime", Clock)
        ingest.sweep()

    at(9)
    assert (tmp_path / "index" / "length").is_dir()
    at(11)
    assert not (tmp_path / "index" / "length").exists()
    assert (tmp_path / "index" / "turned").is_dir()
    assert len(space.index.chunks(GenerationKey("t", "a", 1), limit=99)) == ingest.catalog.get("t", "a").chunks


def test_garbage_is_swept_from_every_index(ingest, monkeypatch):
    train(ingest, "a")
    space = turned(ingest)
    assert reindex(ingest)(space).adopted
    ingest.delete("t", "a")
    monkeypatch.setattr(ingest_module, "GRACE", timedelta(seconds=-1))
    assert ingest.sweep() == 1
    for index in (space.index, ingest.space().index):
        assert list(index.chunks(GenerationKey("t", "a", 1), limit=9)) == []


def test_what_the_former_model_was_still_making_is_made_again_by_the_new_one(ingest):
    train(ingest, "a")
    space = turned(ingest)

    class Slow(LengthEmbedder):
        def embed_documents(self, texts):
            assert reindex(ingest)(space).adopted  # while this document is under way
            return super().embed_documents(texts)

    slow = replace(ingest.space(), embedder=Slow())
    (late,) = replace(ingest, space=lambda: slow).train("t", [NewDocument("b", body("b"))], chunking=SMALL)
    assert late.state == "queued"
    follower = replace(ingest, space=lambda: space)
    (outcome,) = follower.work([GenerationKey("t", "b", 1)])
    assert outcome.trained.state == "ready"
    assert len(space.index.chunks(GenerationKey("t", "b", 1), limit=99)) == outcome.trained.chunks


def test_unchanged_documents_are_still_unchanged_after_the_change(ingest):
    train(ingest, "a")
    space = turned(ingest)
    assert reindex(ingest)(space).adopted
    after = replace(ingest, space=lambda: space)
    (again,) = after.train("t", [NewDocument("a", body("a"), {"name": "a"})], chunking=SMALL)
    assert again.state == "unchanged"

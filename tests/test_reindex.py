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
from llamabda.adapters.sqlite.indexes import SqliteIndexes
from llamabda.chunking import Chunking
from llamabda.errors import DependencyFailed, LlamabdaError
from llamabda.reindex import Reindex, Reindexed
from llamabda.search import Search
from llamabda.space import Space
from llamabda.spaces import Spaces
from llamabda.types import Deadline, Embedding, EmbeddingModel, GenerationKey, NewDocument
from tests.ask_fakes import by_words
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


TURNED = EmbeddingModel("turned", "test")


def reindexed(ingest, embedder=None, **more) -> Reindexed:
    reindex = Reindex(ingest.catalog, ingest.texts, ingest.indexes, ingest.embeddings)
    return reindex(embedder or TurnedEmbedder(), TURNED, **more)


def turned(ingest) -> Space:
    """The space that readers have changed over to."""
    live = ingest.embeddings.live()
    assert live.embedding.model == TURNED
    return Space(live.name, TurnedEmbedder(), ingest.indexes.open(live.name, TurnedEmbedder.dim))


def following(ingest):
    """The same house after the change."""
    space = turned(ingest)
    return replace(ingest, space=lambda: space, writable=lambda: space)


def train(ingest, *names: str) -> None:
    results = ingest.train("t", [NewDocument(name, body(name), {"name": name}) for name in names], chunking=SMALL)
    assert {result.state for result in results} == {"ready"}


def test_every_document_gets_the_vectors_that_training_would_have_given_it(ingest, tmp_path):
    train(ingest, "a", "b", "c")
    ingest.train("t", [NewDocument("d", body("d"), source="notes.md")], chunking=Chunking(500, 50))
    seen = []
    done = reindexed(ingest, progress=seen.append)
    assert (done.documents, done.failed, done.adopted) == (4, (), True)
    assert seen[-1].left == 0
    assert seen[-1].chunks == done.chunks
    fresh = open_ingest(tmp_path / "fresh")
    fresh.embeddings.settle(Embedding("turned", TURNED))
    fresh = following(fresh)
    train(fresh, "a", "b", "c")
    fresh.train("t", [NewDocument("d", body("d"), source="notes.md")], chunking=Chunking(500, 50))
    for name in "abcd":
        key = GenerationKey("t", name, 1)
        chunks, vectors = turned(ingest).index.vectors(key)
        expected, right = turned(fresh).index.vectors(key)
        assert list(chunks) == list(expected)
        assert [chunk.metadata for chunk in chunks] == [chunk.metadata for chunk in expected]
        np.testing.assert_allclose(vectors, right, atol=1e-6)
        found = by_words(turned(ingest).index, name, limit=3)
        assert [match.score for match in found] == pytest.approx(
            [match.score for match in by_words(turned(fresh).index, name, limit=3)]
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
        reindexed(ingest, Stopping())
    assert ingest.embeddings.live().embedding.fingerprint == "length"
    Stopping.left = 10**6
    assert reindexed(ingest, Stopping()).adopted
    assert len(Stopping.texts) == len(set(Stopping.texts))


def test_nothing_to_do_is_done_at_once(ingest):
    train(ingest, "a")
    assert reindexed(ingest).adopted
    done = reindexed(ingest)
    assert (done.documents, done.chunks, done.adopted) == (0, 0, True)


def test_a_document_that_cannot_be_made_holds_back_the_change_and_not_the_others(ingest):
    class Picky(TurnedEmbedder):
        def embed_documents(self, texts):
            if any(" bad " in text for text in texts):
                raise DependencyFailed("it does not like this", dependency="embedder")
            return super().embed_documents(texts)

    train(ingest, "a", "bad", "c", "lost")
    ingest.texts.delete([GenerationKey("t", "lost", 1)])
    done = reindexed(ingest, Picky())
    assert not done.adopted
    assert sorted((key.doc_id, why) for key, why in done.failed) == [
        ("bad", "the embedder is not available now"),
        ("lost", "its text is missing: train it again, or delete it"),
    ]
    assert done.documents == 2
    assert ingest.embeddings.live().embedding.fingerprint == "length"
    (again,) = ingest.train("t", [NewDocument("lost", body("lost"), {"name": "lost"})], chunking=SMALL)
    assert (again.state, again.generation) == ("ready", 2)
    assert reindexed(ingest).adopted


def test_a_document_that_failed_and_was_deleted_meanwhile_holds_back_nothing(ingest):
    class Deleting(TurnedEmbedder):
        def embed_documents(self, texts):
            if any(" bad " in text for text in texts):
                if ingest.catalog.get("t", "bad") is not None:
                    ingest.delete("t", "bad")
                raise DependencyFailed("it does not like this", dependency="embedder")
            return super().embed_documents(texts)

    train(ingest, "a", "bad")
    assert reindexed(ingest, Deleting()).adopted


def test_a_model_that_fails_at_everything_is_not_asked_for_ever(ingest):
    class Broken(TurnedEmbedder):
        asked = 0

        def embed_documents(self, texts):
            Broken.asked += 1
            raise DependencyFailed("out of order", dependency="embedder")

    train(ingest, *(f"doc-{n:03}" for n in range(120)))
    done = reindexed(ingest, Broken())
    assert not done.adopted
    assert len(done.failed) < 120
    assert Broken.asked < 120


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

    assert reindexed(ingest, Meanwhile()).adopted
    live = ingest.catalog.live([("t", name) for name in [*names, "zzz"]])
    assert live == {("t", name): 2 if name == "doc-00" else 1 for name in [*names, "zzz"] if name != "doc-01"}
    index = turned(ingest).index
    for (tenant, name), generation in live.items():
        key = GenerationKey(tenant, name, generation)
        assert len(index.chunks(key, limit=1000)) == ingest.catalog.get(tenant, name).chunks
    for gone in (GenerationKey("t", "doc-01", 1), GenerationKey("t", "doc-00", 1)):
        assert list(index.chunks(gone, limit=9)) == []


def test_what_is_deleted_and_swept_while_it_is_made_leaves_nothing_even_when_the_model_then_fails(ingest, monkeypatch):
    monkeypatch.setattr(ingest_module, "GRACE", timedelta(seconds=-1))
    monkeypatch.setattr("llamabda.preparation.BATCH_CHUNKS", 4)
    train(ingest, "a")
    ingest.train("t", [NewDocument("doc", body("doc", 40))], chunking=SMALL)
    calls = []

    class Failing(TurnedEmbedder):
        def embed_documents(self, texts):
            calls.append(texts)
            if len(calls) == 3:
                ingest.delete("t", "doc")
                assert ingest.sweep() >= 1
            if len(calls) == 5:
                raise DependencyFailed("out of order", dependency="embedder")
            return super().embed_documents(texts)

    reindexed(ingest, Failing())
    assert len(calls) >= 5
    build = next(name for name in ingest.indexes.names() if name.startswith("turned"))
    index = ingest.indexes.open(build, TurnedEmbedder.dim)
    assert list(index.chunks(GenerationKey("t", "doc", 1), limit=99)) == []


def test_no_query_fails_or_misses_a_document(ingest):
    """Readers at 100 Hz, through the change and after it; each document is asked for by its own word and its sense."""
    names = [f"doc{n:02}" for n in range(30)]
    train(ingest, *names)
    spaces = Spaces(
        ingest.embeddings,
        ingest.indexes,
        lambda model: TurnedEmbedder() if model == TURNED else LengthEmbedder(),
        EmbeddingModel("length", "test"),
    )
    spaces.load()
    search = Search(space=spaces.current, catalog=ingest.catalog)
    stop, looks, wrong = threading.Event(), [], []

    def read() -> None:
        turn = 0
        try:
            while not stop.is_set():
                name = names[turn % len(names)]
                turn += 1
                found = search(f"{name} version", tenants=["t"], top_k=3, deadline=Deadline.after(30))
                looks.append(found.embedder.fingerprint)
                if name not in {hit.chunk.doc_id for hit in found.hits}:
                    wrong.append((name, [hit.chunk.id for hit in found.hits]))
                time.sleep(0.01)  # the pace of the reader
        except LlamabdaError as exc:
            wrong.append(exc)  # a query that failed, and not a test that waits for ever

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert reindexed(ingest).adopted
        while looks.count("turned") < 60 and not wrong:
            time.sleep(0.01)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert "length" in looks


def after_minutes(monkeypatch, minutes: float) -> None:
    now = datetime.now(UTC) + timedelta(minutes=minutes)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return now

    monkeypatch.setattr(ingest_module, "datetime", Clock)


def test_the_old_vectors_are_dropped_ten_minutes_after_the_change(ingest, tmp_path, monkeypatch):
    train(ingest, "a")
    old = ingest.embeddings.live().name
    assert reindexed(ingest).adopted
    after = following(ingest)
    after_minutes(monkeypatch, 9)
    after.discard()
    assert (tmp_path / "index" / old).is_dir()
    after_minutes(monkeypatch, 11)
    after.discard()
    assert not (tmp_path / "index" / old).exists()
    assert ingest.embeddings.names() == {ingest.embeddings.live().name}
    found = turned(ingest).index.chunks(GenerationKey("t", "a", 1), limit=99)
    assert len(found) == ingest.catalog.get("t", "a").chunks


def test_going_there_and_back_and_dropping_in_between_loses_nothing(ingest, tmp_path, monkeypatch):
    """Another process holds the first index open all the time: what it opens later must not be that one."""
    train(ingest, "a")
    first = ingest.space()
    assert reindexed(ingest).adopted
    after = following(ingest)
    train(after, "b")
    after_minutes(monkeypatch, 11)
    replace(after, indexes=SqliteIndexes(tmp_path / "index")).discard()
    monkeypatch.undo()
    back = Reindex(ingest.catalog, ingest.texts, ingest.indexes, ingest.embeddings)(
        LengthEmbedder(), EmbeddingModel("length", "test")
    )
    assert (back.documents, back.adopted) == (2, True)
    live = ingest.embeddings.live().name
    assert live != first.build
    index = ingest.indexes.open(live, 2)
    for name in "ab":
        assert len(index.chunks(GenerationKey("t", name, 1), limit=99)) == ingest.catalog.get("t", name).chunks


def test_an_abandoned_reindexing_goes_after_a_day(ingest, tmp_path, monkeypatch):
    train(ingest, "a", "bad")

    class Picky(TurnedEmbedder):
        def embed_documents(self, texts):
            if any(" bad " in text for text in texts):
                raise DependencyFailed("it does not like this", dependency="embedder")
            return super().embed_documents(texts)

    build = reindexed(ingest, Picky()).build
    after_minutes(monkeypatch, 60)
    ingest.discard()
    assert (tmp_path / "index" / build).is_dir()
    after_minutes(monkeypatch, 60 * 25)
    ingest.discard()
    assert not (tmp_path / "index" / build).exists()


def test_a_folder_that_is_no_index_stops_nothing(ingest, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ingest_module, "GRACE", timedelta(seconds=-1))
    train(ingest, "a")
    (tmp_path / "index" / "strange").mkdir()
    (tmp_path / "index" / "strange" / "index.db").touch()
    ingest.delete("t", "a")
    assert ingest.sweep() == 1
    assert "strange" in caplog.text
    ingest.discard()
    assert not (tmp_path / "index" / "strange").exists()


def test_garbage_is_swept_from_every_index(ingest, monkeypatch):
    train(ingest, "a")
    assert reindexed(ingest).adopted
    ingest.delete("t", "a")
    monkeypatch.setattr(ingest_module, "GRACE", timedelta(seconds=-1))
    assert ingest.sweep() == 1
    for index in (turned(ingest).index, ingest.space().index):
        assert list(index.chunks(GenerationKey("t", "a", 1), limit=9)) == []


def test_what_the_former_model_was_still_making_is_made_again_by_the_new_one(ingest):
    train(ingest, "a")

    class Slow(LengthEmbedder):
        def embed_documents(self, texts):
            assert reindexed(ingest).adopted  # while this document is under way
            return super().embed_documents(texts)

    slow = replace(ingest.space(), embedder=Slow())
    (late,) = replace(ingest, writable=lambda: slow).train("t", [NewDocument("b", body("b"))], chunking=SMALL)
    assert late.state == "queued"
    (outcome,) = following(ingest).work([GenerationKey("t", "b", 1)])
    assert outcome.trained.state == "ready"
    assert len(turned(ingest).index.chunks(GenerationKey("t", "b", 1), limit=99)) == outcome.trained.chunks


def test_unchanged_documents_are_still_unchanged_after_the_change(ingest):
    train(ingest, "a")
    assert reindexed(ingest).adopted
    (again,) = following(ingest).train("t", [NewDocument("a", body("a"), {"name": "a"})], chunking=SMALL)
    assert again.state == "unchanged"

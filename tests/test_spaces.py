"""A process works with the model whose vectors the documents have."""

from __future__ import annotations

import threading

import pytest

from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.adapters.sqlite.indexes import SqliteIndexes
from llamabda.errors import DependencyFailed, ModelError
from llamabda.spaces import RETRY_SECONDS, Spaces
from llamabda.types import Embedding, EmbeddingModel, GenerationKey
from tests.fakes import WordEmbedder

OLD, NEW = EmbeddingModel("old", "onnx"), EmbeddingModel("new", "onnx")


class House:
    def __init__(self, folder):
        database = Database(folder / "c.db")
        self.catalog = SqliteCatalog(database)
        self.embeddings = SqliteEmbeddings(database)
        self.indexes = SqliteIndexes(folder / "index")
        self.loaded: list[str] = []
        self.prints = {"old": "old-1", "new": "new-1"}
        self.missing: set[str] = set()
        self.now = 0.0

    def load(self, model):
        self.loaded.append(model.name)
        if model.name in self.missing:
            raise ModelError(f"{model.name} cannot be had")
        embedder = WordEmbedder()
        embedder.fingerprint = self.prints[model.name]
        return embedder

    def spaces(self, wanted):
        return Spaces(self.embeddings, self.indexes, self.load, wanted, clock=lambda: self.now)

    def document(self, fingerprint, doc_id="d"):
        key = GenerationKey("t", doc_id, self.catalog.begin("t", doc_id, source="api", metadata={}))
        self.catalog.commit(
            key, source="api", metadata={}, sha256="", size=1, chunks=1, recipe="1:900/100", fingerprint=fingerprint
        )
        return key

    def follow(self, spaces):
        """The space after the thread that loads the new model has ended."""
        spaces.current()
        for thread in threading.enumerate():
            if thread.name == "load-embedder":
                thread.join()
        return spaces.current()


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_an_empty_home_takes_the_model_of_the_settings_and_another_one_as_long_as_it_is_empty(house):
    assert house.spaces(OLD).load().fingerprint == "old-1"
    assert house.embeddings.live() == Embedding("old-1", OLD)
    assert house.spaces(NEW).load().fingerprint == "new-1"
    assert house.embeddings.live() == Embedding("new-1", NEW)


def test_documents_keep_their_model_until_they_have_vectors_of_the_new_one(house, caplog):
    house.spaces(OLD).load()
    key = house.document("old-1")
    spaces = house.spaces(NEW)
    assert spaces.model() == OLD
    assert spaces.load().model == OLD
    assert "llamabda reindex" in caplog.text
    assert house.loaded == ["old", "old"]  # the new one is not even loaded
    house.embeddings.made([key], "new-1")
    house.embeddings.adopt(Embedding("new-1", NEW))
    assert house.spaces(NEW).load().model == NEW


def test_a_running_process_follows_and_answers_meanwhile(house):
    spaces = house.spaces(OLD)
    before = spaces.load()
    key = house.document("old-1")
    house.embeddings.made([key], "new-1")
    loading, go_on = threading.Event(), threading.Event()
    load = house.load

    def slow(model):
        loading.set()
        assert go_on.wait(30)
        return load(model)

    spaces._load = slow
    house.embeddings.adopt(Embedding("new-1", NEW))
    assert spaces.current() is before
    assert loading.wait(30)
    assert spaces.current() is before
    go_on.set()
    after = house.follow(spaces)
    assert (after.model, after.fingerprint) == (NEW, "new-1")
    assert house.loaded == ["old", "new"]


def test_a_new_model_that_cannot_be_loaded_is_tried_again_later_and_the_old_one_answers(house):
    spaces = house.spaces(OLD)
    before = spaces.load()
    house.embeddings.made([house.document("old-1")], "new-1")
    house.embeddings.adopt(Embedding("new-1", NEW))
    house.missing.add("new")
    assert house.follow(spaces) is before
    assert house.follow(spaces) is before
    assert house.loaded == ["old", "new"]
    house.missing.clear()
    house.now += RETRY_SECONDS
    assert house.follow(spaces).model == NEW


def test_a_model_whose_files_changed_answers_nothing_rather_than_wrongly(house, caplog):
    house.spaces(OLD).load()
    key = house.document("old-1")
    house.prints["old"] = "old-2"
    spaces = house.spaces(OLD)
    spaces.load()
    assert "llamabda reindex" in caplog.text
    with pytest.raises(DependencyFailed, match="llamabda reindex"):
        spaces.current()
    house.embeddings.made([key], "old-2")
    house.embeddings.adopt(Embedding("old-2", OLD))
    assert spaces.current().fingerprint == "old-2"

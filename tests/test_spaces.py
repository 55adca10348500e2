"""A process works with the model whose vectors the documents have."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress

import pytest

from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.adapters.sqlite.indexes import SqliteIndexes
from llamabda.errors import DependencyFailed, ModelError
from llamabda.spaces import LOOK_SECONDS, RETRY_SECONDS, Spaces
from llamabda.types import Embedding, EmbeddingModel, GenerationKey
from tests.fakes import WordEmbedder

OLD, NEW = EmbeddingModel("old", "onnx"), EmbeddingModel("new", "onnx")


class House:
    def __init__(self, folder):
        self.folder = folder
        database = Database(folder / "c.db")
        self.catalog = SqliteCatalog(database)
        self.embeddings = SqliteEmbeddings(database)
        self.indexes = SqliteIndexes(folder / "index")
        self.loaded: list[str] = []
        self.prints = {"old": "old-1", "new": "new-1", "moved": "old-1"}
        self.missing: set[str] = set()
        self.now = 0.0

    def load(self, model):
        self.loaded.append(model.name)
        if model.name in self.missing:
            raise ModelError(f"{model.name} cannot be had")
        embedder = WordEmbedder()
        embedder.fingerprint = self.prints[model.name]
        return embedder

    def spaces(self, wanted, *, load=True):
        made = Spaces(self.embeddings, self.indexes, self.load, wanted, clock=lambda: self.now)
        if load:
            made.load()
        return made

    def document(self, doc_id="d"):
        key = GenerationKey("t", doc_id, self.catalog.begin("t", doc_id, source="api", metadata={}))
        build = self.embeddings.live().name
        self.catalog.commit(
            key, source="api", metadata={}, sha256="", size=1, chunks=1, recipe="1:900/100", build=build
        )
        return key

    def change(self, model):
        """What `reindex` does, without the vectors."""
        build = self.embeddings.begin(Embedding(self.prints[model.name], model)).name
        self.indexes.open(build, 256)
        self.embeddings.made(self.embeddings.unmade(build, limit=99), build)
        assert self.embeddings.adopt(build)
        return build

    def follow(self, spaces):
        """The space after the thread that loads the new model has ended."""
        with suppress(DependencyFailed):
            spaces.current()
        for thread in threading.enumerate():
            if thread.name == "load-embedder":
                thread.join()
        return spaces.current()

    @property
    def live(self):
        return self.embeddings.live().embedding.model


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_an_empty_home_takes_the_model_of_the_settings_and_another_one_as_long_as_it_is_empty(house):
    assert house.spaces(OLD).current().embedder.fingerprint == "old-1"
    assert house.live == OLD
    assert house.spaces(NEW).current().embedder.fingerprint == "new-1"
    assert house.live == NEW


def test_documents_keep_their_model_until_they_have_vectors_of_the_new_one(house, caplog):
    house.spaces(OLD)
    house.document()
    spaces = house.spaces(NEW, load=False)
    assert spaces.model() == OLD
    spaces.load()
    assert spaces.current().embedder.fingerprint == "old-1"
    assert "llamabda reindex" in caplog.text
    assert house.loaded == ["old", "old"]  # the new one is not even loaded
    build = house.change(NEW)
    assert house.spaces(NEW).current().build == build


def test_a_running_process_follows_and_answers_meanwhile_but_adds_nothing(house):
    spaces = house.spaces(OLD)
    before = spaces.current()
    house.document()
    loading, go_on = threading.Event(), threading.Event()
    load = house.load

    def slow(model):
        loading.set()
        assert go_on.wait(30)
        return load(model)

    spaces._load = slow
    build = house.change(NEW)
    assert spaces.current() is before
    assert loading.wait(30)
    assert spaces.current() is before
    with pytest.raises(DependencyFailed, match="changes to new"):
        spaces.writable()
    go_on.set()
    after = house.follow(spaces)
    assert (after.build, after.embedder.fingerprint) == (build, "new-1")
    assert spaces.writable() is after
    assert house.loaded == ["old", "new"]


def test_a_start_that_crosses_the_change_does_not_undo_it(house):
    house.spaces(OLD)
    house.document()
    spaces = house.spaces(OLD, load=False)
    load = house.load

    def crossed(model):
        spaces._load = load
        house.change(NEW)
        return load(model)

    spaces._load = crossed
    spaces.load()
    assert house.live == NEW
    assert house.follow(spaces).embedder.fingerprint == "new-1"


def test_a_new_model_that_cannot_be_loaded_is_tried_again_later_and_the_old_one_answers(house):
    spaces = house.spaces(OLD)
    before = spaces.current()
    house.document()
    house.change(NEW)
    house.missing.add("new")
    assert house.follow(spaces) is before
    assert house.follow(spaces) is before
    assert house.loaded == ["old", "new"]
    with pytest.raises(DependencyFailed, match="new cannot be had"):
        spaces.writable()
    house.missing.clear()
    house.now += RETRY_SECONDS
    assert house.follow(spaces).embedder.fingerprint == "new-1"


def test_a_process_that_cannot_follow_says_so_once_its_own_index_is_gone(house):
    spaces = house.spaces(OLD)
    build = spaces.current().build
    house.document()
    house.change(NEW)
    house.missing.add("new")
    house.follow(spaces)
    for gone in house.embeddings.discard(retired_before=_future(), unfinished_before=_future()):
        house.indexes.drop(gone)
        house.embeddings.dropped(gone)
    assert build not in house.embeddings.names()
    with pytest.raises(DependencyFailed, match="new cannot be had"):
        spaces.current()


def test_a_model_whose_files_changed_answers_nothing_rather_than_wrongly(house, caplog):
    house.spaces(OLD)
    house.document()
    house.prints["old"] = "old-2"
    spaces = house.spaces(OLD)
    assert "llamabda reindex" in caplog.text
    for _ in range(2):
        with pytest.raises(DependencyFailed, match="llamabda reindex"):
            house.follow(spaces)
    house.change(OLD)
    house.now += RETRY_SECONDS
    assert house.follow(spaces).embedder.fingerprint == "old-2"


def test_a_running_process_follows_to_new_files_of_the_same_model(house):
    spaces = house.spaces(OLD)
    house.document()
    house.prints["old"] = "old-2"
    build = house.change(OLD)
    assert house.follow(spaces).build == build


def test_files_that_are_not_those_of_the_vectors_never_take_their_place(house):
    """The process has another version of the new model than whoever made the vectors."""
    spaces = house.spaces(OLD)
    before = spaces.current()
    house.document()
    house.change(NEW)
    house.prints["new"] = "new-2"
    assert house.follow(spaces) is before
    assert not (house.folder / "index" / "new-2").exists()


def test_a_model_that_was_moved_is_found_under_its_new_name(house):
    house.spaces(OLD)
    house.document()
    house.missing.add("old")
    spaces = house.spaces(EmbeddingModel("moved", "onnx"))
    assert spaces.current().embedder.fingerprint == "old-1"
    assert house.live.name == "moved"


def test_a_former_model_that_cannot_be_had_says_what_to_do(house):
    house.spaces(OLD)
    house.document()
    house.missing.add("old")
    with pytest.raises(ModelError, match=r"old, which cannot be had .*llamabda reindex"):
        house.spaces(NEW)


def test_an_index_that_was_deleted_by_hand_is_told_and_can_be_made_again(house, caplog):
    spaces = house.spaces(OLD)
    key = house.document()
    shutil.rmtree(house.folder / "index")
    spaces = house.spaces(OLD)
    assert "llamabda reindex" in caplog.text
    assert house.embeddings.unmade(spaces.current().build, limit=9) == [key]


class Elsewhere(SqliteIndexes):
    """Another place, which can be away."""

    place = "https://elsewhere"
    away = False

    def there(self, build):
        self._reached()
        return super().there(build)

    def make(self, build, dim):
        self._reached()
        super().make(build, dim)

    def _reached(self):
        if self.away:
            raise DependencyFailed("the index cannot be reached", dependency="index")


def test_documents_that_were_indexed_elsewhere_are_told_and_can_be_made_here_and_there_again(house, caplog):
    spaces = house.spaces(OLD)
    first, build = house.document("a"), house.embeddings.live().name
    home, house.indexes = house.indexes, Elsewhere(house.folder / "elsewhere")
    spaces = house.spaces(OLD)
    assert "indexed elsewhere: run `llamabda reindex`" in caplog.text
    assert spaces.current().build == build
    assert house.embeddings.unmade(build, limit=9) == [first]
    house.embeddings.made([first], build)
    second = house.document("b")
    assert house.embeddings.unmade(build, limit=9) == []
    house.indexes = home  # whose index was there all the time, and never saw the second document
    house.spaces(OLD)
    assert house.embeddings.unmade(build, limit=9) == [first, second]


def test_a_home_without_documents_may_change_the_place_without_a_word(house, caplog):
    house.spaces(OLD)
    house.indexes = Elsewhere(house.folder / "elsewhere")
    house.spaces(OLD).current()
    assert caplog.text == ""


def test_an_index_that_is_away_at_the_start_is_looked_at_before_anybody_searches_it(house):
    house.spaces(OLD)
    key, build = house.document(), house.embeddings.live().name
    house.indexes = Elsewhere(house.folder / "elsewhere")
    house.indexes.away = True
    spaces = house.spaces(OLD)
    with pytest.raises(DependencyFailed, match="cannot be reached") as caught:
        spaces.current()
    assert caught.value.dependency == "index"
    assert house.loaded == ["old", "old"]
    house.indexes.away = False
    house.now += LOOK_SECONDS
    with pytest.raises(DependencyFailed):
        spaces.current()  # others look meanwhile
    for thread in threading.enumerate():
        if thread.name == "look-at-index":
            thread.join()
    assert spaces.current().build == build
    assert house.embeddings.unmade(build, limit=9) == [key]  # and no empty index passes for what was there


def _future():
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=1)

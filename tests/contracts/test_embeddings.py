"""What every store of embeddings promises, together with the catalog whose writes it shares."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.errors import DependencyFailed
from llamabda.ports import Catalog, Embeddings
from llamabda.types import Embedding, EmbeddingModel, GenerationKey

Both = tuple[Catalog, Embeddings]
OLD = Embedding("old-1", EmbeddingModel("a/old", "onnx"))
NEW = Embedding("new-1", EmbeddingModel("a/new", "onnx"))


def _sqlite(folder: Path) -> Both:
    database = Database(folder / "catalog.db")
    return SqliteCatalog(database), SqliteEmbeddings(database)


MAKERS: dict[str, Callable[[Path], Both]] = {"sqlite": _sqlite}


@pytest.fixture(params=MAKERS)
def stores(request, tmp_path) -> Both:
    return MAKERS[request.param](tmp_path)


def commit(catalog: Catalog, doc_id: str, fingerprint: str, *, tenant: str = "t") -> GenerationKey:
    key = begin(catalog, doc_id, tenant)
    assert catalog.commit(
        key, source="api", metadata={}, sha256="ab" * 32, size=7, chunks=2, recipe="1:900/100", fingerprint=fingerprint
    )
    return key


def begin(catalog: Catalog, doc_id: str, tenant: str = "t") -> GenerationKey:
    generation = catalog.begin(tenant, doc_id, source="api", metadata={})
    assert generation is not None
    return GenerationKey(tenant, doc_id, generation)


def test_the_first_embedding_is_adopted_at_once_and_again_without_harm(stores):
    _, embeddings = stores
    assert embeddings.live() is None
    assert embeddings.adopt(OLD)
    assert embeddings.adopt(OLD)
    assert embeddings.live() == OLD


def test_no_document_is_left_behind(stores):
    catalog, embeddings = stores
    embeddings.adopt(OLD)
    keys = [commit(catalog, doc_id, OLD.fingerprint) for doc_id in "abc"]
    assert (embeddings.unmade(OLD.fingerprint, limit=9), embeddings.left(OLD.fingerprint)) == ([], 0)
    assert embeddings.unmade(NEW.fingerprint, limit=9) == keys
    for at, key in enumerate(keys):
        assert not embeddings.adopt(NEW)
        assert embeddings.live() == OLD
        assert embeddings.left(NEW.fingerprint) == len(keys) - at
        embeddings.made([key], NEW.fingerprint)
    assert embeddings.adopt(NEW)
    assert embeddings.live() == NEW


def test_the_unmade_come_in_pages(stores):
    catalog, embeddings = stores
    keys = [commit(catalog, doc_id, OLD.fingerprint, tenant=tenant) for tenant in ("t", "u") for doc_id in ("a", "b%")]
    first = embeddings.unmade(NEW.fingerprint, limit=3)
    assert first == keys[:3]
    assert embeddings.unmade(NEW.fingerprint, limit=3, after=first[-1]) == keys[3:]
    assert embeddings.unmade(NEW.fingerprint, limit=3, after=keys[3]) == []


def test_only_what_readers_see_has_to_be_made(stores):
    catalog, embeddings = stores
    commit(catalog, "replaced", OLD.fingerprint)
    second = commit(catalog, "replaced", OLD.fingerprint)
    commit(catalog, "deleted", OLD.fingerprint)
    catalog.delete("t", "deleted")
    begin(catalog, "under way")
    assert embeddings.unmade(NEW.fingerprint, limit=9) == [second]


def test_what_was_made_with_another_embedding_cannot_go_live(stores):
    catalog, embeddings = stores
    embeddings.adopt(NEW)
    key = begin(catalog, "d")
    given = {"source": "api", "metadata": {}, "sha256": "ab" * 32, "size": 7, "chunks": 2}
    with pytest.raises(DependencyFailed, match="a/new"):
        catalog.commit(key, **given, fingerprint=OLD.fingerprint)
    assert catalog.live([("t", "d")]) == {}
    assert catalog.commit(key, **given, fingerprint=NEW.fingerprint)
    assert catalog.live([("t", "d")]) == {("t", "d"): key.generation}


def test_a_replaced_version_has_to_be_made_again(stores):
    catalog, embeddings = stores
    embeddings.adopt(OLD)
    first = commit(catalog, "d", OLD.fingerprint)
    embeddings.made([first], NEW.fingerprint)
    second = commit(catalog, "d", OLD.fingerprint)
    assert not embeddings.adopt(NEW)
    assert embeddings.unmade(NEW.fingerprint, limit=9) == [second]


def test_retired_embeddings_are_told_until_they_are_dropped(stores):
    catalog, embeddings = stores
    embeddings.adopt(OLD)
    key = commit(catalog, "d", OLD.fingerprint)
    embeddings.made([key], NEW.fingerprint)
    assert embeddings.adopt(NEW)
    now = datetime.now(UTC)
    assert embeddings.retired(before=now - timedelta(minutes=1)) == []
    assert embeddings.retired(before=now + timedelta(minutes=1)) == [OLD.fingerprint]
    embeddings.dropped(OLD.fingerprint)
    assert embeddings.retired(before=now + timedelta(minutes=1)) == []
    assert embeddings.unmade(OLD.fingerprint, limit=9) == [key]  # its vectors are gone
    assert not embeddings.adopt(OLD)


def test_going_back_before_the_old_one_is_dropped_takes_nothing(stores):
    catalog, embeddings = stores
    embeddings.adopt(OLD)
    key = commit(catalog, "d", OLD.fingerprint)
    embeddings.made([key], NEW.fingerprint)
    assert embeddings.adopt(NEW)
    assert embeddings.adopt(OLD)
    assert embeddings.live() == OLD
    assert embeddings.retired(before=datetime.now(UTC) + timedelta(minutes=1)) == [NEW.fingerprint]


def test_the_one_in_use_is_never_dropped(stores):
    _, embeddings = stores
    embeddings.adopt(OLD)
    embeddings.dropped(OLD.fingerprint)
    assert embeddings.live() == OLD


def test_however_commits_and_the_change_cross_no_live_document_lacks_vectors(stores):
    catalog, embeddings = stores
    embeddings.adopt(OLD)
    refused = []

    def train(worker: int) -> None:
        for n in range(20):
            key = begin(catalog, f"{worker}-{n}")
            try:
                catalog.commit(
                    key,
                    source="api",
                    metadata={},
                    sha256="ab" * 32,
                    size=1,
                    chunks=1,
                    recipe="1:900/100",
                    fingerprint=OLD.fingerprint,
                )
            except DependencyFailed:
                refused.append(key)

    threads = [threading.Thread(target=train, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    while not embeddings.adopt(NEW):
        embeddings.made(embeddings.unmade(NEW.fingerprint, limit=5), NEW.fingerprint)
    for thread in threads:
        thread.join()
    assert embeddings.left(NEW.fingerprint) == 0
    documents = [(f"{worker}-{n}") for worker in range(3) for n in range(20)]
    assert len(catalog.live([("t", doc_id) for doc_id in documents])) + len(refused) == 60


def test_a_catalog_from_before_knows_the_embedding_by_its_recipes(tmp_path):
    catalog, _ = _sqlite(tmp_path)
    key = commit(catalog, "d", "")
    with sqlite3.connect(tmp_path / "catalog.db") as db:
        db.execute("UPDATE documents SET recipe = '1:900/100:old-1'")
        db.execute("DROP TABLE vectors")
    db.close()
    catalog, embeddings = _sqlite(tmp_path)
    assert catalog.get("t", "d").recipe == "1:900/100"
    assert embeddings.unmade(OLD.fingerprint, limit=9) == []
    assert embeddings.unmade(NEW.fingerprint, limit=9) == [key]
    assert embeddings.adopt(OLD)

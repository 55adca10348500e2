"""What every store of embeddings promises, together with the catalog whose writes it shares."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings
from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.errors import DependencyFailed
from llamabda.ports import Catalog, Embeddings
from llamabda.types import Embedding, EmbeddingModel, GenerationKey
from tests.aws import CATALOG, Aws

Both = tuple[Catalog, Embeddings]
OLD = Embedding("old-1", EmbeddingModel("a/old", "onnx"))
NEW = Embedding("new-1", EmbeddingModel("a/new", "onnx"))
GIVEN = {"source": "api", "metadata": {}, "sha256": "ab" * 32, "size": 7, "chunks": 2, "recipe": "1:900/100"}


def _sqlite(folder: Path) -> Both:
    database = Database(folder / "catalog.db")
    return SqliteCatalog(database), SqliteEmbeddings(database)


def _dynamodb(aws: Aws) -> Both:
    client = aws.client("dynamodb")
    return DynamoCatalog(client, CATALOG, patience=60), DynamoEmbeddings(client, CATALOG, patience=60)


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Both]] = {
    "sqlite": lambda request: _sqlite(request.getfixturevalue("tmp_path")),
    "dynamodb": lambda request: _dynamodb(request.getfixturevalue("aws")),
}


@pytest.fixture(params=MAKERS)
def stores(request) -> Both:
    return MAKERS[request.param](request)


@pytest.fixture
def old(stores) -> str:
    """The name of the build that is live at first."""
    return stores[1].settle(OLD).name


def begin(catalog: Catalog, doc_id: str, tenant: str = "t") -> GenerationKey:
    generation = catalog.begin(tenant, doc_id, source="api", metadata={})
    assert generation is not None
    return GenerationKey(tenant, doc_id, generation)


def commit(catalog: Catalog, doc_id: str, build: str, *, tenant: str = "t") -> GenerationKey:
    key = begin(catalog, doc_id, tenant)
    assert catalog.commit(key, **GIVEN, build=build)
    return key


def moved(embeddings: Embeddings, embedding: Embedding) -> str:
    """Makes all documents' vectors and changes over to them."""
    build = embeddings.begin(embedding).name
    embeddings.made(embeddings.unmade(build, limit=1000), build)
    assert embeddings.adopt(build)
    return build


def discarded(embeddings: Embeddings, *, retired: float = -60, unfinished: float = -60) -> list[str]:
    now = datetime.now(UTC)
    return sorted(
        embeddings.discard(
            retired_before=now - timedelta(seconds=retired), unfinished_before=now - timedelta(seconds=unfinished)
        )
    )


def test_an_empty_catalog_takes_any_embedding_and_another_one_as_long_as_it_is_empty(stores):
    _, embeddings = stores
    assert embeddings.live() is None
    first = embeddings.settle(OLD)
    assert (embeddings.live(), first.embedding) == (first, OLD)
    assert embeddings.settle(OLD) == first
    second = embeddings.settle(NEW)
    assert (embeddings.live(), second.embedding) == (second, NEW)
    assert first.name != second.name


def test_documents_are_not_taken_from_their_embedding(stores, old):
    catalog, embeddings = stores
    commit(catalog, "d", old)
    assert embeddings.settle(NEW).name == old
    assert embeddings.live().name == old


def test_the_same_model_under_another_name_is_the_same(stores, old):
    catalog, embeddings = stores
    commit(catalog, "d", old)
    renamed = Embedding(OLD.fingerprint, EmbeddingModel("b/moved", "onnx"))
    settled = embeddings.settle(renamed)
    assert (settled.name, settled.embedding) == (old, renamed)
    assert embeddings.begin(OLD).name == old
    assert embeddings.live().embedding == OLD


def test_no_document_is_left_behind(stores, old):
    catalog, embeddings = stores
    keys = [commit(catalog, doc_id, old) for doc_id in "abc"]
    assert (embeddings.unmade(old, limit=9), embeddings.left(old), embeddings.documents()) == ([], 0, 3)
    build = embeddings.begin(NEW).name
    assert embeddings.unmade(build, limit=9) == keys
    for at, key in enumerate(keys):
        assert not embeddings.adopt(build)
        assert embeddings.live().name == old
        assert embeddings.left(build) == len(keys) - at
        embeddings.made([key], build)
    assert embeddings.adopt(build)
    assert embeddings.live().embedding == NEW


def test_the_unmade_come_in_pages(stores, old):
    catalog, embeddings = stores
    keys = [commit(catalog, doc_id, old, tenant=tenant) for tenant in ("t", "u") for doc_id in ("a", "b%")]
    build = embeddings.begin(NEW).name
    first = embeddings.unmade(build, limit=3)
    assert first == keys[:3]
    assert embeddings.unmade(build, limit=3, after=first[-1]) == keys[3:]
    assert embeddings.unmade(build, limit=3, after=keys[3]) == []


def test_only_what_readers_see_has_to_be_made_and_can_be_made(stores, old):
    catalog, embeddings = stores
    first = commit(catalog, "replaced", old)
    second = commit(catalog, "replaced", old)
    gone = commit(catalog, "deleted", old)
    catalog.delete("t", "deleted")
    begin(catalog, "under way")
    build = embeddings.begin(NEW).name
    assert embeddings.unmade(build, limit=9) == [second]
    embeddings.made([first, gone], build)
    assert embeddings.unmade(build, limit=9) == [second]


def test_what_was_made_with_other_vectors_cannot_go_live(stores, old):
    catalog, embeddings = stores
    build = moved(embeddings, NEW)
    key = begin(catalog, "d")
    with pytest.raises(DependencyFailed, match="a/new"):
        catalog.commit(key, **GIVEN, build=old)
    assert catalog.live([("t", "d")]) == {}
    assert catalog.commit(key, **GIVEN, build=build)
    assert catalog.live([("t", "d")]) == {("t", "d"): key.generation}


def test_a_replaced_version_has_to_be_made_again(stores, old):
    catalog, embeddings = stores
    first = commit(catalog, "d", old)
    build = embeddings.begin(NEW).name
    embeddings.made([first], build)
    second = commit(catalog, "d", old)
    assert not embeddings.adopt(build)
    assert embeddings.unmade(build, limit=9) == [second]


def test_unchanged_is_only_what_has_vectors(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "d", old)
    build = embeddings.begin(NEW).name
    again = begin(catalog, "d")
    assert not catalog.unchanged(again, key.generation, build=build)
    assert catalog.unchanged(again, key.generation, build=old)


def test_a_retired_build_is_dropped_once_and_its_name_never_comes_again(stores, old):
    catalog, embeddings = stores
    commit(catalog, "d", old)
    moved(embeddings, NEW)
    assert discarded(embeddings, retired=60) == []
    assert discarded(embeddings) == [old]
    assert not embeddings.adopt(old)
    again = embeddings.begin(OLD).name
    assert again != old
    assert embeddings.left(again) == 1
    assert discarded(embeddings, unfinished=60) == [old]  # whoever was to drop it may have died
    embeddings.dropped(old)
    assert discarded(embeddings, unfinished=60) == []
    assert old not in embeddings.names()
    assert again in embeddings.names()


def test_going_back_before_the_old_one_is_dropped_takes_nothing_and_keeps_it(stores, old):
    catalog, embeddings = stores
    commit(catalog, "d", old)
    new = moved(embeddings, NEW)
    assert embeddings.begin(OLD).name == old
    assert embeddings.left(old) == 0
    assert discarded(embeddings, unfinished=60) == []  # it is being made again
    assert embeddings.adopt(old)
    assert embeddings.live().name == old
    assert discarded(embeddings) == [new]


def test_a_build_that_nobody_goes_on_with_is_given_up(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "d", old)
    build = embeddings.begin(NEW).name
    embeddings.made([key], build)
    assert discarded(embeddings, unfinished=60) == []
    assert discarded(embeddings) == [build]
    assert not embeddings.adopt(build)


def test_the_one_in_use_is_never_dropped(stores, old):
    _, embeddings = stores
    assert discarded(embeddings) == []
    embeddings.dropped(old)
    assert embeddings.live().name == old


def test_a_lost_index_has_no_documents(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "d", old)
    embeddings.lost(old)
    assert embeddings.unmade(old, limit=9) == [key]
    assert not embeddings.adopt(old)


def test_however_commits_and_the_change_cross_no_live_document_lacks_vectors(stores, old):
    catalog, embeddings = stores
    refused = []

    def train(worker: int) -> None:
        for n in range(20):
            key = begin(catalog, f"{worker}-{n}")
            try:
                catalog.commit(key, **GIVEN, build=old)
            except DependencyFailed:
                refused.append(key)

    threads = [threading.Thread(target=train, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    build = embeddings.begin(NEW).name
    while not embeddings.adopt(build):
        embeddings.made(embeddings.unmade(build, limit=5), build)
    for thread in threads:
        thread.join()
    assert embeddings.left(build) == 0
    documents = [("t", f"{worker}-{n}") for worker in range(3) for n in range(20)]
    assert len(catalog.live(documents)) + len(refused) == 60


def test_a_catalog_from_before_knows_its_vectors_by_the_recipes(tmp_path):
    catalog, _ = _sqlite(tmp_path)
    keys = [commit(catalog, doc_id, "") for doc_id in "abc"]
    with sqlite3.connect(tmp_path / "catalog.db") as db:
        db.execute("UPDATE documents SET recipe = '1:900/100:old-1'")
        db.execute("UPDATE documents SET recipe = '1:500/50:other-1' WHERE id = 'b'")
        db.execute("DROP TABLE vectors")
        db.execute("DROP TABLE builds")
    db.close()
    catalog, embeddings = _sqlite(tmp_path)
    assert [catalog.get("t", doc_id).recipe for doc_id in "ab"] == ["1:900/100", "1:500/50"]
    assert (embeddings.live().name, embeddings.live().embedding.fingerprint) == ("old-1", "old-1")
    assert embeddings.live().embedding.model.name == ""
    assert embeddings.unmade("old-1", limit=9) == [keys[1]]
    assert embeddings.settle(OLD).name == "old-1"
    assert embeddings.live().embedding == OLD


def test_an_installation_has_one_name_for_ever(stores):
    _, embeddings = stores
    name = embeddings.owner()
    assert name
    assert embeddings.owner() == name
    embeddings.moved("elsewhere")
    assert embeddings.owner() == name


def test_in_another_place_no_document_has_vectors(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "a", old)
    assert not embeddings.moved("home")  # where indexes were before there was a choice
    assert embeddings.left(old) == 0
    assert embeddings.moved("elsewhere")
    assert embeddings.unmade(old, limit=9) == [key]
    assert not embeddings.moved("elsewhere")
    embeddings.made([key], old)
    assert embeddings.moved("home")
    assert embeddings.left(old) == 1
    assert not embeddings.moved("home")


def test_without_documents_there_is_nothing_to_be_moved(stores, old):
    assert not stores[1].moved("elsewhere")


def test_where_only_replaced_and_deleted_versions_were_nothing_is_to_be_moved(stores, old):
    catalog, embeddings = stores
    commit(catalog, "a", old)
    commit(catalog, "a", "")
    commit(catalog, "b", old)
    catalog.delete("t", "b")
    assert not embeddings.moved("elsewhere")


def test_only_builds_that_may_be_searched_have_documents(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "d", old)
    given_up = embeddings.begin(NEW).name
    assert discarded(embeddings) == [given_up]
    for build in (given_up, "never-begun"):
        embeddings.made([key], build)
        assert embeddings.left(build) == 1
        assert embeddings.unmade(build, limit=9) == [key]
        assert not catalog.unchanged(begin(catalog, "d"), key.generation, build=build)


def test_of_several_builds_of_a_model_the_newest_is_gone_on_with(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "d", old)
    second = embeddings.begin(OLD, anew=True).name
    embeddings.made([key], second)
    assert embeddings.adopt(second)
    moved(embeddings, NEW)
    assert embeddings.begin(OLD).name == second
    third = embeddings.begin(OLD, anew=True).name
    assert third == second  # it is being made
    assert discarded(embeddings, unfinished=60) == [old]


def test_what_readers_left_lately_is_kept_however_long_it_was_live(stores, old):
    _, embeddings = stores
    settled = datetime.now(UTC)
    moved(embeddings, NEW)
    assert list(embeddings.discard(retired_before=settled, unfinished_before=settled)) == []


def test_a_build_can_be_made_anew_for_the_same_model(stores, old):
    catalog, embeddings = stores
    key = commit(catalog, "a", old)
    assert embeddings.begin(OLD).name == old
    new = embeddings.begin(OLD, anew=True).name
    assert new != old
    assert embeddings.begin(OLD, anew=True).name == new  # what was begun is gone on with
    assert embeddings.live().name == old
    assert not embeddings.adopt(new)
    embeddings.made([key], new)
    assert embeddings.adopt(new)
    assert embeddings.live().name == new
    assert embeddings.begin(OLD, anew=True).name not in (old, new)

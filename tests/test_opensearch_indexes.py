"""The indexes of an installation in a cluster that others use, too."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llamabda.adapters.opensearch import Access, Connection, Layout, OpenSearchIndexes
from llamabda.adapters.opensearch.connection import Failed
from llamabda.adapters.sqlite.indexes import SqliteIndexes
from llamabda.errors import DependencyFailed
from llamabda.filters import Scope
from llamabda.ports import Index
from llamabda.types import Chunk, GenerationKey
from tests.ask_fakes import by_words

DIM = 4
LUCENE = Layout("lucene", "l2")


@pytest.fixture
def alias(opensearch: Access) -> Iterator[str]:
    name = f"indexes-{secrets.token_hex(6)}"
    yield name
    Connection(opensearch).call("DELETE", f"/{name}*")


def installation(server: Access, alias: str, owner: str = "me", layout: Layout = LUCENE) -> OpenSearchIndexes:
    return OpenSearchIndexes(Connection(server), alias=alias, layout=layout, owner=owner)


def add(index: Index, *doc_ids: str, text: str = "the tide is high") -> None:
    vectors = np.zeros((len(doc_ids), DIM), np.float32)
    vectors[:, 0] = 1
    index.add([Chunk("t", one, 1, 0, 0, len(text), text, "f" * 64, {}) for one in doc_ids], vectors)


def holders(server: Access, alias: str) -> set[str]:
    return set(Connection(server).call("GET", f"/_alias/{alias}"))


def test_an_index_is_made_once_and_known_by_its_build(opensearch, alias):
    mine = installation(opensearch, alias)
    assert (mine.names(), mine.there("one.1")) == (frozenset(), False)
    mine.make("one.1", DIM)
    mine.make("one.1", DIM)
    assert (mine.names(), mine.there("one.1")) == ({"one.1"}, True)
    assert installation(opensearch, alias).names() == {"one.1"}
    add(mine.open("one.1", DIM), "a")
    assert [m.chunk.doc_id for m in by_words(installation(opensearch, alias).open("one.1", DIM), "tide")] == ["a"]
    mine.drop("one.1")
    mine.drop("never")
    assert mine.names() == frozenset()


def test_an_index_that_is_not_there_is_told_to_readers_and_writers(opensearch, alias):
    index = installation(opensearch, alias).open("one.1", DIM)
    for ask in (lambda: by_words(index, "tide"), lambda: add(index, "a"), index.ping):
        with pytest.raises(DependencyFailed, match="run `llamabda reindex`"):
            ask()
    index.delete([GenerationKey("t", "a", 1)])  # nothing is there to be deleted
    assert installation(opensearch, alias).names() == frozenset()


def test_the_alias_changes_over_in_one_step(opensearch, alias):
    mine = installation(opensearch, alias)
    for build in ("one.1", "two.2"):
        mine.make(build, DIM)
    mine.publish("one.1")
    assert holders(opensearch, alias) == {f"{alias}-one.1"}
    seen: list[set[str]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(holders(opensearch, alias))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(10):
        mine.publish("two.2")
        mine.publish("one.1")
    mine.publish("two.2")
    stop.set()
    looking.join()
    assert all(len(found) == 1 for found in seen)
    assert holders(opensearch, alias) == {f"{alias}-two.2"}


def test_another_installations_indexes_are_never_touched(opensearch, alias):
    mine, theirs = installation(opensearch, alias), installation(opensearch, alias, owner="they")
    mine.make("one.1", DIM)
    theirs.make("two.2", DIM)
    add(theirs.open("two.2", DIM), "a")
    mine.drop("two.2")
    mine.delete([GenerationKey("t", "a", 1)])
    assert (mine.names(), theirs.names()) == ({"one.1"}, {"two.2"})
    assert by_words(theirs.open("two.2", DIM), "tide")
    theirs.publish("two.2")
    with pytest.raises(Failed, match="another installation's: set INDEX_NAME"):
        mine.publish("one.1")
    assert holders(opensearch, alias) == {f"{alias}-two.2"}


def test_a_longer_index_name_is_another_place(opensearch, alias):
    longer = installation(opensearch, f"{alias}-test")
    longer.make("one.1", DIM)
    mine = installation(opensearch, alias)
    assert mine.names() == frozenset()
    assert mine.place != longer.place


def test_an_alias_that_is_an_index_s_name_is_told(opensearch, alias):
    Connection(opensearch).call("PUT", f"/{alias}", {"mappings": {}})
    mine = installation(opensearch, alias)
    mine.make("one.1", DIM)
    with pytest.raises(Failed, match=r"INDEX_NAME .* is the name of an index"):
        mine.publish("one.1")


def test_many_make_one_index_at_once(opensearch, alias):
    start = threading.Barrier(8)

    def work(number: int) -> None:
        mine = installation(opensearch, alias)
        start.wait(30)
        mine.make("one.1", DIM)
        mine.publish("one.1")
        add(mine.open("one.1", DIM), f"{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    found = by_words(installation(opensearch, alias).open("one.1", DIM), "tide")
    assert sorted(m.chunk.doc_id for m in found) == [f"{n}" for n in range(8)]


@pytest.mark.parametrize("engine", ["faiss", "lucene"])
@pytest.mark.parametrize("space", ["l2", "cosinesimil", "innerproduct"])
def test_every_engine_and_space_makes_an_index_that_is_what_was_asked_for(opensearch, alias, engine, space):
    """A server made of jars lacks faiss' native code, so nothing is indexed here."""
    mine = installation(opensearch, alias, layout=Layout(engine, space, shards=2, replicas=0))
    mine.make("one.1", DIM)
    found = Connection(opensearch).call("GET", f"/{alias}-one.1")[f"{alias}-one.1"]
    method = found["mappings"]["properties"]["vector"]["method"]
    assert (method["engine"], method["space_type"], method["name"]) == (engine, space, "hnsw")
    assert found["settings"]["index"]["number_of_shards"] == "2"


def test_several_shards_rank_as_one(opensearch, alias, tmp_path: Path):
    """BM25 with the statistics of all shards: the same scores as the embedded index, whichever shard a chunk is in."""
    words = np.random.default_rng(3)
    vocabulary = [f"w{n}" for n in range(40)]
    texts = {f"{n:03}": " ".join(words.choice(vocabulary, 9)) for n in range(120)}
    whole = SqliteIndexes(tmp_path).open("one.1", DIM)
    mine = installation(opensearch, alias, layout=Layout("lucene", "l2", shards=3))
    mine.make("one.1", DIM)
    divided = mine.open("one.1", DIM)
    for index in (whole, divided):
        for doc_id, text in texts.items():
            add(index, doc_id, text=text)
    for query in ("w1 w2", "w7 w8 w9", "w39"):
        one, other = ({m.chunk.doc_id: m.score for m in by_words(index, query)} for index in (whole, divided))
        assert one
        assert one == pytest.approx(other, rel=1e-5)
        (found,) = divided.search(query, None, tenants=("t",), scopes=[Scope(5)])
        assert found.texts.bound == pytest.approx(
            whole.search(query, None, tenants=("t",), scopes=[Scope(5)])[0].texts.bound, rel=1e-6
        )

"""A collection that shows what was written late, in any order, and not on all replicas at once."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from llamabda.adapters.opensearch import Access, Connection, Layout
from llamabda.adapters.opensearch import serverless as adapter
from llamabda.adapters.opensearch.serverless import ServerlessIndex
from llamabda.errors import DependencyFailed
from llamabda.types import Chunk, GenerationKey
from tests.ask_fakes import by_words
from tests.opensearch_proxy import DROP, Asked, Given, Proxy, is_path, like_serverless

DIM = 4


LAG_SECONDS = 0.4  # that some replicas show less than was written


class Late:
    """Like a collection, whose replicas show what was written one after the other."""

    def __init__(self, server: Access, seed: int) -> None:
        self.random = random.Random(seed)
        self.proxy = Proxy(server, before=like_serverless, after=self.after)
        self.dropped = 0
        self.to_drop = 0
        self.written = 0.0

    def after(self, asked: Asked, given: Given) -> Given:
        if is_path(asked, "_bulk"):
            self.written = time.monotonic()
        if is_path(asked, "_bulk") and self.to_drop:
            self.to_drop -= 1
            self.dropped += 1
            return DROP
        if is_path(asked, "_msearch") and given.status == 200:
            reply = json.loads(given.body)
            for one in reply["responses"]:
                hits = one.get("hits", {}).get("hits", [])
                if hits and "_score" in hits[0] and b'"made"' in asked.body:
                    self.random.shuffle(hits)  # all score alike: no order can be relied on
                    if time.monotonic() - self.written < LAG_SECONDS and self.random.random() < 0.4:
                        del hits[self.random.randrange(len(hits)) :]  # a replica that lags behind
            given = Given(200, json.dumps(reply).encode())
        return given


@pytest.fixture
def late(opensearch) -> Late:
    return Late(opensearch, seed=5)


@pytest.fixture
def index(opensearch, late, monkeypatch) -> Iterator[ServerlessIndex]:
    monkeypatch.setattr(adapter, "POLL_SECONDS", 0.03)
    name = f"serverless-{secrets.token_hex(6)}"
    with late.proxy.running() as access:
        index = ServerlessIndex(Connection(access), name, dim=DIM, layout=Layout("lucene", "l2"))
        index.make()
        yield index
    Connection(opensearch).call("DELETE", f"/{name}*")


def chunks(*doc_ids: str) -> tuple[list[Chunk], np.ndarray]:
    text = "the tide is high"
    made = [Chunk("t", one, 1, 0, 0, len(text), text, "f" * 64, {}) for one in doc_ids]
    vectors = np.zeros((len(made), DIM), np.float32)
    vectors[:, 0] = 1
    return made, vectors


def all_show(server: Access, index: ServerlessIndex) -> None:
    """Everything that was written, everywhere."""
    time.sleep(LAG_SECONDS)
    Connection(server).call("POST", f"/{index._name}/_refresh")


def copies(server: Access, index: ServerlessIndex) -> Counter[str]:
    connection = Connection(server)
    connection.call("POST", f"/{index._name}/_refresh")
    reply = connection.call("POST", f"/{index._name}/_search", {"size": 1_000, "_source": ["doc_id"]})
    return Counter(hit["_source"]["doc_id"] for hit in reply["hits"]["hits"])


def test_a_lost_reply_loses_and_shows_nothing_twice(opensearch, late, index):
    late.to_drop = 3
    names = [f"{n:02}" for n in range(30)]
    index.add(*chunks(*names))
    assert late.dropped == 3
    assert set(copies(opensearch, index)) == set(names)
    assert sorted(m.chunk.doc_id for m in by_words(index, "tide")) == names
    all_show(opensearch, index)  # and whoever writes removes what is too many
    index.add(*chunks(*names))
    all_show(opensearch, index)
    index.add(*chunks(*names))
    assert max(copies(opensearch, index).values()) <= 3


def test_many_who_write_the_same_leave_one_copy_of_each_chunk(opensearch, late, index):
    names = [f"{n:02}" for n in range(12)]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                index.add(*chunks(*names))
        except BaseException as exc:  # noqa: BLE001  (handed to the main thread)
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(copies(opensearch, index)) == set(names)  # none has lost its last copy
    assert sorted(m.chunk.doc_id for m in by_words(index, "tide")) == names  # nor is any found twice


def test_whoever_waits_can_be_told_to_stop(index, late, monkeypatch):
    monkeypatch.setattr(index, "_copies", lambda query: [])  # nothing ever shows

    class Enough(Exception):
        pass

    began = time.monotonic()

    def alive() -> None:
        if time.monotonic() - began > 0.3:
            raise Enough

    with pytest.raises(Enough):
        index.add(*chunks("a"), alive=alive)
    monkeypatch.setattr(adapter, "VISIBLE_SECONDS", 0.1)
    with pytest.raises(DependencyFailed, match="does not show what was written"):
        index.add(*chunks("a"))


def test_an_index_that_was_removed_is_not_made_by_the_next_write(opensearch, index):
    index.add(*chunks("a"))
    Connection(opensearch).call("DELETE", f"/{index._name}")
    with pytest.raises(DependencyFailed, match="run `llamabda reindex`"):
        index.add(*chunks("b"))
    assert Connection(opensearch).call("GET", f"/{index._name}*/_mapping") == {}


def test_what_is_deleted_is_gone_however_often_it_is_there(opensearch, late, index):
    late.to_drop = 2
    index.add(*chunks("a", "b"))
    all_show(opensearch, index)  # what is deleted has been there for a while
    index.delete([GenerationKey("t", "a", 1)])
    assert [m.chunk.doc_id for m in by_words(index, "tide")] == ["b"]
    assert copies(opensearch, index) == Counter(["b"])

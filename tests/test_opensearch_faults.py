"""What a cluster that is ill, full, far or someone else's looks like. Over a real server, behind a proxy that plays."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from llamabda.adapters.opensearch import Access, Connection, Layout, OpenSearchIndex, bulk
from llamabda.errors import DependencyFailed, InvalidInput
from llamabda.filters import Scope
from llamabda.types import Chunk, Deadline, GenerationKey
from tests.ask_fakes import by_words
from tests.opensearch_proxy import DROP, Asked, Given, Proxy, is_path

DIM = 8
LUCENE = Layout("lucene", "cosinesimil")


@pytest.fixture
def name(opensearch) -> Iterator[str]:
    """Of an index that is removed afterwards."""
    chosen = f"faults-{secrets.token_hex(6)}"
    yield chosen
    connection = Connection(opensearch)
    for found in connection.call("GET", f"/{chosen}*/_mapping"):
        connection.call("PUT", f"/{found}/_settings", {"index.blocks.read_only_allow_delete": None})
        connection.call("DELETE", f"/{found}")
    connection.close()


def index_at(access: Access, name: str, *, dim: int = DIM, timeout: float = 5.0) -> OpenSearchIndex:
    return OpenSearchIndex(Connection(replace(access, timeout=timeout)), name, dim=dim, layout=LUCENE)


def made(access: Access, name: str) -> OpenSearchIndex:
    index = index_at(access, name)
    index.make()
    return index


def chunk(doc_id: str, text: str = "the tide is high", *, ordinal: int = 0, tenant: str = "t") -> Chunk:
    return Chunk(tenant, doc_id, 1, ordinal, 0, len(text), text, "f" * 64, {"n": ordinal})


def vectors(count: int, seed: int = 1) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def add(index: OpenSearchIndex, *chunks: Chunk) -> None:
    index.add(chunks, vectors(len(chunks)))


def found(index: OpenSearchIndex, text: str = "tide") -> list[str]:
    return sorted(m.chunk.doc_id for m in by_words(index, text, limit=100))


def error(status: int, kind: str = "", reason: str = "") -> Given:
    return Given(status, json.dumps({"error": {"type": kind, "reason": reason}, "status": status}).encode())


# -- one failure at a time


def test_a_cluster_that_is_not_there_is_named_and_soon(name):
    index = index_at(Access("127.0.0.1", 9, False), name, timeout=1.0)
    began = time.monotonic()
    for ask in (index.ping, lambda: found(index), lambda: add(index, chunk("a"))):
        with pytest.raises(DependencyFailed, match="cannot be reached: check OPENSEARCH_HOST"):
            ask()
    assert time.monotonic() - began < 12


def test_what_is_no_opensearch_is_named(name, opensearch):
    proxy = Proxy(opensearch, before=lambda asked: Given(200, b"<html>It works!</html>", "text/html"))
    with proxy.running() as access, pytest.raises(DependencyFailed, match="OPENSEARCH_HOST name an OpenSearch"):
        index_at(access, name).ping()


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_credentials_are_named_at_once(name, opensearch, status):
    proxy = Proxy(opensearch, before=lambda asked: Given(status, b"Unauthorized", "text/plain"))
    with proxy.running() as access:
        index = index_at(replace(access, user="maria", password="hunter2"), name)
        with pytest.raises(DependencyFailed, match=f"refuses these credentials .status {status}.") as caught:
            index.ping()
        assert "hunter2" not in str(caught.value)
    assert len(proxy.seen) == 1


def test_a_slow_node_costs_no_more_than_the_deadline(name, opensearch):
    index = made(opensearch, name)
    add(index, chunk("a"))

    def slow(asked: Asked) -> None:
        if is_path(asked, "_msearch"):
            time.sleep(30)

    with Proxy(opensearch, before=slow).running() as access:
        index = index_at(access, name, timeout=20)
        began = time.monotonic()
        with pytest.raises(DependencyFailed, match=r"did not answer within [12]\.\d s"):
            index.search("tide", None, tenants=("t",), scopes=[Scope(5)], deadline=Deadline.after(2))
        assert time.monotonic() - began < 8
        with pytest.raises(DependencyFailed, match="no time left"):
            index.search("tide", None, tenants=("t",), scopes=[Scope(5)], deadline=Deadline.after(0))


def test_a_reply_that_comes_byte_by_byte_costs_no_more_than_the_deadline(name, opensearch):
    made(opensearch, name)

    def slow(asked: Asked, given: Given) -> Given:
        return replace(given, pause=0.2) if is_path(asked, "_msearch") else given

    with Proxy(opensearch, after=slow).running() as access:
        index = index_at(access, name, timeout=20)
        began = time.monotonic()
        with pytest.raises(DependencyFailed, match="did not answer within"):
            index.search("tide", None, tenants=("t",), scopes=[Scope(5)], deadline=Deadline.after(2))
        assert time.monotonic() - began < 8


def test_a_disk_that_is_full_stops_writing_and_not_reading(name, opensearch):
    index = made(opensearch, name)
    add(index, chunk("a"))
    connection = Connection(opensearch)
    connection.call("PUT", f"/{name}/_settings", {"index.blocks.read_only_allow_delete": True})
    began = time.monotonic()
    with pytest.raises(DependencyFailed, match="takes no changes: a block is set"):
        add(index, chunk("b"))
    assert time.monotonic() - began < 3  # it stays full: nobody waits for it
    assert found(index) == ["a"]
    with pytest.raises(DependencyFailed, match=r"takes no changes: index.blocks.read_only_allow_delete"):
        index.ping()
    connection.call("PUT", f"/{name}/_settings", {"index.blocks.read_only_allow_delete": None})
    add(index, chunk("b"))
    index.ping()
    assert found(index) == ["a", "b"]


def test_a_red_index_is_named(name, opensearch):
    index = made(opensearch, name)
    add(index, chunk("a"))

    def red(asked: Asked, given: Given) -> Given:
        if "_cluster/health" not in asked.path:
            return given
        return replace(given, body=json.dumps({**json.loads(given.body), "status": "red"}).encode())

    with Proxy(opensearch, after=red).running() as access, pytest.raises(DependencyFailed, match="is red"):
        index_at(access, name).ping()


def test_an_index_that_somebody_removed_is_not_made_by_the_next_write(name, opensearch):
    index = made(opensearch, name)
    add(index, chunk("a"))
    connection = Connection(opensearch)
    connection.call("DELETE", f"/{name}")
    for ask in (lambda: add(index, chunk("b")), lambda: found(index), index.ping):
        with pytest.raises(DependencyFailed, match="run `llamabda reindex`"):
            ask()
    assert connection.call("GET", f"/{name}*/_mapping") == {}


def test_an_index_of_another_dimension_is_refused_with_both(name, opensearch):
    add(made(opensearch, name), chunk("a"))
    other = index_at(opensearch, name, dim=DIM + 1)
    for ask in (other.ping, other.make, lambda: found(other)):
        with pytest.raises(
            DependencyFailed, match=f"holds vectors of {DIM} numbers, the embedder makes {DIM + 1}; run .*--anew"
        ):
            ask()


def test_an_index_of_something_else_is_refused(name, opensearch):
    Connection(opensearch).call("PUT", f"/{name}", {"mappings": {"properties": {"title": {"type": "text"}}}})
    with pytest.raises(DependencyFailed, match="not made by Llamabda"):
        index_at(opensearch, name).ping()


def test_a_chunk_that_is_refused_for_what_it_is_is_named(name, opensearch):
    index = made(opensearch, name)
    good, bad = chunk("good"), chunk("bad", ordinal=2)
    items = [index._item(one, vector) for one, vector in zip((good, bad), vectors(2), strict=True)]
    items[1] = replace(items[1], document={**(items[1].document or {}), "ordinal": "two"})
    with pytest.raises(InvalidInput, match=r"does not take chunk 2 of 'bad': .*does not fit the index's mapping"):
        index._write(items, lambda: None)
    index._refresh(Deadline.after(10))
    assert found(index) == ["good"]  # the others of the batch were taken


def test_a_mapping_that_lacks_a_field_is_no_chunk_s_fault(name, opensearch):
    index = made(opensearch, name)
    item = index._item(chunk("a"), vectors(1)[0])
    with pytest.raises(DependencyFailed, match="lacks a field: run `llamabda reindex --anew`"):
        index._write([replace(item, document={**(item.document or {}), "colour": "blue"})], lambda: None)


def test_a_cluster_without_memory_for_vectors_is_asked_again(name, opensearch):
    """What engine faiss says when the native memory is full, as its plugin's source has it."""
    index = made(opensearch, name)
    breaker = {"type": "knn_circuit_breaker_exception", "reason": "Parsing the created knn vector fields failed"}
    full = {"type": "mapper_parsing_exception", "reason": "failed to parse", "caused_by": breaker}

    def once(asked: Asked) -> Given | None:
        if is_path(asked, "_bulk") and sum(is_path(one, "_bulk") for one in proxy.seen) == 1:
            return Given(200, json.dumps({"items": [{"index": {"status": 400, "error": full}}]}).encode())
        return None

    proxy = Proxy(opensearch, before=once)
    with proxy.running() as access:
        add(index_at(access, name), chunk("a"))
    assert found(index) == ["a"]


@pytest.mark.parametrize(
    "given", [Given(200, b"fine", "text/plain"), Given(200, b"[]"), Given(200, b""), Given(500, b"[]")]
)
def test_whatever_a_server_says_it_is_a_failure_of_the_index(name, opensearch, given):
    with Proxy(opensearch, before=lambda asked: given).running() as access:
        index = index_at(access, name, timeout=0.5)
        for ask in (index.ping, lambda: found(index), lambda: add(index, chunk("a")), index.make):
            with pytest.raises(DependencyFailed):
                ask()


def test_a_cluster_that_is_read_only_is_not_ready(name, opensearch):
    index = made(opensearch, name)
    connection = Connection(opensearch)
    connection.call("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only_allow_delete": True}})
    try:
        with pytest.raises(DependencyFailed, match=r"takes no changes: cluster\.blocks\.read_only_allow_delete"):
            index.ping()
    finally:
        connection.call("PUT", "/_cluster/settings", {"transient": {"cluster.blocks.read_only_allow_delete": None}})
    index.ping()


# -- bulk


def test_batches_keep_to_both_bounds():
    items = [bulk.Item(str(n), {"index": {}}, {"text": "x" * 30_000}) for n in range(700)]
    sizes = [(len(batch), sum(len(lines) for _, lines in batch)) for batch in bulk.batches(items)]
    assert sum(count for count, _ in sizes) == 700
    assert all(count <= bulk.BATCH_ITEMS and size <= bulk.BATCH_BYTES for count, size in sizes)
    assert len(sizes) == 5
    small = [bulk.Item(str(n), {"index": {}}, {"text": ""}) for n in range(1_001)]
    assert [len(batch) for batch in bulk.batches(small)] == [500, 500, 1]
    huge = bulk.Item("huge", {"index": {}}, {"text": "é" * bulk.BATCH_BYTES})
    assert [len(batch) for batch in bulk.batches([small[0], huge, small[1]])] == [1, 1, 1]


def test_a_connection_that_ends_after_the_commit_doubles_nothing(name, opensearch):
    dropped: list[Asked] = []

    def after(asked: Asked, given: Given) -> Given:
        if is_path(asked, "_bulk") and not dropped:
            dropped.append(asked)
            return DROP
        return given

    with Proxy(opensearch, after=after).running() as access:
        add(made(access, name), *(chunk(f"{n:02}") for n in range(20)))
    assert dropped
    assert found(index_at(opensearch, name)) == [f"{n:02}" for n in range(20)]


class Trouble:
    """Of all requests a share meets one of: 429, 503, half of its items refused, a reply that is lost."""

    def __init__(self, seed: int, share: float) -> None:
        self.random = random.Random(seed)
        self.share = share
        self.met: Counter[str] = Counter()

    def before(self, asked: Asked) -> Given | None:
        asked.headers["x-trouble"] = kind = self._kind(asked)
        if kind:
            self.met[kind] += 1
        if kind == "429":
            return error(429, "rejected_execution_exception", "queue is full")
        if kind == "503":
            return Given(503, b"<html>upstream</html>", "text/html")
        if kind == "partial":
            return self._partial(asked)
        return None

    def after(self, asked: Asked, given: Given) -> Given:
        return DROP if asked.headers["x-trouble"] == "lost" else given

    def _kind(self, asked: Asked) -> str:
        if self.random.random() >= self.share:
            return ""
        kinds = ["429", "503", "lost"]
        return self.random.choice([*kinds, "partial"] if is_path(asked, "_bulk") else kinds)

    def _partial(self, asked: Asked) -> Given:
        """Half of the items reach the server; the others are refused for want of room."""
        lines = asked.body.decode().splitlines()
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        kept = [self.random.random() < 0.5 for _ in pairs]
        items: list[object] = [
            {"index": {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "full"}}}
        ] * len(pairs)
        if any(kept):
            body = "".join(f"{action}\n{source}\n" for (action, source), keep in zip(pairs, kept, strict=True) if keep)
            reply = json.loads(self.proxy.passed_on(replace(asked, body=body.encode())).body)
            taken = iter(reply["items"])
            items = [next(taken) if keep else item for item, keep in zip(items, kept, strict=True)]
        return Given(200, json.dumps({"errors": True, "items": items}).encode())


def test_of_a_thousand_documents_each_is_there_once_or_reported(name, opensearch):
    trouble = Trouble(seed=7, share=0.3)
    proxy = Proxy(opensearch, before=trouble.before, after=trouble.after)
    trouble.proxy = proxy
    reported = []
    with proxy.running() as access:
        index = made(access, name)
        for at in range(0, 1_000, 10):
            batch = [chunk(f"{n:04}") for n in range(at, at + 10)]
            try:
                add(index, *batch)
            except DependencyFailed:
                reported += [one.doc_id for one in batch]
    assert set(trouble.met) == {"429", "503", "partial", "lost"}
    assert sum(trouble.met.values()) > 60
    assert len(reported) <= 20  # nearly all of them get through
    connection = Connection(opensearch)
    connection.call("POST", f"/{name}/_refresh")
    reply = connection.call("POST", f"/{name}/_search", {"size": 2_000, "_source": ["doc_id"]})
    counts = Counter(hit["_source"]["doc_id"] for hit in reply["hits"]["hits"])
    assert set(counts.values()) == {1}
    assert set(counts) | set(reported) == {f"{n:04}" for n in range(1_000)}
    index_at(opensearch, name).delete([GenerationKey("t", f"{n:04}", 1) for n in range(1_000)])
    assert connection.call("POST", f"/{name}/_count")["count"] == 0

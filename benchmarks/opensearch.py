"""The embedded index beside a real OpenSearch server, at 10k and 100k chunks; and the embedded one alone at 1M."""

from __future__ import annotations

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import OURS, Row, Samples, Unavailable, in_turns, seconds
from benchmarks.plan import Plan
from benchmarks.retrieval import Collection, multiplied, questions_and_vectors
from llamabda.adapters.opensearch import Access, Connection, Layout, OpenSearchIndex
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.index import SqliteIndex
from llamabda.endpoint import Endpoint
from llamabda.filters import Scope
from llamabda.ports import Index

SERVER = "OpenSearch, one node, HNSW (lucene)"
_TENANT = "bench"
_TOP = 10
_LIMIT = 300  # as a question asks for
_BATCH = 500  # chunks of one `add`
_TIMEOUT = 120.0  # seconds: merges of a whole index may come in between
_ALONE = 1_000_000


def run(plan: Plan) -> Iterator[Row]:
    address = os.environ.get("LLAMABDA_TEST_OPENSEARCH")
    if not address:
        raise Unavailable("LLAMABDA_TEST_OPENSEARCH names no OpenSearch server: `make opensearch` starts one")
    endpoint = Endpoint.parse(address)
    access = Access(endpoint.host, endpoint.port, endpoint.scheme == "https", endpoint.path, timeout=_TIMEOUT)
    originals, questions, asked = questions_and_vectors(plan)
    for size in (1_000,) if plan.quick else (10_000, 100_000):
        yield from _beside(plan, access, multiplied(plan, originals, size), questions, asked)
    if not plan.quick:
        yield from _alone(plan, multiplied(plan, originals, _ALONE), questions, asked)


def _beside(
    plan: Plan, access: Access, collection: Collection, questions: Sequence[str], asked: NDArray[np.float32]
) -> Iterator[Row]:
    label = _label(collection)
    name = f"bench-{secrets.token_hex(4)}"
    connection = Connection(access)
    dim = collection.vectors.shape[1]
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as folder:
        server = OpenSearchIndex(connection, name, dim=dim, layout=Layout("lucene", "l2"))
        server.make()
        indexes: dict[str, Index] = {OURS: _embedded(Path(folder), dim), SERVER: server}
        try:
            rates = {}
            for contender, index in indexes.items():
                plan.say(f"opensearch: {contender} takes {label}")
                rates[contender] = (len(collection.texts) / seconds(lambda index=index: _fill(index, collection)),)  # type: ignore[misc]  # bound now
            yield _row(f"indexing {label}, vectors given", "chunks/s", rates, higher=True)
            plan.say(f"opensearch: searching {label}")
            for index in indexes.values():
                _ask(index, questions, asked)  # warm-up
            spent: dict[str, list[float]] = {contender: [] for contender in indexes}

            def round_of(contender: str) -> float:
                taken = _ask(indexes[contender], questions, asked)
                spent[contender] += taken
                return statistics.median(taken)

            medians = in_turns({one: (lambda one=one: round_of(one)) for one in indexes}, plan.rounds)  # type: ignore[misc]  # bound now
            yield _row(f"both searches, {_LIMIT} each, {label}: p50", "ms", medians)
            slow = {one: (statistics.quantiles(values, n=20)[-1],) for one, values in spent.items()}
            yield _row(f"both searches, {_LIMIT} each, {label}: p95", "ms", slow)
            recalls = {one: (_recall(index, collection, asked),) for one, index in indexes.items()}
            yield _row(f"recall@{_TOP} against exact, {label}", "", recalls, higher=True)
        finally:
            connection.call("DELETE", f"/{name}*")
            connection.close()


def _alone(plan: Plan, collection: Collection, questions: Sequence[str], asked: NDArray[np.float32]) -> Iterator[Row]:
    label = _label(collection)
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as folder:
        index = _embedded(Path(folder), collection.vectors.shape[1])
        plan.say(f"opensearch: the embedded index takes {label}")
        rate = len(collection.texts) / seconds(lambda: _fill(index, collection))
        yield _row(f"indexing {label}, vectors given", "chunks/s", {OURS: (rate,)}, higher=True)
        _ask(index, questions, asked)
        spent = [_ask(index, questions, asked) for _ in range(plan.rounds)]
        medians = tuple(statistics.median(taken) for taken in spent)
        every = [value for taken in spent for value in taken]
        yield _row(f"both searches, {_LIMIT} each, {label}: p50", "ms", {OURS: medians})
        yield _row(
            f"both searches, {_LIMIT} each, {label}: p95", "ms", {OURS: (statistics.quantiles(every, n=20)[-1],)}
        )
        yield _row(
            f"recall@{_TOP} against exact, {label}", "", {OURS: (_recall(index, collection, asked),)}, higher=True
        )


def _embedded(folder: Path, dim: int) -> SqliteIndex:
    return SqliteIndex(Database(folder / "index.db", dependency="index"), cache=folder / "cache", dim=dim)


def _fill(index: Index, collection: Collection) -> None:
    """Until all of it can be searched."""
    size = len(collection.texts)
    for first in range(0, size, _BATCH):
        beyond = min(size, first + _BATCH)
        index.add(collection.chunks(first, beyond), collection.vectors[first:beyond])
    index.search("anything", collection.vectors[0], tenants=[_TENANT], scopes=[Scope(1)])


def _ask(index: Index, questions: Sequence[str], asked: NDArray[np.float32]) -> list[float]:
    """Milliseconds of each question."""
    spent = []
    for question, vector in zip(questions, asked, strict=True):
        began = time.perf_counter()
        index.search(question, vector, tenants=[_TENANT], scopes=[Scope(_LIMIT)])
        spent.append(1000 * (time.perf_counter() - began))
    return spent


def _recall(index: Index, collection: Collection, asked: NDArray[np.float32]) -> float:
    """Of the ten nearest, the share that the search for a question's candidates brings among its first ten."""
    shares = []
    for vector in asked:
        scores = collection.vectors @ vector
        exact = set(np.argpartition(scores, -_TOP)[-_TOP:].tolist())
        nearest = index.search("", vector, tenants=[_TENANT], scopes=[Scope(_LIMIT)])[0].nearest[:_TOP]
        shares.append(len(exact & {found.chunk.ordinal for found in nearest}) / _TOP)
    return statistics.mean(shares)


def _label(collection: Collection) -> str:
    size = len(collection.texts)
    return f"{size // 1_000_000}M chunks" if size >= 1_000_000 else f"{size // 1000}k chunks"


def _row(what: str, unit: str, found: dict[str, tuple[float, ...]], *, higher: bool = False) -> Row:
    rivals = tuple(Samples(name, values) for name, values in found.items() if name != OURS)
    return Row("opensearch", what, unit, Samples(OURS, found[OURS]), rivals, higher)

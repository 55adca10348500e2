"""One index of an OpenSearch cluster as the Index port."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda import filters, identifiers
from llamabda.adapters.opensearch import bulk, mapping, queries
from llamabda.adapters.opensearch.connection import Connection, Failed, lines, refused
from llamabda.adapters.opensearch.mapping import Layout, SpaceType
from llamabda.analysis import query_terms, tokens
from llamabda.errors import ConfigurationError, InvalidInput
from llamabda.filters import Filter
from llamabda.types import Chunk, Deadline, Found, GenerationKey, ScoredChunk, TextMatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE = 500  # chunks that are read at a time
DELETED = 500  # generations that are deleted at a time
_NOTHING = TextMatches((), 0.0)


class OpenSearchIndex:
    """Made on first use, with `layout`. `name`: the index; `owner` and `build` are kept in it.

    Everything is written through an alias that goes with the index: an index that somebody removed is reported, and not
    made anew by the next write without its mapping. BM25 takes the statistics of all tenants. Safe with threads and
    processes.
    """

    serverless = False

    def __init__(
        self, connection: Connection, name: str, *, dim: int, layout: Layout, owner: str = "", build: str = ""
    ) -> None:
        self._connection = connection
        self._name = name
        self._dim = dim
        self._layout = layout
        self._owner = owner
        self._build = build
        self._space: SpaceType | None = None  # None: not seen yet
        self._lock = threading.Lock()

    def add(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        if vectors.shape != (len(chunks), self._dim):
            raise InvalidInput(
                f"{len(chunks)} chunks need vectors of shape ({len(chunks)}, {self._dim}), not {vectors.shape}"
            )
        if not chunks:
            return
        self._opened()
        raw = np.ascontiguousarray(vectors, np.dtype("<f4"))
        former = self._former(chunks)
        self._write([self._item(chunk, vector) for chunk, vector in zip(chunks, raw, strict=True)])
        self._make_searchable(chunks, former)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        tenants: Sequence[str],
        limit: int,
        filter: Filter | None = None,
        deadline: Deadline | None = None,
    ) -> Found:
        if vector is not None and vector.shape != (self._dim,):
            raise InvalidInput(f"a query vector has the shape ({self._dim},), not {vector.shape}")
        terms = query_terms(text)
        asked = list(terms)[: queries.MAX_TERMS]
        if not tenants or limit < 1 or not (asked or vector is not None):
            return Found(_NOTHING, ())
        within = queries.readable(tenants, filter)
        searches = []
        if asked:
            searches += [queries.statistics(asked), queries.by_text(asked, within, limit)]
        if vector is not None:
            searches.append(queries.by_vector(vector, within, limit))
        deadline = deadline or self._connection.deadline()
        space = self._opened(deadline)
        replies = self._connection.patiently(partial(self._several, searches, deadline), deadline)
        matches = _NOTHING
        if asked:
            matches = TextMatches(_scored(replies[1]), _bound(replies[0], asked, terms))
        nearest = () if vector is None else _scored(replies[-1], space)
        return Found(matches, nearest)

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        return [_chunk(source) for source in self._sources(key, limit=limit, after=after, fields=queries.FIELDS)]

    def vectors(self, key: GenerationKey) -> tuple[Sequence[Chunk], NDArray[np.float32]]:
        sources = self._sources(key, limit=None, after=-1, fields=[*queries.FIELDS, "packed"])
        packed = b"".join(base64.b64decode(source["packed"]) for source in sources)
        return [_chunk(source) for source in sources], np.frombuffer(packed, np.dtype("<f4")).reshape(-1, self._dim)

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        every = list(keys)
        if not every or not self.there():
            return
        for at in range(0, len(every), DELETED):
            self._delete(every[at : at + DELETED])

    def make(self) -> None:
        """When it is not there yet."""
        self._opened()

    def there(self) -> bool:
        """Whether the index has been made."""
        return self._mapping(self._connection.deadline()) is not None

    def ping(self) -> None:
        self._opened(refresh=True)
        deadline = self._connection.deadline()
        health = self._connection.call("GET", f"/_cluster/health/{self._name}", deadline=deadline)
        if health.get("status") == "red":
            raise Failed("the index is red: some of its shards are not there")
        blocks = self._connection.call(
            "GET", f"/{self._name}/_settings/index.blocks.*", params={"flat_settings": "true"}, deadline=deadline
        )
        for settings in blocks.values():
            for block, value in settings.get("settings", {}).items():
                if str(value).lower() == "true":
                    raise Failed(f"the index takes no changes: {block} is set, as when its disks are almost full")
        self._several([{"size": 0, "query": {"match_all": {}}}], deadline)

    def _opened(self, deadline: Deadline | None = None, *, refresh: bool = False) -> SpaceType:
        """Makes the index when it is not there yet; tells how it measures nearness. ConfigurationError when the index
        that is there cannot hold these vectors."""
        if self._space is not None and not refresh:
            return self._space
        deadline = deadline or self._connection.deadline(requests=3.0)
        with self._lock:
            found = self._mapping(deadline)
            if found is None:
                if self._space is not None:
                    raise refused(404, {"error": {"type": "index_not_found_exception"}})
                self._make(deadline)
                found = self._mapping(deadline) or {}
            trouble = mapping.conflict(found, self._dim)
            if trouble:
                raise ConfigurationError(f"the index {self._name} cannot be used: {trouble}")
            self._space = mapping.space_of(found)
            return self._space

    def _mapping(self, deadline: Deadline) -> Mapping[str, Any] | None:
        try:
            found = self._connection.patiently(
                lambda: self._connection.call("GET", f"/{self._name}/_mapping", deadline=deadline), deadline
            )
        except Failed as exc:
            if exc.status == 404:
                return None
            raise
        return dict(next(iter(found.values()))["mappings"])

    def _make(self, deadline: Deadline) -> None:
        body = mapping.body(self._layout, self._dim, owner=self._owner, build=self._build, serverless=self.serverless)
        if not self.serverless:
            body["aliases"] = {self._writes: {}}
        try:
            self._connection.patiently(
                lambda: self._connection.call("PUT", f"/{self._name}", body, deadline=deadline), deadline
            )
        except Failed as exc:
            # another process, or our own request before it timed out
            if exc.kind != "resource_already_exists_exception":
                raise

    @property
    def _writes(self) -> str:
        return f"{self._name}-writes"

    def _item(self, chunk: Chunk, vector: NDArray[np.float32]) -> bulk.Item:
        name = queries.chunk_key(chunk)
        wanted = filters.terms(chunk.metadata) | identifiers.terms(chunk.doc_id, chunk.metadata)
        document = {
            "key": queries.generation_key(chunk.key),
            "chunk": name,
            "tenant": chunk.tenant,
            "doc_id": chunk.doc_id,
            "generation": chunk.generation,
            "ordinal": chunk.ordinal,
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.text,
            "sha256": chunk.sha256,
            "metadata": json.dumps(dict(chunk.metadata), ensure_ascii=True, allow_nan=False),
            "packed": base64.b64encode(vector.tobytes()).decode(),
            "terms": sorted(map(queries.term, wanted)),
            "body": " ".join(tokens(f"{chunk.context}\n{chunk.text}")),
            "vector": vector.tolist(),
        }
        return bulk.Item(f"chunk {chunk.ordinal} of {chunk.doc_id!r}", self._action(name), document)

    def _action(self, name: str) -> Mapping[str, Any]:
        return {"index": {"_id": name}}  # the same chunk, written twice, is there once

    def _former(self, chunks: Sequence[Chunk]) -> frozenset[str]:
        """The ids of what is there of these chunks, and is not replaced by writing them."""
        return frozenset()

    def _write(self, items: Sequence[bulk.Item]) -> None:
        bulk.write(self._connection, f"/{self._writes}/_bulk", items, params={"require_alias": "true"})

    def _make_searchable(self, chunks: Sequence[Chunk], former: frozenset[str]) -> None:
        deadline = self._connection.deadline(requests=3.0)
        self._connection.patiently(
            lambda: self._connection.call("POST", f"/{self._name}/_refresh", deadline=deadline), deadline
        )

    def _delete(self, keys: Sequence[GenerationKey]) -> None:
        deadline = self._connection.deadline(requests=3.0)
        self._connection.patiently(
            lambda: self._connection.call(
                "POST",
                f"/{self._name}/_delete_by_query",
                queries.of_generations(keys),
                params={"conflicts": "proceed", "refresh": "true"},
                deadline=deadline,
            ),
            deadline,
        )

    def _several(self, searches: Sequence[Mapping[str, Any]], deadline: Deadline) -> list[dict[str, Any]]:
        """In one round trip. Failed when any of them fails, or could not see all shards."""
        body = lines(*(line for search in searches for line in ({}, search)))
        # BM25 takes a shard's own statistics, unless those of all are collected first
        params = {"search_type": "dfs_query_then_fetch"} if self._layout.shards > 1 and not self.serverless else {}
        reply = self._connection.call("POST", f"/{self._name}/_msearch", body, params=params, deadline=deadline)
        return [_whole(one) for one in reply["responses"]]

    def _sources(
        self, key: GenerationKey, *, limit: int | None, after: int, fields: Sequence[str]
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        self._opened()
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            search = queries.of_generation(key, limit=size, after=after, fields=fields)
            deadline = self._connection.deadline()
            (reply,) = self._connection.patiently(partial(self._several, [search], deadline), deadline)
            page = [hit["_source"] for hit in reply["hits"]["hits"]]
            found += [one for at, one in enumerate(page) if not at or one["ordinal"] != page[at - 1]["ordinal"]]
            if len(page) < size:
                break
            after = int(page[-1]["ordinal"])
        return found


def _whole(reply: dict[str, Any]) -> dict[str, Any]:
    if "error" in reply:
        raise refused(int(reply.get("status", 0)), reply)
    shards = reply.get("_shards", {})
    if shards.get("failed"):
        reasons = [failure.get("reason", {}) for failure in shards.get("failures", ())]
        raise refused(503, {"error": {"type": "search_phase_execution_exception", "root_cause": reasons}})
    if reply.get("timed_out"):
        raise Failed("the index did not finish the search in time", status=503)
    return reply


def _scored(reply: Mapping[str, Any], space: SpaceType | None = None) -> tuple[ScoredChunk, ...]:
    """`space`: of scores that tell nearness, which become cosines."""
    found = []
    for hit in reply["hits"]["hits"]:
        score = float(hit["_score"])
        found.append(ScoredChunk(_chunk(hit["_source"]), score if space is None else mapping.cosine(score, space)))
    return tuple(found)


def _bound(reply: Mapping[str, Any], asked: Sequence[str], terms: Mapping[str, bool]) -> float:
    """The sum of the inverse document frequencies; a term that occurs nowhere counts where it carries content."""
    total = int(reply["hits"]["total"]["value"])
    if not total:
        return 0.0
    counts = [int(reply["aggregations"]["terms"]["buckets"][str(at)]["doc_count"]) for at in range(len(asked))]
    return sum(log1p((total - n + 0.5) / (n + 0.5)) for one, n in zip(asked, counts, strict=True) if n or terms[one])


def _chunk(source: Mapping[str, Any]) -> Chunk:
    return Chunk(
        tenant=source["tenant"],
        doc_id=source["doc_id"],
        generation=int(source["generation"]),
        ordinal=int(source["ordinal"]),
        start=int(source["start"]),
        end=int(source["end"]),
        text=source["text"],
        sha256=source["sha256"],
        metadata=json.loads(source["metadata"]),
    )

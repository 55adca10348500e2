"""One index of an OpenSearch cluster as the Index port."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from llamabda import filters, identifiers
from llamabda.adapters.opensearch import bulk, mapping, queries
from llamabda.adapters.opensearch.connection import Connection, Failed, lines, refused
from llamabda.adapters.opensearch.mapping import Layout, SpaceType
from llamabda.analysis import query_terms, tokens
from llamabda.errors import InvalidInput
from llamabda.filters import Scope
from llamabda.types import Chunk, Deadline, Found, GenerationKey, ScoredChunk, TextMatches

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE = 500  # chunks that are read at a time
DELETED = 200  # generations that are deleted at a time
PING_SECONDS = 3.0
POLL_SECONDS = 0.2  # the pace at which something that takes long is asked for
_NOTHING = TextMatches((), 0.0)


class OpenSearchIndex:
    """`name`: the index; `owner` and `build` are kept in it. `layout` is that of one that has yet to be made.

    Everything is written through an alias that goes with the index: one that somebody removed is reported, and not made
    anew by the next write without its mapping. BM25 takes the statistics of all tenants. Safe with threads and
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
        self._space: SpaceType | None = None  # None: not looked at yet
        self._shards = 1

    @property
    def dim(self) -> int:
        return self._dim

    def make(self) -> None:
        """So that the index is there. Failed when the one that is there cannot hold these vectors."""
        deadline = self._connection.deadline(requests=3.0)
        try:
            self._connection.patiently(lambda: self._look(deadline), deadline)
        except Failed as exc:
            if exc.status != 404:
                raise
            self._put(deadline)
            self._wait_until_made(deadline)

    def add(
        self, chunks: Sequence[Chunk], vectors: NDArray[np.float32], *, alive: Callable[[], None] = lambda: None
    ) -> None:
        if vectors.shape != (len(chunks), self._dim):
            raise InvalidInput(
                f"{len(chunks)} chunks need vectors of shape ({len(chunks)}, {self._dim}), not {vectors.shape}"
            )
        if not chunks:
            return
        self._known(self._connection.deadline())
        raw = np.ascontiguousarray(vectors, np.dtype("<f4"))
        self._write([self._item(chunk, vector) for chunk, vector in zip(chunks, raw, strict=True)], alive)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        tenants: Sequence[str],
        scopes: Sequence[Scope],
        deadline: Deadline | None = None,
    ) -> list[Found]:
        """All in one round trip."""
        if vector is not None and vector.shape != (self._dim,):
            raise InvalidInput(f"a query vector has the shape ({self._dim},), not {vector.shape}")
        terms = query_terms(text)
        asked = list(terms)[: queries.MAX_TERMS]
        if not tenants or not scopes or not (asked or vector is not None):
            return [Found() for _ in scopes]
        searches = [queries.statistics(asked)] if asked else []
        for scope in scopes:
            within = queries.readable(tenants, scope.filter)
            searches += [queries.by_text(asked, within, scope.limit)] if asked else []
            searches += [] if vector is None else [queries.by_vector(vector, within, scope.limit)]
        deadline = deadline or self._connection.deadline()
        space = self._known(deadline)
        replies = iter(self._connection.patiently(partial(self._several, searches, deadline), deadline))
        bound = _bound(next(replies), asked, terms) if asked else 0.0
        found = []
        for _ in scopes:
            matches = TextMatches(_scored(next(replies)), bound) if asked else _NOTHING
            found.append(Found(matches, () if vector is None else _scored(next(replies), space)))
        return found

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        return [_chunk(source) for source in self._sources(key, limit=limit, after=after, fields=queries.FIELDS)]

    def vectors(self, key: GenerationKey) -> tuple[Sequence[Chunk], NDArray[np.float32]]:
        sources = self._sources(key, limit=None, after=-1, fields=[*queries.FIELDS, "packed"])
        packed = b"".join(base64.b64decode(source["packed"]) for source in sources)
        return [_chunk(source) for source in sources], np.frombuffer(packed, np.dtype("<f4")).reshape(-1, self._dim)

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        every = list(keys)
        for at in range(0, len(every), DELETED):
            try:
                self._delete(every[at : at + DELETED])
            except Failed as exc:
                if exc.kind == "index_not_found_exception":
                    return
                raise

    def ping(self) -> None:
        deadline = Deadline.after(PING_SECONDS)
        self._look(deadline)
        health = self._connection.call("GET", f"/_cluster/health/{self._name}", deadline=deadline)
        if health.get("status") == "red":
            raise Failed("the index is red: some of its shards are not there")
        flat = {"flat_settings": "true"}
        index = self._connection.call("GET", f"/{self._name}/_settings/index.blocks.*", params=flat, deadline=deadline)
        cluster = self._connection.call("GET", "/_cluster/settings", params=flat, deadline=deadline)
        for settings in (*(one.get("settings", {}) for one in index.values()), *cluster.values()):
            for block, value in settings.items():
                if ".blocks." in block and str(value).lower() == "true":
                    raise Failed(f"the index takes no changes: {block} is set, as when its disks are almost full")
        self._several([{"size": 0, "query": {"match_all": {}}}], deadline)

    def _known(self, deadline: Deadline) -> SpaceType:
        """How the index measures nearness."""
        if self._space is None:
            self._connection.patiently(lambda: self._look(deadline), deadline)
        if self._space is None:
            raise AssertionError("what was looked at is known")
        return self._space

    def _look(self, deadline: Deadline) -> None:
        """Failed when the index is not there, or cannot hold these vectors."""
        reply = self._connection.call("GET", f"/{self._name}", deadline=deadline)
        if self._name not in reply:
            raise refused(404, {"error": {"type": "index_not_found_exception"}})
        found = reply[self._name]
        trouble = mapping.conflict(found.get("mappings", {}), self._dim)
        if trouble:
            raise Failed(
                f"the index {self._name} cannot be used: {trouble}; run `llamabda reindex --anew`", passing=False
            )
        self._space = mapping.space_of(found["mappings"])
        self._shards = int(found.get("settings", {}).get("index", {}).get("number_of_shards", 1))

    def _put(self, deadline: Deadline) -> None:
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

    def _wait_until_made(self, deadline: Deadline) -> None:
        while True:
            try:
                return self._look(deadline)
            except Failed as exc:
                if not (exc.status == 404 or exc.passing) or deadline.remaining() < POLL_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)

    @property
    def _writes(self) -> str:
        return f"{self._name}-writes"

    def _item(self, chunk: Chunk, vector: NDArray[np.float32]) -> bulk.Item:
        wanted = filters.terms(chunk.metadata) | identifiers.terms(chunk.doc_id, chunk.metadata)
        document = {
            "key": queries.generation_key(chunk.key),
            "chunk": queries.chunk_key(chunk),
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
        return bulk.Item(f"chunk {chunk.ordinal} of {chunk.doc_id!r}", {"index": {"_id": document["chunk"]}}, document)

    def _write(self, items: Sequence[bulk.Item], alive: Callable[[], None]) -> None:
        """Until they can be found. A chunk has its name for an id: written twice, it is there once."""
        params = {"require_alias": "true"}
        bulk.write(self._connection, f"/{self._writes}/_bulk", items, params=params, alive=alive)
        deadline = self._connection.deadline(requests=3.0)
        self._connection.patiently(partial(self._refresh, deadline), deadline)

    def _refresh(self, deadline: Deadline) -> None:
        reply = self._connection.call("POST", f"/{self._name}/_refresh", deadline=deadline)
        if reply.get("_shards", {}).get("failed"):
            raise Failed("the index cannot show what was written: a shard is not there", status=503)

    def _delete(self, keys: Sequence[GenerationKey]) -> None:
        """Until nothing of them is left: what changes meanwhile is left out by one pass."""
        deadline = self._connection.deadline(requests=6.0)
        # a task of the cluster, which ends some time even when nobody waits for it
        params = {"conflicts": "proceed", "refresh": "true", "wait_for_completion": "false"}
        while True:
            started = self._connection.patiently(
                lambda: self._connection.call(
                    "POST",
                    f"/{self._name}/_delete_by_query",
                    queries.of_generations(keys),
                    params=params,
                    deadline=deadline,
                ),
                deadline,
            )
            if not self._outcome(str(started.get("task")), deadline).get("version_conflicts"):
                return

    def _outcome(self, task: str, deadline: Deadline) -> Mapping[str, Any]:
        while True:
            reply = self._connection.patiently(
                lambda: self._connection.call("GET", f"/_tasks/{task}", deadline=deadline), deadline
            )
            if reply.get("completed"):
                if "error" in reply or reply.get("response", {}).get("failures"):
                    raise refused(503, reply)
                return dict(reply.get("response", {}))
            if deadline.remaining() < POLL_SECONDS:
                raise Failed("the index is still deleting")
            time.sleep(POLL_SECONDS / 10)

    def _several(self, searches: Sequence[Mapping[str, Any]], deadline: Deadline) -> list[dict[str, Any]]:
        """In one round trip. Failed when any of them fails, or could not see all shards."""
        body = lines(*(line for search in searches for line in ({}, search)))
        # BM25 takes a shard's own statistics, unless those of all are collected first
        params = {"search_type": "dfs_query_then_fetch"} if self._shards > 1 and not self.serverless else {}
        reply = self._connection.call("POST", f"/{self._name}/_msearch", body, params=params, deadline=deadline)
        replies = reply.get("responses")
        if not isinstance(replies, list) or len(replies) != len(searches):
            raise Failed(f"the index does not answer {len(searches)} searches")
        return [_whole(one) for one in replies]

    def _sources(
        self, key: GenerationKey, *, limit: int | None, after: int, fields: Sequence[str]
    ) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        self._known(self._connection.deadline())
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            search = queries.of_generation(key, limit=size, after=after, fields=fields)
            deadline = self._connection.deadline()
            (reply,) = self._connection.patiently(partial(self._several, [search], deadline), deadline)
            page = [hit["_source"] for hit in reply["hits"]["hits"]]
            found.update((int(source["ordinal"]), source) for source in page)
            if len(page) < size:
                break
            after = int(page[-1]["ordinal"])
        return list(found.values())


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
    """Each chunk once, though it may be there twice for a while. `space`: scores tell nearness, and become cosines."""
    found: dict[tuple[str, str], ScoredChunk] = {}
    for hit in reply["hits"]["hits"]:
        score, chunk = float(hit["_score"]), _chunk(hit["_source"])
        one = ScoredChunk(chunk, score if space is None else mapping.cosine(score, space))
        found.setdefault((chunk.tenant, chunk.id), one)
    return tuple(found.values())


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

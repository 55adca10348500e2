"""OpenSearch Serverless as the Index port: collections that take no ids, cannot be refreshed, nor delete by query."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from llamabda.adapters.opensearch import bulk, queries
from llamabda.adapters.opensearch.connection import Failed
from llamabda.adapters.opensearch.index import OpenSearchIndex
from llamabda.types import Chunk, GenerationKey

POLL_SECONDS = 0.5  # the pace at which a collection is asked whether it shows what was written
VISIBLE_SECONDS = 90.0  # after which it is given up; collections take up to 60
PAGE = 1_000  # documents
PART = 200  # chunks that are looked for together: some may be there several times


class ServerlessIndex(OpenSearchIndex):
    """A chunk's name is a field, so a chunk that was written twice (a reply was lost) is there twice, until both can be
    seen: then all but one are deleted."""

    serverless = True

    def ping(self) -> None:
        self._opened(refresh=True)
        self._several([{"size": 0, "query": {"match_all": {}}}], self._connection.deadline())

    def _action(self, name: str) -> Mapping[str, Any]:
        return {"index": {}}

    def _write(self, items: Sequence[bulk.Item]) -> None:
        bulk.write(self._connection, f"/{self._name}/_bulk", items, params={})

    def _former(self, chunks: Sequence[Chunk]) -> frozenset[str]:
        return frozenset(found for part in _parts(chunks) for found, _ in self._copies(_named(part)))

    def _make_searchable(self, chunks: Sequence[Chunk], former: frozenset[str]) -> None:
        for part in _parts(chunks):
            self._wait_for(part, former)

    def _wait_for(self, chunks: Sequence[Chunk], former: frozenset[str]) -> None:
        """Until each of them can be seen once, as it was written now. The others are removed."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        wanted = len({queries.chunk_key(chunk) for chunk in chunks})
        while True:
            copies = self._copies(_named(chunks))
            written = {name: found for found, name in copies if found not in former}
            superfluous = [found for found, name in copies if found != written.get(name)]
            if len(written) == wanted:
                if not superfluous:
                    return
                self._remove(superfluous)
            if time.monotonic() > deadline:
                raise Failed(f"the collection does not show what was written {VISIBLE_SECONDS:.0f} s ago")
            time.sleep(POLL_SECONDS)

    def _delete(self, keys: Sequence[GenerationKey]) -> None:
        query = queries.of_generations(keys)["query"]
        deadline = time.monotonic() + VISIBLE_SECONDS
        while copies := self._copies(query):
            self._remove([found for found, _ in copies])
            if time.monotonic() > deadline:
                raise Failed(f"the collection still shows what was deleted {VISIBLE_SECONDS:.0f} s ago")
            time.sleep(POLL_SECONDS)

    def _copies(self, query: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Ids and names of what a query finds, at most a page."""
        search = {"size": PAGE, "_source": ["chunk"], "track_total_hits": False, "query": query}
        deadline = self._connection.deadline()
        (reply,) = self._connection.patiently(partial(self._several, [search], deadline), deadline)
        return [(hit["_id"], hit["_source"]["chunk"]) for hit in reply["hits"]["hits"]]

    def _remove(self, ids: Sequence[str]) -> None:
        items = [bulk.Item(one, {"delete": {"_id": one}}) for one in ids]
        bulk.write(self._connection, f"/{self._name}/_bulk", items, params={})


def _parts(chunks: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    return (chunks[at : at + PART] for at in range(0, len(chunks), PART))


def _named(chunks: Sequence[Chunk]) -> dict[str, Any]:
    return {"terms": {"chunk": [queries.chunk_key(chunk) for chunk in chunks]}}

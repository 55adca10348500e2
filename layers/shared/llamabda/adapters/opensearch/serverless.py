"""OpenSearch Serverless as the Index port: collections that take no ids, cannot be refreshed, nor delete by query."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from llamabda.adapters.opensearch import bulk, queries
from llamabda.adapters.opensearch.connection import Failed
from llamabda.adapters.opensearch.index import PING_SECONDS, OpenSearchIndex
from llamabda.types import Deadline, GenerationKey

POLL_SECONDS = 0.5  # the pace at which a collection is asked whether it shows what was written
VISIBLE_SECONDS = 90.0  # after which it is given up; collections take up to 60
PAGE = 1_000  # documents
PART = 200  # chunks that are looked for together: some may be there several times


class ServerlessIndex(OpenSearchIndex):
    """A chunk's name is a field. A chunk that was written twice (a reply was lost, two wrote it) is there twice until
    both can be seen; then the one with the smallest id stays.

    So of copies that say the same, the very smallest is never removed by anybody, however late it shows.
    """

    serverless = True

    def ping(self) -> None:
        deadline = Deadline.after(PING_SECONDS)
        self._look(deadline)
        self._several([{"size": 0, "query": {"match_all": {}}}], deadline)

    def _write(self, items: Sequence[bulk.Item], alive: Callable[[], None]) -> None:
        # there is no alias that a write could ask for: a collection makes an index that is missing by itself
        self._look(self._connection.deadline())
        made = {str((item.document or {})["chunk"]): _digest(item) for item in items}
        unnamed = [
            replace(item, action={"index": {}}, document={**(item.document or {}), "made": _digest(item)})
            for item in items
        ]
        bulk.write(self._connection, f"/{self._name}/_bulk", unnamed, params={}, alive=alive)
        names = list(made)
        for at in range(0, len(names), PART):
            self._wait_for({name: made[name] for name in names[at : at + PART]}, alive)

    def _wait_for(self, made: Mapping[str, str], alive: Callable[[], None]) -> None:
        """Until each of these chunks can be seen as it was written now, and nothing else of it."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while True:
            alive()
            copies = self._copies({"terms": {"chunk": list(made)}})
            kept: dict[str, str] = {}
            for found, name, digest in copies:
                if digest == made[name]:
                    kept[name] = min(found, kept.get(name, found))
            superfluous = [found for found, name, _ in copies if name in kept and found != kept[name]]
            if len(kept) == len(made) and not superfluous:
                return
            self._remove(superfluous)
            if time.monotonic() > deadline:
                raise Failed(f"the collection does not show what was written {VISIBLE_SECONDS:.0f} s ago")
            time.sleep(POLL_SECONDS)

    def _delete(self, keys: Sequence[GenerationKey]) -> None:
        query = queries.of_generations(keys)["query"]
        deadline = time.monotonic() + VISIBLE_SECONDS
        removed: set[str] = set()
        while copies := self._copies(query):
            self._remove([found for found, _, _ in copies if found not in removed])
            removed |= {found for found, _, _ in copies}
            if time.monotonic() > deadline:
                raise Failed(f"the collection still shows what was deleted {VISIBLE_SECONDS:.0f} s ago")
            time.sleep(POLL_SECONDS)

    def _copies(self, query: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Ids, chunks' names and digests of what a query finds, at most a page."""
        search = {"size": PAGE, "_source": ["chunk", "made"], "track_total_hits": False, "query": query}
        deadline = self._connection.deadline()
        (reply,) = self._connection.patiently(partial(self._several, [search], deadline), deadline)
        return [(hit["_id"], hit["_source"]["chunk"], hit["_source"]["made"]) for hit in reply["hits"]["hits"]]

    def _remove(self, ids: Sequence[str]) -> None:
        items = [bulk.Item(one, {"delete": {"_id": one}}) for one in ids]
        bulk.write(self._connection, f"/{self._name}/_bulk", items, params={})


def _digest(item: bulk.Item) -> str:
    """Of what a copy says."""
    return sha256(item.lines().encode("utf-8", "replace")).hexdigest()[:40]

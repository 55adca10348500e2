"""Search: the chunks that fit a question, by words and by sense, of live documents only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamabda.errors import DependencyFailed
from llamabda.filters import Filter
from llamabda.fusion import fuse
from llamabda.ports import Catalog, Embedder, Index
from llamabda.types import Chunk, Deadline, Hit, ScoredChunk, TextMatches, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES = 300  # per search, at least: cranfield still gains a little from 100 to 400 (nDCG@10 .425 to .427)
CANDIDATES_PER_HIT = 4
ROUNDS = 3  # searches, each wider, while hits of replaced versions take the places of live ones
WIDER = 4


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`hits`: best first. `timings`: milliseconds of the stages embed and search."""

    hits: tuple[Hit, ...]
    timings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Search:
    index: Callable[[], Index]
    catalog: Catalog
    embedder: Callable[[], Embedder]

    def __call__(
        self,
        question: str,
        *,
        tenants: Sequence[str],
        top_k: int,
        weights: Weights | None = None,
        filter: Filter | None = None,
        deadline: Deadline,
    ) -> SearchResult:
        """At most `top_k` hits, fewer only when the tenants have no more that pass the filter.

        DependencyFailed when the deadline passed.
        """
        began = time.perf_counter()
        _in_time(deadline, "embedder")
        embedder = self.embedder()
        vector = embedder.embed_query(question)
        embedded = time.perf_counter()
        index = self.index()
        limit = max(CANDIDATES, CANDIDATES_PER_HIT * top_k)
        hits: list[Hit] = []
        for _ in range(ROUNDS):
            _in_time(deadline, "index")
            matches, nearest, dropped = self._live(index, question, vector, tenants, limit, filter)
            hits = fuse(matches, nearest, background=embedder.background, limit=top_k, weights=weights)
            if not dropped:
                break
            limit *= WIDER
        done = time.perf_counter()
        timings = {"embed": 1000 * (embedded - began), "search": 1000 * (done - embedded)}
        return SearchResult(tuple(hits), timings)

    def _live(
        self,
        index: Index,
        question: str,
        vector: NDArray[np.float32],
        tenants: Sequence[str],
        limit: int,
        filter: Filter | None,
    ) -> tuple[TextMatches, list[ScoredChunk], bool]:
        """Both searches without what is not live, and whether anything was not."""
        matches = index.search_text(question, tenants=tenants, limit=limit, filter=filter)
        nearest = index.search_vector(vector, tenants=tenants, limit=limit, filter=filter)
        found = [*matches.matches, *nearest]
        # asked after the searches: what went live in between is missed now and found by the next search
        live = self.catalog.live({(m.chunk.tenant, m.chunk.doc_id) for m in found})

        def is_live(chunk: Chunk) -> bool:
            return live.get((chunk.tenant, chunk.doc_id)) == chunk.generation

        kept_text = tuple(m for m in matches.matches if is_live(m.chunk))
        kept_near = [n for n in nearest if is_live(n.chunk)]
        dropped = len(kept_text) + len(kept_near) < len(found)
        return TextMatches(kept_text, matches.bound), kept_near, dropped


def _in_time(deadline: Deadline, dependency: str) -> None:
    if deadline.passed():
        raise DependencyFailed(f"the deadline passed before the {dependency} could answer", dependency=dependency)

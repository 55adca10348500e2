"""Search: the chunks that fit a question, by words and by sense, of live documents only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from llamabda import identifiers
from llamabda.errors import DependencyFailed
from llamabda.filters import And, Filter, Or, Scope
from llamabda.fusion import fuse
from llamabda.lookup import named_first
from llamabda.ports import Catalog, Embedder, Index, Reranker
from llamabda.reranking import RERANK_CANDIDATES, reranked
from llamabda.space import Space
from llamabda.types import Chunk, Deadline, Found, Hit, TextMatches, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("llamabda.search")

CANDIDATES = 300  # per search, at least: cranfield still gains a little from 100 to 400 (nDCG@10 .425 to .427)
CANDIDATES_PER_HIT = 4
ROUNDS = 3  # searches, each wider, while hits of replaced versions take the places of live ones
WIDER = 4


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`hits`: best first. `timings`: milliseconds of the stages embed, search and, where there is one, rerank.

    `embedder`: that of the cosines.
    """

    hits: tuple[Hit, ...]
    timings: Mapping[str, float]
    embedder: Embedder
    before: tuple[Hit, ...] | None = None  # the best as they were before a reranker changed their order

    @property
    def fused(self) -> tuple[Hit, ...]:
        """The best by words and by sense: whether a question can be answered does not depend on a reranker."""
        return self.hits if self.before is None else self.before


@dataclass(frozen=True, slots=True)
class Search:
    space: Callable[[], Space]
    catalog: Catalog
    reranker: Callable[[], Reranker | None] | None = None  # None, or what gives None: the order of the fusion stays

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

        Documents that are known by an id which stands in the question come first (`lookup.named_first`); an id that no
        document is known by changes nothing. A reranker then orders the others anew (`reranking.reranked`).
        DependencyFailed when the deadline passed before there was anything to show. When it passes while ids are looked
        up, the hits are those that are found without them.
        """
        began = time.perf_counter()
        _in_time(deadline, "embedder")
        space = self.space()
        embedder, index = space.embedder, space.index
        vector = embedder.embed_query(question)
        embedded = time.perf_counter()
        reranker = self.reranker() if self.reranker is not None else None
        best = top_k if reranker is None else max(top_k, RERANK_CANDIDATES)
        ask = _Asker(index, question, vector, tenants, deadline)
        plain = _Lookup(Scope(max(CANDIDATES, CANDIDATES_PER_HIT * top_k), filter))
        ids = identifiers.mentioned(question)
        probe = [_Lookup(Scope(1, _within(filter, Or(tuple(map(identifiers.known, ids))))))] if ids else []
        ask([plain, *probe])
        known = any(lookup.chunks() for lookup in probe)
        narrowed = _narrowed(ids, filter, CANDIDATES_PER_HIT * best) if known else []
        for _ in range(ROUNDS):
            ask([plain])
            try:
                ask(narrowed)
            except DependencyFailed as exc:
                log.warning("ids in the question are not looked up: %s", exc.message)
                narrowed = []  # what was found without the ids is better than nothing
            if not (lost := self._lost([plain, *narrowed])):
                break
            for lookup in lost:
                lookup.widen()
        fused = partial(fuse, background=embedder.background, ceiling=embedder.ceiling, weights=weights)
        hits: list[Hit] = fused(plain.live.texts, plain.live.nearest, limit=best)
        if narrowed:
            joined = _joined([lookup.live for lookup in narrowed], plain.live.texts.bound)
            every = len(joined.texts.matches) + len(joined.nearest)
            named = fused(joined.texts, joined.nearest, limit=every, whole=plain.live.texts)
            hits = named_first(ids, named, hits, limit=best)
        done = time.perf_counter()
        timings = {"embed": 1000 * (embedded - began), "search": 1000 * (done - embedded)}
        if reranker is None:
            return SearchResult(tuple(hits), timings, embedder)
        ordered = reranked(reranker, question, hits, limit=top_k, deadline=deadline)
        timings["rerank"] = 1000 * (time.perf_counter() - done)
        return SearchResult(tuple(ordered), timings, embedder, before=tuple(hits[:top_k]))

    def _lost(self, lookups: Sequence[_Lookup]) -> list[_Lookup]:
        """Takes from what was found what is not live, and tells which of the searches lost hits by it."""
        # asked once, after all searches, so that of no document two versions are shown; what went live in between is
        # missed now and found by the next search
        live = self.catalog.live({(c.tenant, c.doc_id) for lookup in lookups for c in lookup.chunks()})

        def is_live(chunk: Chunk) -> bool:
            return live.get((chunk.tenant, chunk.doc_id)) == chunk.generation

        return [lookup for lookup in lookups if lookup.keep(is_live)]


@dataclass(slots=True)
class _Lookup:
    """Both searches within one scope."""

    scope: Scope
    found: Found | None = None  # None: to be searched
    live: Found = field(default_factory=Found)

    def chunks(self) -> list[Chunk]:
        found = self.found or self.live
        return [one.chunk for one in (*found.texts.matches, *found.nearest)]

    def keep(self, is_live: Callable[[Chunk], bool]) -> bool:
        """Whether anything was found that is not live."""
        found = self.found or self.live
        self.live = Found(
            TextMatches(tuple(m for m in found.texts.matches if is_live(m.chunk)), found.texts.bound),
            tuple(n for n in found.nearest if is_live(n.chunk)),
        )
        return _size(self.live) < _size(found)

    def widen(self) -> None:
        self.scope = replace(self.scope, limit=WIDER * self.scope.limit)
        self.found = None


@dataclass(frozen=True, slots=True)
class _Asker:
    index: Index
    question: str
    vector: NDArray[np.float32]
    tenants: Sequence[str]
    deadline: Deadline

    def __call__(self, lookups: Sequence[_Lookup]) -> None:
        """Searches those that were not, all at once."""
        wanted = [lookup for lookup in lookups if lookup.found is None]
        if not wanted:
            return
        _in_time(self.deadline, "index")
        scopes = [lookup.scope for lookup in wanted]
        found = self.index.search(
            self.question, self.vector, tenants=self.tenants, scopes=scopes, deadline=self.deadline
        )
        for lookup, one in zip(wanted, found, strict=True):
            lookup.found = one


def _narrowed(ids: Sequence[str], filter: Filter | None, limit: int) -> list[_Lookup]:
    """What leads to the documents that are known by one of these ids.

    Each id is a search of its own, and once more for the documents that are this id: a thousand chunks that refer to
    something must not crowd out the one that is meant.
    """
    which = (identifiers.own, identifiers.known)
    return [_Lookup(Scope(limit, _within(filter, named(one)))) for one in ids for named in which]


def _within(filter: Filter | None, further: Filter) -> Filter:
    return further if filter is None else And((filter, further))


def _size(found: Found) -> int:
    return len(found.texts.matches) + len(found.nearest)


def _joined(searches: Sequence[Found], bound: float) -> Found:
    """What several searches found, each chunk once, best first."""
    texts = {(m.chunk.tenant, m.chunk.id): m for found in searches for m in found.texts.matches}
    nearest = {(n.chunk.tenant, n.chunk.id): n for found in searches for n in found.nearest}
    return Found(
        TextMatches(tuple(sorted(texts.values(), key=lambda found: -found.score)), bound),
        tuple(sorted(nearest.values(), key=lambda found: -found.score)),
    )


def _in_time(deadline: Deadline, dependency: str) -> None:
    if deadline.passed():
        raise DependencyFailed(f"the deadline passed before the {dependency} could answer", dependency=dependency)

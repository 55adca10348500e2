"""One tenant's chunks in memory: a few segments, searched exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llamabda.adapters.sqlite.scan import candidates
from llamabda.adapters.sqlite.segments import K1, B, Segment, merge

Mask: TypeAlias = tuple[NDArray[np.bool_], ...]  # per segment (n,)


@dataclass(frozen=True, slots=True)
class Shard:
    """An immutable view: a change makes a new one, so that readers never lock."""

    version: int = -1  # of the rows in SQLite that it shows
    segments: tuple[Segment, ...] = ()
    alive: Mask = ()  # rows that still exist

    @property
    def last_id(self) -> int:
        return int(self.segments[-1].ids[-1]) if self.segments else 0

    @property
    def rows(self) -> int:
        return sum(int(mask.sum()) for mask in self.alive)

    @property
    def total_length(self) -> float:
        """Terms in all living rows."""
        pairs = zip(self.segments, self.alive, strict=True)
        return float(sum(segment.lengths[mask].sum(dtype=np.float64) for segment, mask in pairs))

    def filtered(self, numbers: NDArray[np.int64]) -> Mask:
        """Living rows whose generation is among `numbers` (ascending)."""
        pairs = zip(self.segments, self.alive, strict=True)
        return tuple(mask & _contains(numbers, segment.numbers) for segment, mask in pairs)

    def extended(self, segment: Segment, version: int) -> Shard:
        """With new rows. Small segments are merged into their elders once they have grown to half their size."""
        segments = [*self.segments, segment]
        alive = [*self.alive, np.ones(len(segment), np.bool_)]
        while len(segments) > 1 and 2 * len(segments[-1]) >= len(segments[-2]):
            merged = merge(segments[-2:], alive[-2:])
            segments[-2:], alive[-2:] = [merged], [np.ones(len(merged), np.bool_)]
        kept = [at for at, part in enumerate(segments) if len(part)]
        return Shard(version, tuple(segments[at] for at in kept), tuple(alive[at] for at in kept))

    def restricted(self, ids: NDArray[np.int64], version: int) -> Shard:
        """Without the rows that are not among `ids` (ascending). A segment that is mostly dead is made anew."""
        segments, alive = [], []
        for segment in self.segments:
            mask = _contains(ids, segment.ids)
            living = int(mask.sum())
            if not living:
                continue
            mostly_dead = 2 * living < len(segment)
            segments.append(merge([segment], [mask]) if mostly_dead else segment)
            alive.append(np.ones(living, np.bool_) if mostly_dead else mask)
        return Shard(version, tuple(segments), tuple(alive))


def document_frequency(shards: Sequence[Shard], term: int) -> int:
    """Living rows that hold a term."""
    return sum(
        int(mask[segment.postings(term)[0]].sum())
        for shard in shards
        for segment, mask in zip(shard.segments, shard.alive, strict=True)
    )


def best_by_text(
    shards: Sequence[Shard], terms: Mapping[int, bool], limit: int, wanted: Sequence[Mask] | None = None
) -> tuple[list[tuple[int, float]], float]:
    """BM25 with the statistics of all these shards together, in Lucene's form: idf = ln(1 + (N - n + .5) / (n + .5)).

    `terms` says of each whether it carries content. Returns (row id, score) pairs, best first, and the bound that no
    row can exceed: the sum of the terms' idf. A term that no row holds counts when it carries content: small
    collections lack many of the words that every question has.

    `wanted`, per shard: the rows that may be returned; all living ones count in the statistics.
    """
    total = sum(shard.rows for shard in shards)
    if not total:
        return [], 0.0
    average = sum(shard.total_length for shard in shards) / total or 1.0
    frequencies = {term: document_frequency(shards, term) for term in terms}
    weights = {
        term: float(np.log1p((total - n + 0.5) / (n + 0.5))) for term, n in frequencies.items() if n or terms[term]
    }
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    for shard, masks in zip(shards, wanted or [shard.alive for shard in shards], strict=True):
        for segment, mask in zip(shard.segments, masks, strict=True):
            scores = np.zeros(len(segment), np.float32)
            norms = K1 * (1 - B + B * segment.lengths / np.float32(average))
            for term, weight in weights.items():
                rows, counts = segment.postings(term)
                frequency = counts.astype(np.float32)
                scores[rows] += weight * frequency / (frequency + norms[rows])
            scores[~mask] = 0.0
            scored = np.flatnonzero(scores)
            found.append((segment.ids[scored], scores[scored]))
    return _best(found, limit), sum(weights.values())


def best_by_vector(
    shards: Sequence[Shard], vector: NDArray[np.float32], limit: int, wanted: Sequence[Mask] | None = None
) -> list[tuple[int, float]]:
    """(row id, cosine) pairs, best first; the same as if every vector were compared. `wanted` as in `best_by_text`."""
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    for shard, masks in zip(shards, wanted or [shard.alive for shard in shards], strict=True):
        for segment, mask in zip(shard.segments, masks, strict=True):
            rows = candidates(vector, segment.codes, segment.scales, segment.residuals, limit, mask)
            found.append((segment.ids[rows], segment.vectors[rows] @ vector))
    return _best(found, limit)


def _best(found: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], limit: int) -> list[tuple[int, float]]:
    """Highest scores first; equal ones in order of id."""
    if not found or limit < 1:
        return []
    ids = np.concatenate([part[0] for part in found])
    scores = np.concatenate([part[1] for part in found])
    if len(ids) > limit:
        # all that reach the limit-th score, so that ties at the edge are cut by id and not by chance
        edge = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        keep = np.flatnonzero(scores >= edge)
        ids, scores = ids[keep], scores[keep]
    order = np.lexsort((ids, -scores))[:limit]
    return [(int(ids[at]), float(scores[at])) for at in order]


def _contains(sorted_ids: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(sorted_ids):
        return np.zeros(len(ids), np.bool_)
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return np.asarray(sorted_ids[at] == ids)

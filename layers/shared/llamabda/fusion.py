"""One list out of two searches. Pure; one default for every collection, language and embedder.

    score  = (1 - w) * text + w * vector
    text   = (BM25 / the query's best BM25) * min(1, 3 * coverage)
    vector = (cosine - background) / (ceiling - background), within [0, 1]

BM25 has no scale of its own, so it is measured against the query's best; but a best that found only a crumb of the
query must not count as much as one that found all of it. `coverage` tells them apart: the best BM25 over the highest
that any text could reach for this query. Cosines do have a scale, and min-max over the result list would throw it
away: they are measured from the cosine that unrelated texts have under this embedder to the one that the same text has
as a question and as a document.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamabda.types import Chunk, Hit, ScoredChunk, TextMatches, Weights

DEFAULT_WEIGHTS = Weights(text=0.4, vector=0.6)  # .5 to .65 differ by less than .01 nDCG@10
FULL_COVERAGE = 1 / 3  # a text with a third of the query's information is as good as words alone usually get


def fuse(
    matches: TextMatches,
    nearest: Sequence[ScoredChunk],
    *,
    background: float,
    ceiling: float = 1.0,
    limit: int,
    weights: Weights | None = None,
    whole: TextMatches | None = None,
) -> list[Hit]:
    """The best `limit` chunks of both searches as hits, best first; equal scores in order of id.

    `whole`: what the words find when the searches are not narrowed, for scores that compare with those of that search.
    `nearest` is taken best first. A chunk that only the words found is no nearer than the last of `nearest`; it counts
    as that near, which ranks better than counting it as unrelated.
    """
    share = weights or DEFAULT_WEIGHTS
    total = share.text + share.vector
    measure = whole or matches
    confidence = coverage(measure)
    best = measure.matches[0].score if measure.matches else 0.0
    words = {_identity(m.chunk): m for m in matches.matches}
    cosines = {_identity(n.chunk): n for n in nearest}
    farthest = nearest[-1].score if nearest else 0.0
    hits = []
    for identity, found in {**cosines, **words}.items():
        text = min(1.0, words[identity].score / best) * confidence if identity in words and best > 0 else 0.0
        cosine = cosines[identity].score if identity in cosines else 0.0
        near = above(cosine if identity in cosines else farthest, background, ceiling)
        score = (share.text * text + share.vector * near) / total
        hits.append(Hit(found.chunk, score, text_score=text, cosine=cosine))
    hits.sort(key=lambda hit: (-hit.score, hit.chunk.tenant, hit.chunk.doc_id, hit.chunk.generation, hit.chunk.ordinal))
    return hits[:limit]


def coverage(matches: TextMatches) -> float:
    """How much of the query its best text holds, in [0, 1]; 1 from a third of the bound on."""
    full = FULL_COVERAGE * matches.bound
    if not matches.matches or full <= 0:
        return 0.0
    return min(1.0, max(0.0, matches.matches[0].score) / full)


def above(cosine: float, background: float, ceiling: float = 1.0) -> float:
    """Where a cosine lies between unrelated texts (0) and the same text (1).

    A model that embeds questions and documents differently gives the same text less than 1: that is its ceiling.
    """
    return min(1.0, max(0.0, (cosine - background) / (ceiling - background)))


def _identity(chunk: Chunk) -> tuple[str, str, int, int]:
    return chunk.tenant, chunk.doc_id, chunk.generation, chunk.ordinal

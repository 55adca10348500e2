"""The best hits of a search in the order that a cross-encoder gives them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from llamabda.errors import LlamabdaError
from llamabda.ports import Reranker
from llamabda.types import Deadline, Hit

log = logging.getLogger("llamabda")

RERANK_CANDIDATES = 20  # hits that are read: with a model of MiniLM-L6's size about half a second on two processors
RERANK_SECONDS = 2.0  # at most
RERANK_SHARE = 0.25  # of the time that is left, at most: sentences are chosen and written after it


def reranked(
    reranker: Reranker, question: str, hits: Sequence[Hit], *, limit: int, deadline: Deadline
) -> Sequence[Hit]:
    """The best `limit` of these hits once RERANK_CANDIDATES of them are in the order of the reranker's scores.

    Hits whose documents an id in the question names stay at the top as they are, and are not read. Those that time does
    not suffice for, within RERANK_SECONDS and RERANK_SHARE of what is left, follow behind the others as they were: it
    is as if fewer had been candidates. When the reranker fails, however it does, all stay as they were.

    `Hit.score` of those that were read is 1 / (1 + exp(-score)). For scores to fall from the first to the last, those
    of hits above are raised to them and those of hits below lowered. `text_score` and `cosine` stay.
    """
    named = next((place for place, hit in enumerate(hits) if not hit.named), len(hits))
    head, candidates = hits[:named], hits[named : named + RERANK_CANDIDATES]
    if len(candidates) < 2 or named >= limit:
        return hits[:limit]
    until = Deadline.after(min(RERANK_SECONDS, RERANK_SHARE * deadline.remaining()))
    try:
        scores = reranker.scores(question, [hit.chunk.text for hit in candidates], deadline=until)
    except Exception as exc:  # noqa: BLE001  whatever it is: a better order is no reason to answer nothing
        log.warning("hits stay as they were found: %s", exc.message if isinstance(exc, LlamabdaError) else repr(exc))
        return hits[:limit]
    if len(scores) < 2:
        return hits[:limit]
    pairs = sorted(zip((float(score) for score in scores), candidates, strict=False), key=lambda pair: -pair[0])
    read = [replace(hit, score=_share(score)) for score, hit in pairs]
    most, least = read[0].score, read[-1].score
    above = [replace(hit, score=max(hit.score, most)) for hit in head]
    below = [replace(hit, score=min(hit.score, least)) for hit in hits[named + len(read) :]]
    return [*above, *read, *below][:limit]


def _share(score: float) -> float:
    """In [0, 1]; .5 for 0."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    grown = math.exp(max(score, -700.0))  # beyond it there are no floats
    return grown / (1.0 + grown)

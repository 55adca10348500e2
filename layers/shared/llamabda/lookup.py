"""Where hits stand whose documents the question names by an id. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llamabda.identifiers import Identity, identity
from llamabda.types import Hit


@dataclass(frozen=True, slots=True)
class _Named:
    """A hit and which of the asked ids its document has for its own, and which it has or refers to."""

    hit: Hit
    own: frozenset[str]
    known: frozenset[str]


def named_first(ids: Sequence[str], named: Sequence[Hit], others: Sequence[Hit], *, limit: int) -> list[Hit]:
    """At most `limit` hits: first those of `named` whose documents are known by one of `ids`, then `others`.

    Each id gets its best hit before any gets its second: one of the document that is this id, before one that refers to
    more of the ids, before one with a higher score. The rest of the named follows, those that are marked 2 in
    `Hit.named` first, in order of score.

    A hit's score is raised to that of the best one behind it, so that the scores still fall from the first to the last,
    stay within [0, 1], and are changed only where an id moved a hit.
    """
    found = _known(ids, named)
    asked = frozenset[str]().union(*(one.known for one in found))
    chosen: dict[tuple[str, str], _Named] = {}
    for identifier in ids:
        best = max(
            (one for one in found if identifier in one.known),
            key=lambda one: (identifier in one.own, len(one.known), one.hit.score),
            default=None,
        )
        if best is not None:
            chosen.setdefault(_place(best.hit), best)
    for one in sorted(found, key=lambda one: (-_strength(one, asked), -one.hit.score)):
        chosen.setdefault(_place(one.hit), one)
    first = [replace(one.hit, named=_strength(one, asked)) for one in chosen.values()]
    return _descending([*first, *(hit for hit in others if _place(hit) not in chosen)][:limit])


def _known(ids: Iterable[str], hits: Iterable[Hit]) -> list[_Named]:
    asked = frozenset(ids)
    known: dict[tuple[str, str, int], Identity] = {}
    found = []
    for hit in hits:
        chunk = hit.chunk
        key = chunk.tenant, chunk.doc_id, chunk.generation
        document = known.get(key) or known.setdefault(key, identity(chunk.doc_id, chunk.metadata))
        if asked & document.all:
            found.append(_Named(hit, asked & document.own, asked & document.all))
    return found


def _strength(one: _Named, asked: frozenset[str]) -> int:
    return 2 if one.own or (len(asked) > 1 and one.known == asked) else 1


def _descending(hits: list[Hit]) -> list[Hit]:
    least = 0.0
    raised = []
    for hit in reversed(hits):
        least = max(least, hit.score)
        raised.append(hit if hit.score == least else replace(hit, score=least))
    return raised[::-1]


def _place(hit: Hit) -> tuple[str, str]:
    return hit.chunk.tenant, hit.chunk.id

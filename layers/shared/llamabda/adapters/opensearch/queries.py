"""What is asked of an OpenSearch index, as its query language says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from llamabda.adapters.opensearch.mapping import EF
from llamabda.filters import And, Between, Filter, Has, Not, Or
from llamabda.types import Chunk, GenerationKey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIELDS = ["tenant", "doc_id", "generation", "ordinal", "start", "end", "text", "sha256", "metadata"]
MAX_RESULTS = 10_000  # of one search
MAX_TERMS = 512  # of one question: a query has at most 1,024 clauses, filters included
MAX_TERM_BYTES = 2_048  # a term cannot have more than 32,766
CANDIDATES = 3  # times the wanted number: a wider walk through the graph finds more of the nearest and costs little


def generation_key(key: GenerationKey) -> str:
    """Names a generation in one word: tenants and ids are of any length."""
    return _hash(key.tenant, key.doc_id, str(key.generation))


def chunk_key(chunk: Chunk) -> str:
    return _hash(chunk.tenant, chunk.doc_id, str(chunk.generation), str(chunk.ordinal))


def term(text: str) -> str:
    """A filter's term as it is kept. Of a very long one the beginning, so that it stays in order, and a hash."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_TERM_BYTES:
        return data.decode()
    return data[:MAX_TERM_BYTES].decode("utf-8", "ignore") + sha256(data).hexdigest()


def passing(filter: Filter) -> dict[str, Any]:
    match filter:
        case Has(wanted):
            return {"term": {"terms": term(wanted)}}
        case Between(low, high):
            return {"range": {"terms": {"gte": term(low), "lt": term(high)}}}
        case Not(part):
            return {"bool": {"must_not": [passing(part)]}}
        case And(parts):
            return {"bool": {"filter": [passing(part) for part in parts]}}
        case Or(parts):
            return {"bool": {"should": [passing(part) for part in parts], "minimum_should_match": 1}}


def readable(tenants: Sequence[str], filter: Filter | None) -> list[dict[str, Any]]:
    """What every hit must pass."""
    clauses: list[dict[str, Any]] = [{"terms": {"tenant": list(dict.fromkeys(tenants))}}]
    return clauses if filter is None else [*clauses, passing(filter)]


def by_text(terms: Sequence[str], within: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    return {
        "size": min(limit, MAX_RESULTS),
        "_source": FIELDS,
        "track_total_hits": False,
        "query": {
            "bool": {
                "should": [{"term": {"body": one}} for one in terms],
                "minimum_should_match": 1,
                "filter": list(within),
            }
        },
    }


def by_vector(vector: NDArray[np.float32], within: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    size = min(limit, MAX_RESULTS)
    candidates = min(max(CANDIDATES * size, EF), MAX_RESULTS)
    near = {"vector": vector.tolist(), "k": candidates, "filter": {"bool": {"filter": list(within)}}}
    return {"size": size, "_source": FIELDS, "track_total_hits": False, "query": {"knn": {"vector": near}}}


def statistics(terms: Sequence[str]) -> dict[str, Any]:
    """In how many chunks each term occurs, and how many there are: of all tenants, as BM25 counts them."""
    each = {str(at): {"term": {"body": one}} for at, one in enumerate(terms)}
    return {"size": 0, "track_total_hits": True, "aggs": {"terms": {"filters": {"filters": each}}}}


def of_generation(key: GenerationKey, *, limit: int, after: int, fields: Sequence[str] = FIELDS) -> dict[str, Any]:
    return {
        "size": limit,
        "_source": list(fields),
        "track_total_hits": False,
        "query": {"bool": {"filter": [{"term": {"key": generation_key(key)}}, {"range": {"ordinal": {"gt": after}}}]}},
        "sort": [{"ordinal": "asc"}],
    }


def of_generations(keys: Sequence[GenerationKey]) -> dict[str, Any]:
    return {"query": {"terms": {"key": [generation_key(key) for key in keys]}}}


def _hash(*parts: str) -> str:
    """No two lists of parts give the same."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:40]

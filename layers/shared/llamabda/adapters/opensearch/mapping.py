"""How chunks lie in an OpenSearch index: settings and mapping. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Engine: TypeAlias = Literal["faiss", "lucene"]
SpaceType: TypeAlias = Literal["l2", "cosinesimil", "innerproduct"]

VERSION = 1  # raised when an index of before cannot be gone on with
M = 16  # neighbours of a vector in the graph
EF = 128  # candidates while the graph is built, and at least as many while it is searched
K1, B = 1.2, 0.75  # BM25


@dataclass(frozen=True, slots=True)
class Layout:
    """What is chosen for all indexes of one cluster. Cosines come out of each engine and space alike."""

    engine: Engine = "faiss"
    space: SpaceType = "l2"
    shards: int = 1
    replicas: int = 0


def body(layout: Layout, dim: int, *, owner: str, build: str, serverless: bool = False) -> dict[str, Any]:
    """Of the request that makes an index. `owner`: the installation that it belongs to."""
    unsearched = {"type": "keyword", "index": False, "doc_values": False}
    index: dict[str, Any] = {
        "knn": True,
        "similarity": {"default": {"type": "BM25", "k1": K1, "b": B}},
        "analysis": {
            # terms come ready (llamabda.analysis), joined by blanks
            "tokenizer": {"blanks": {"type": "whitespace", "max_token_length": 1024}},
            "analyzer": {"terms": {"type": "custom", "tokenizer": "blanks"}},
        },
    }
    if not serverless:
        index["number_of_shards"] = layout.shards
        index["number_of_replicas"] = layout.replicas
        # a source without vectors needs none to be derived, and with engine lucene deriving them fails after merges
        index["knn.derived_source.enabled"] = False
    return {
        "settings": {"index": index},
        "mappings": {
            "dynamic": "strict",
            "_meta": {"llamabda": VERSION, "owner": owner, "build": build},
            "_source": {"excludes": ["vector", "body", "terms"]},
            "properties": {
                "key": {"type": "keyword"},  # names the generation
                "chunk": {"type": "keyword"},  # names the chunk
                "made": unsearched,  # a digest of the rest, where ids cannot be chosen
                "tenant": {"type": "keyword"},
                "doc_id": unsearched,
                "generation": {"type": "long", "index": False, "doc_values": False},
                "ordinal": {"type": "integer"},
                "start": {"type": "integer", "index": False, "doc_values": False},
                "end": {"type": "integer", "index": False, "doc_values": False},
                "text": unsearched,
                "sha256": unsearched,
                "metadata": unsearched,  # as JSON: numbers and nesting come back as they went in
                "packed": {"type": "binary"},  # the vector as it was given, float32
                "terms": {"type": "keyword"},  # of the metadata, for filters
                "body": {"type": "text", "analyzer": "terms", "index_options": "freqs"},
                "vector": {
                    "type": "knn_vector",
                    "dimension": dim,
                    "method": {
                        "name": "hnsw",
                        "engine": layout.engine,
                        "space_type": layout.space,
                        "parameters": {"m": M, "ef_construction": EF},
                    },
                },
            },
        },
    }


def conflict(found: Mapping[str, Any], dim: int) -> str:
    """What is wrong with the mapping of an index that is there; empty when it can be used."""
    version = found.get("_meta", {}).get("llamabda")
    if version is None:
        return "it was not made by Llamabda"
    if version != VERSION:
        return f"it was made by another version (layout {version}, this one knows {VERSION})"
    vector = found.get("properties", {}).get("vector", {})
    if vector.get("type") != "knn_vector" or vector.get("dimension") != dim:
        return f"it holds vectors of {vector.get('dimension', 'no')} numbers, the embedder makes {dim}"
    return ""


def space_of(found: Mapping[str, Any]) -> SpaceType:
    """How the index measures nearness, which may be another than the settings name now."""
    vector = found["properties"]["vector"]
    space: SpaceType = vector.get("method", {}).get("space_type") or vector.get("space_type") or "l2"
    return space


def cosine(score: float, space: SpaceType) -> float:
    """The cosine of two vectors of unit length, out of the score that OpenSearch gives their nearness."""
    if space == "l2":
        found = 1 - (1 / score - 1) / 2  # the score is 1 / (1 + distance squared)
    elif space == "cosinesimil":
        found = 2 * score - 1
    else:
        found = score - 1 if score >= 1 else 1 - 1 / score
    return min(1.0, max(-1.0, found))

"""Where items are in the table.

    pk                          sk                  what
    doc#<tenant>                the document's id   a document, or the tombstone of one
    gen#<tenant>#<SHA-256>      the generation      a version of the document whose id has this hash
    states#<tenant>             a shard             how many of its documents are in which state
    vectors#<shard>             count               how many of its documents are live, and have vectors in which build
    tenants                     the tenant          that there is one
    head                        head                builds, and what else there is one of

Counts are changed in the transactions that change documents, and two transactions cannot write one item at the same
time: so there are several, and a document's hash says which is its own.
"""

from __future__ import annotations

import hashlib

from llamabda.adapters.dynamodb.calls import Key
from llamabda.types import GenerationKey

SHARDS = 16  # of the counts. Never to be changed while there are documents.
DUE_SHARDS = 4  # partitions of the index `due` for each kind of what it holds

# A sort key has 1,024 bytes, an id up to 1,100 code points. A longer one is cut and has "#" and its hash behind it, 65
# bytes; so it is always longer than one that was not cut, and nobody can make an id that is another one's key.
WHOLE_BYTES = 959
HEAD = Key("head", "head")
TENANTS = "tenants"
SORT_KEY_BYTES = 1024


def document(tenant: str, doc_id: str) -> Key:
    return Key(documents(tenant), sort_key(doc_id))


def documents(tenant: str) -> str:
    return f"doc#{tenant}"


def sort_key(doc_id: str) -> str:
    """In order of id, as far as they are not cut."""
    encoded = doc_id.encode()
    if len(encoded) <= WHOLE_BYTES:
        return doc_id
    cut = encoded[:WHOLE_BYTES].decode(errors="ignore")  # what is left of a code point is left out
    return f"{cut}#{hashlib.sha256(encoded).hexdigest()}"


def generations(tenant: str, doc_id: str) -> str:
    return f"gen#{tenant}#{hashlib.sha256(doc_id.encode()).hexdigest()}"


def generation(key: GenerationKey) -> Key:
    return Key(generations(key.tenant, key.doc_id), nth(key.generation))


def nth(generation: int) -> str:
    return f"{generation:015d}"


def shard(tenant: str, doc_id: str) -> int:
    return hashlib.sha256(f"{tenant}\0{doc_id}".encode()).digest()[0] % SHARDS


def states(tenant: str, shard: int) -> Key:
    return Key(f"states#{tenant}", f"{shard:02d}")


def vectors(shard: int) -> Key:
    return Key(f"vectors#{shard:02d}", "count")


def tenant(name: str) -> Key:
    return Key(TENANTS, name)


def due(kind: str, shard: int) -> str:
    return f"{kind}#{shard % DUE_SHARDS}"

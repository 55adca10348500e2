"""Fills the home that LLAMABDA_HOME names with chunks of real texts: `python -m benchmarks.home COUNT`.

Only the first texts are embedded, the other vectors are theirs with a little noise: seconds, not minutes.
"""

from __future__ import annotations

import sys
from hashlib import sha256

import numpy as np

from benchmarks import corpus
from llamabda import wiring
from llamabda.types import SHARED_TENANT, Chunk, GenerationKey

_PER_DOCUMENT = 50
EMBEDDED = 300
_NOISE = 0.02


def main() -> None:
    count = int(sys.argv[1])
    texts = corpus.load()
    embedder = wiring.space().embedder
    originals = embedder.embed_documents(texts.texts(min(EMBEDDED, len(texts.documents))))
    pieces = texts.windows(count, documents=len(originals))
    owners = np.array([number for number, _ in pieces])
    draw = np.random.default_rng(5)
    vectors = originals[owners] + draw.normal(0, _NOISE, (count, embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for first in range(0, count, _PER_DOCUMENT):
        part = slice(first, min(count, first + _PER_DOCUMENT))
        _document(f"bench-{first}", [text for _, text in pieces[part]], vectors[part].astype(np.float32))


def _document(name: str, texts: list[str], vectors: np.typing.NDArray[np.float32]) -> None:
    source = "\n\n".join(texts)
    digest = sha256(source.encode()).hexdigest()
    generation = wiring.catalog().begin(SHARED_TENANT, name, source="bench", metadata={})
    if generation is None:
        raise AssertionError("a document without a sequencer always begins")
    key = GenerationKey(SHARED_TENANT, name, generation)
    wiring.texts().put(key, source)
    chunks, start = [], 0
    for ordinal, text in enumerate(texts):
        chunks.append(Chunk(SHARED_TENANT, name, generation, ordinal, start, start + len(text), text, digest, {}))
        start += len(text) + 2
    space = wiring.space()
    space.index.add(chunks, vectors)
    wiring.catalog().commit(
        key,
        source="bench",
        metadata={},
        sha256=digest,
        size=len(source.encode()),
        chunks=len(chunks),
        build=space.build,
    )


if __name__ == "__main__":
    main()

"""A document on its way into the index: its chunks, and their vectors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from llamabda.chunking import Chunking, split
from llamabda.ports import Embedder
from llamabda.sentences import opening
from llamabda.space import Space
from llamabda.types import Chunk, Document, GenerationKey, Pending

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIPELINE = 1  # raised when chunks or vectors of the same text come out otherwise
BATCH_CHUNKS = 64  # chunks embedded and indexed together: bounds memory, keeps all threads busy

_MARKDOWN_NAME = re.compile(r"\.(md|markdown|mdx)$", re.IGNORECASE)
_MARKDOWN_TEXT = re.compile(r"^(#{1,6} \S|```)", re.MULTILINE)

Known = Mapping[tuple[str, str], "NDArray[np.float32]"]  # context and text of a chunk: its vector (dim,)


@dataclass(frozen=True, slots=True)
class Prepared:
    key: GenerationKey
    pending: Pending
    recipe: str
    sha256: str
    size: int  # bytes of UTF-8
    chunks: tuple[Chunk, ...]


def instructions(chunking: Chunking) -> str:
    """How a document is to be made, in the form in which a catalog keeps it."""
    return json.dumps({"chunk_size": chunking.size, "chunk_overlap": chunking.overlap})


def prepare(key: GenerationKey, pending: Pending, text: str) -> Prepared:
    """Cuts a text."""
    wanted = json.loads(pending.instructions or "{}")
    usual = Chunking()
    chunking = Chunking(wanted.get("chunk_size", usual.size), wanted.get("chunk_overlap", usual.overlap))
    data = text.encode()
    digest = sha256(data).hexdigest()
    context = opening(text)
    markdown = bool(_MARKDOWN_NAME.search(pending.source or key.doc_id) or _MARKDOWN_TEXT.search(text))
    chunks = tuple(
        Chunk(
            tenant=key.tenant,
            doc_id=key.doc_id,
            generation=key.generation,
            ordinal=ordinal,
            start=span.start,
            end=span.end,
            text=text[span.start : span.end],
            sha256=digest,
            metadata=pending.metadata,
            context=context if ordinal else "",  # the first chunk says it itself
        )
        for ordinal, span in enumerate(split(text, chunking, markdown=markdown))
    )
    recipe = f"{PIPELINE}:{chunking.size}/{chunking.overlap}"
    return Prepared(key, pending, recipe, digest, len(data), chunks)


def again(document: Document, text: str) -> Prepared:
    """Cuts the text of a document that is live as it was cut before."""
    if document.generation is None:
        raise AssertionError("a document that is not live has no text")
    cut = re.fullmatch(r"\d+:(\d+)/(\d+)", document.recipe)
    chunking = Chunking() if cut is None else Chunking(int(cut[1]), int(cut[2]))  # none: from before it was kept
    pending = Pending(document.source, document.metadata, instructions(chunking), None)
    return prepare(GenerationKey(document.tenant, document.id, document.generation), pending, text)


def index(
    batch: Sequence[Prepared], space: Space, *, known: Known | None = None, alive: Callable[[], None] = lambda: None
) -> int:
    """Makes the chunks of documents searchable that are not yet; returns how many those were.

    `alive` is called every few seconds; what it raises ends the work, which can be gone on with later.
    """
    chunks: list[Chunk] = []
    for prepared in batch:
        # what an interrupted attempt has indexed already
        there = {chunk.ordinal for chunk in space.index.chunks(prepared.key, limit=len(prepared.chunks))}
        chunks += [chunk for chunk in prepared.chunks if chunk.ordinal not in there]
    for at in range(0, len(chunks), BATCH_CHUNKS):
        alive()
        part = chunks[at : at + BATCH_CHUNKS]
        space.index.add(part, embed(part, space.embedder, known or {}), alive=alive)
    return len(chunks)


def known_vectors(chunks: Sequence[Chunk], vectors: NDArray[np.float32], *, text: str) -> Known:
    """The vectors of a generation that is indexed already. `text`: its whole text."""
    context = opening(text)
    return {
        (context if chunk.ordinal else "", chunk.text): vector for chunk, vector in zip(chunks, vectors, strict=True)
    }


def embed(chunks: Sequence[Chunk], embedder: Embedder, known: Known) -> NDArray[np.float32]:
    """(n, dim), unit length: midway between what a chunk says alone and what it says under its document's opening.

    Alone, a later chunk seldom tells what it is about; under the opening, the chunks of a document are too alike.
    Those that are `known` are not computed again.
    """
    new = [chunk for chunk in chunks if (chunk.context, chunk.text) not in known]
    vectors = dict(known)
    if new:
        vectors.update(zip(((chunk.context, chunk.text) for chunk in new), _embedded(new, embedder), strict=True))
    return np.stack([vectors[chunk.context, chunk.text] for chunk in chunks])


def _embedded(chunks: Sequence[Chunk], embedder: Embedder) -> NDArray[np.float32]:
    later = [row for row, chunk in enumerate(chunks) if chunk.context]
    found = embedder.embed_documents(
        [
            *(chunk.text for chunk in chunks),
            *(f"{chunks[row].context}\n{chunks[row].text}" for row in later),
        ]
    )
    vectors = found[: len(chunks)].copy()
    vectors[later] += found[len(chunks) :]
    length: NDArray[np.float32] = (vectors * vectors).sum(axis=1, keepdims=True) ** 0.5
    return vectors / length

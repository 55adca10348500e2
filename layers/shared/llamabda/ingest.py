"""Use case: documents go in whole or not at all.

Each ingestion writes a new generation of a document (its text, its chunks), makes it searchable, and only then makes
it live by one conditional write in the catalog. Whatever stops it half-way, readers go on seeing the former
generation; what was half-written is garbage, which is swept later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from llamabda.chunking import Chunking, split
from llamabda.errors import DependencyFailed, Gone, InvalidInput, LlamabdaError, NotFound
from llamabda.ports import Catalog, Embedder, Index, TextStore
from llamabda.sentences import opening
from llamabda.types import Chunk, DocState, Document, GenerationKey, NewDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRACE = timedelta(seconds=60)  # a reader that saw a generation live may still fetch its text this much later
ABANDONED = timedelta(hours=1)  # longer than any ingestion takes: one that began earlier has died
BATCH_CHUNKS = 64  # chunks embedded and indexed together: bounds memory, keeps all threads busy

_MARKDOWN_NAME = re.compile(r"\.(md|markdown|mdx)$", re.IGNORECASE)
_MARKDOWN_TEXT = re.compile(r"^(#{1,6} \S|```)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of one document. `chunks` and `generation` are those that readers see now."""

    id: str
    state: DocState
    chunks: int
    generation: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    document: NewDocument
    key: GenerationKey
    sha256: str
    size: int  # bytes of UTF-8
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Ingest:
    """Writes and reads documents of one or more tenants. `embedder` is called late: loading a model takes a while."""

    catalog: Catalog
    index: Callable[[], Index]
    texts: TextStore
    embedder: Callable[[], Embedder]

    def train(
        self,
        tenant: str,
        documents: Sequence[NewDocument],
        *,
        chunking: Chunking,
        progress: Callable[[Trained], None] | None = None,
    ) -> list[Trained]:
        """Makes documents answerable, in the order given; each on its own, so that one failure leaves the others.

        Raises InvalidInput, before anything is written, when a text is empty or not Unicode, or an id occurs twice.
        """
        for at, document in enumerate(documents):
            _check(document, at)
        _check_distinct(documents)
        results: list[Trained] = []
        batch: list[_Prepared] = []
        for document in documents:
            batch.append(self._prepare(tenant, document, chunking))
            if sum(len(prepared.chunks) for prepared in batch) >= BATCH_CHUNKS:
                results += self._finish(batch, progress)
                batch = []
        results += self._finish(batch, progress)
        self.sweep()
        return results

    def delete(self, tenant: str, doc_id: str) -> None:
        """Readers stop seeing the document at once. Raises NotFound."""
        if not self.catalog.delete(tenant, doc_id):
            raise NotFound(f"there is no document {doc_id[:100]!r}")

    def document(self, tenants: Sequence[str], doc_id: str) -> Document:
        """The caller's own document before a shared one of that id. Raises NotFound."""
        for tenant in tenants:
            found = self.catalog.get(tenant, doc_id)
            if found is not None:
                return found
        raise NotFound(f"there is no document {doc_id[:100]!r}")

    def source(self, tenants: Sequence[str], doc_id: str, generation: int | None) -> tuple[str, GenerationKey]:
        """The text that citations of a generation point into; the live one's when `generation` is None.

        Raises NotFound, or Gone when that generation has been replaced.
        """
        key = self._live(tenants, doc_id)
        if generation is not None and generation != key.generation:
            if 0 < generation < key.generation:
                message = f"generation {generation} of {doc_id[:100]!r} has been replaced by {key.generation}"
                raise Gone(message)
            raise NotFound(f"there is no generation {generation} of {doc_id[:100]!r}")
        text = self.texts.get(key)
        if text is None:
            message = f"the text of {doc_id[:100]!r}, generation {key.generation}, is missing; train it again"
            raise DependencyFailed(message, dependency="texts")
        return text, key

    def chunks(
        self, tenants: Sequence[str], doc_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """A page of a live document's chunks in order, and the cursor of the next page.

        Raises NotFound; InvalidInput for a foreign cursor; Gone when the document was replaced between two pages.
        """
        key = self._live(tenants, doc_id)
        after = -1
        if cursor is not None:
            parsed = re.fullmatch(r"(\d{1,18})\.(\d{1,18})", cursor, re.ASCII)
            if parsed is None:
                message = f"cursor {cursor[:100]!r} is not one that a listing returned"
                raise InvalidInput(message, loc=("query", "cursor"), value=cursor)
            if int(parsed[1]) != key.generation:
                message = (
                    f"{doc_id[:100]!r} was replaced by generation {key.generation}: list its chunks from the start"
                )
                raise Gone(message)
            after = int(parsed[2])
        found = list(self.index().chunks(key, limit=limit + 1, after=after))
        page = found[:limit]
        return page, f"{key.generation}.{page[-1].ordinal}" if len(found) > limit else None

    def sweep(self) -> int:
        """Removes what no reader can still want; returns how many generations went."""
        now = datetime.now(UTC)
        keys = self.catalog.garbage(before=now - GRACE, abandoned_before=now - ABANDONED)
        if keys:
            self.index().delete(keys)
            self.texts.delete(keys)
            self.catalog.swept(keys)  # last: a crash before it only means that the same is deleted again
        return len(keys)

    def _live(self, tenants: Sequence[str], doc_id: str) -> GenerationKey:
        document = self.document(tenants, doc_id)
        if document.generation is None:
            raise NotFound(f"document {doc_id[:100]!r} has no searchable version yet: it is {document.state}")
        return GenerationKey(document.tenant, document.id, document.generation)

    def _prepare(self, tenant: str, document: NewDocument, chunking: Chunking) -> _Prepared:
        generation = self.catalog.begin(tenant, document.id, source=document.source, metadata=document.metadata)
        if generation is None:
            raise AssertionError("a write without a sequencer is never superseded at its beginning")
        key = GenerationKey(tenant, document.id, generation)
        data = document.text.encode()
        digest = sha256(data).hexdigest()
        context = opening(document.text)
        markdown = bool(_MARKDOWN_NAME.search(document.source or document.id) or _MARKDOWN_TEXT.search(document.text))
        chunks = tuple(
            Chunk(
                tenant=tenant,
                doc_id=document.id,
                generation=generation,
                ordinal=ordinal,
                start=span.start,
                end=span.end,
                text=document.text[span.start : span.end],
                sha256=digest,
                metadata=document.metadata,
                context=context if ordinal else "",  # the first chunk says it itself
            )
            for ordinal, span in enumerate(split(document.text, chunking, markdown=markdown))
        )
        return _Prepared(document, key, digest, len(data), chunks)

    def _finish(self, batch: Sequence[_Prepared], progress: Callable[[Trained], None] | None) -> Iterator[Trained]:
        """Indexes a batch together; when that fails, each document alone, so that only the culprits fail."""
        if not batch:
            return
        failures: dict[GenerationKey, str] = {}
        try:
            self._index(batch)
        except LlamabdaError as exc:
            for prepared in batch:
                try:
                    if len(batch) == 1:
                        raise exc
                    self._index([prepared])
                except LlamabdaError as own:
                    failures[prepared.key] = own.message
        for prepared in batch:
            result = self._settle(prepared, failures.get(prepared.key))
            if progress is not None:
                progress(result)
            yield result

    def _index(self, batch: Sequence[_Prepared]) -> None:
        chunks = [chunk for prepared in batch for chunk in prepared.chunks]
        for prepared in batch:
            self.texts.put(prepared.key, prepared.document.text)
        for at in range(0, len(chunks), BATCH_CHUNKS):
            part = chunks[at : at + BATCH_CHUNKS]
            self.index().add(part, self._vectors(part))

    def _vectors(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """(n, dim), unit length: midway between what a chunk says alone and what it says under its document's opening.

        Alone, a later chunk seldom tells what it is about; under the opening, the chunks of a document are too alike.
        """
        later = [row for row, chunk in enumerate(chunks) if chunk.context]
        found = self.embedder().embed_documents(
            [
                *(chunk.text for chunk in chunks),
                *(f"{chunks[row].context}\n{chunks[row].text}" for row in later),
            ]
        )
        vectors = found[: len(chunks)].copy()
        vectors[later] += found[len(chunks) :]
        length: NDArray[np.float32] = (vectors * vectors).sum(axis=1, keepdims=True) ** 0.5
        return vectors / length

    def _settle(self, prepared: _Prepared, failure: str | None) -> Trained:
        document, key = prepared.document, prepared.key
        if failure is None:
            self.catalog.commit(
                key,
                source=document.source,
                metadata=document.metadata,
                sha256=prepared.sha256,
                size=prepared.size,
                chunks=len(prepared.chunks),
            )
        else:
            self.catalog.fail(key, failure)
        now = self.catalog.get(key.tenant, key.doc_id)
        if now is None:
            return Trained(document.id, "failed", 0, None, "the document was deleted while it was being trained")
        if failure is not None:
            return Trained(document.id, "failed", now.chunks, now.generation, failure)
        return Trained(document.id, "ready", now.chunks, now.generation, None)


def _check(document: NewDocument, at: int) -> None:
    loc = ("body", "docs", at, "text")
    if not document.text.strip():
        raise InvalidInput(f"document {document.id[:100]!r} has no text: nothing could ever be found in it", loc=loc)
    try:
        document.text.encode()
    except UnicodeEncodeError as exc:
        message = f"the text of {document.id[:100]!r} holds a lone surrogate at position {exc.start}: it is not Unicode"
        raise InvalidInput(message, loc=loc) from exc


def _check_distinct(documents: Sequence[NewDocument]) -> None:
    seen: set[str] = set()
    for at, document in enumerate(documents):
        if document.id in seen:
            message = f"the id {document.id[:100]!r} occurs twice in this request"
            raise InvalidInput(message, loc=("body", "docs", at, "id"), value=document.id)
        seen.add(document.id)

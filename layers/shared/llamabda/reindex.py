"""Use case: every document gets vectors of another embedding model, beside the old ones, and then readers change over.

Documents keep their generation, and citations stay what they are: only vectors are made, from the stored texts. It may
be stopped at any time and goes on where it was. What is trained, replaced or deleted meanwhile is taken into account:
readers change over in one write, and only when no document is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llamabda.errors import LlamabdaError
from llamabda.ports import Catalog, Embedder, Embeddings, Indexes, TextStore
from llamabda.preparation import BATCH_CHUNKS, Prepared, again, index
from llamabda.space import Space
from llamabda.types import Embedding, EmbeddingModel, GenerationKey

log = logging.getLogger("llamabda.reindex")

PAGE = 50  # documents asked for at a time
MOST_FAILURES = 20  # one after the other: then it is not the documents


@dataclass(frozen=True, slots=True)
class Progress:
    documents: int  # made in this run
    left: int  # about; documents without vectors of the new model
    chunks: int  # made in this run


@dataclass(frozen=True, slots=True)
class Reindexed:
    """`failed`: documents that could not be made, with the reason; `adopted`: whether readers use the new model."""

    build: str
    documents: int
    chunks: int
    failed: tuple[tuple[GenerationKey, str], ...]
    adopted: bool


@dataclass(slots=True)
class _Run:
    space: Space
    documents: int = 0
    chunks: int = 0
    failed: list[tuple[GenerationKey, str]] = field(default_factory=list)
    in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class Reindex:
    catalog: Catalog
    texts: TextStore
    indexes: Indexes
    embeddings: Embeddings

    def __call__(
        self,
        embedder: Embedder,
        model: EmbeddingModel,
        *,
        anew: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Reindexed:
        """Makes the embedder's vectors of all live documents, and then makes them the ones that readers search.

        `anew`: into a new index, though the model's own may be there.

        A document that cannot be made holds back the change; the others are made all the same.
        """
        build = self.embeddings.begin(Embedding(embedder.fingerprint, model), anew=anew).name
        if self.embeddings.moved(self.indexes.place) or not self.indexes.there(build):
            self.embeddings.lost(build)
        self.indexes.make(build, embedder.dim)
        run = _Run(Space(build, embedder, self.indexes.open(build, embedder.dim)))
        while True:
            run.failed.clear()
            left, before = self.embeddings.left(build), run.documents
            after: GenerationKey | None = None
            while keys := self.embeddings.unmade(build, limit=PAGE, after=after):
                after = keys[-1]
                for batch in self._batches(keys, run):
                    self._make(batch, run)
                    progress(Progress(run.documents, max(0, left - (run.documents - before)), run.chunks))
                if run.in_a_row >= MOST_FAILURES:
                    return Reindexed(build, run.documents, run.chunks, tuple(run.failed), adopted=False)
            if self.embeddings.adopt(build):
                self.indexes.publish(build)
                return Reindexed(build, run.documents, run.chunks, (), adopted=True)
            if run.failed:
                return Reindexed(build, run.documents, run.chunks, tuple(run.failed), adopted=False)
            # documents were trained while the last ones were made: once more

    def _batches(self, keys: Sequence[GenerationKey], run: _Run) -> Iterator[list[Prepared]]:
        batch: list[Prepared] = []
        for key in keys:
            text = self.texts.get(key)
            document = self.catalog.get(key.tenant, key.doc_id)
            if document is None or document.generation != key.generation:
                continue  # replaced or deleted meanwhile
            if text is None:
                run.failed.append((key, "its text is missing: train it again, or delete it"))
                continue
            batch.append(again(document, text))
            if sum(len(prepared.chunks) for prepared in batch) >= BATCH_CHUNKS:
                yield batch
                batch = []
        if batch:
            yield batch

    def _make(self, batch: Sequence[Prepared], run: _Run) -> None:
        """Makes the vectors of some documents; when that fails, of each alone."""
        keys = [prepared.key for prepared in batch]
        try:
            added = index(batch, run.space)
            self.embeddings.made(keys, run.space.build)
        except LlamabdaError as exc:
            if len(batch) > 1:
                for prepared in batch:
                    self._make([prepared], run)
                return
            log.warning("%r of %s cannot be made: %s", keys[0].doc_id, keys[0].tenant, exc.message)
            run.failed.append((keys[0], exc.public))
            run.in_a_row += 1
        else:
            run.documents, run.chunks, run.in_a_row = run.documents + len(keys), run.chunks + added, 0
        finally:
            # what was replaced or deleted while it was made may have been swept from the indexes already
            live = self.catalog.live({(key.tenant, key.doc_id) for key in keys})
            gone = [key for key in keys if live.get((key.tenant, key.doc_id)) != key.generation]
            if gone:
                run.space.index.delete(gone)

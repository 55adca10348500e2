"""Use case: every document gets vectors of another embedding model, beside the old ones, and then readers change over.

Documents keep their generation, and citations stay what they are: only vectors are made, from the stored texts. It may
be stopped at any time and goes on where it was. What is trained, replaced or deleted meanwhile is taken into account:
readers change over in one write, and only when no document is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamabda.errors import LlamabdaError
from llamabda.ports import Catalog, Embeddings, TextStore
from llamabda.preparation import Prepared, again, index
from llamabda.space import Space
from llamabda.types import GenerationKey

log = logging.getLogger("llamabda.reindex")

BATCH_DOCUMENTS = 50
BATCH_CHUNKS = 64  # as in an ingestion


@dataclass(frozen=True, slots=True)
class Progress:
    documents: int  # made in this run
    left: int  # documents that readers see and that have no vectors of the new model yet
    chunks: int  # made in this run


@dataclass(frozen=True, slots=True)
class Reindexed:
    """`failed`: documents that could not be made, with the reason; `adopted`: whether readers use the new model."""

    documents: int
    chunks: int
    failed: tuple[tuple[GenerationKey, str], ...]
    adopted: bool


@dataclass(frozen=True, slots=True)
class Reindex:
    catalog: Catalog
    texts: TextStore
    embeddings: Embeddings

    def __call__(self, space: Space, *, progress: Callable[[Progress], None] = lambda _: None) -> Reindexed:
        """Fills the space's index and makes its embedding the one that readers use.

        A document that cannot be made holds back the change; the others are made all the same.
        """
        documents = chunks = 0
        while True:
            failed: list[tuple[GenerationKey, str]] = []
            after: GenerationKey | None = None
            while keys := self.embeddings.unmade(space.fingerprint, limit=BATCH_DOCUMENTS, after=after):
                after = keys[-1]
                for batch in self._batches(keys, failed):
                    made, added = self._make(batch, space, failed)
                    documents, chunks = documents + made, chunks + added
                    progress(Progress(documents, self.embeddings.left(space.fingerprint), chunks))
            if failed:
                return Reindexed(documents, chunks, tuple(failed), adopted=False)
            if self.embeddings.adopt(space.embedding):
                return Reindexed(documents, chunks, (), adopted=True)
            # documents were trained while the last ones were made: once more

    def _batches(
        self, keys: Sequence[GenerationKey], failed: list[tuple[GenerationKey, str]]
    ) -> Sequence[Sequence[Prepared]]:
        batches: list[list[Prepared]] = [[]]
        for key in keys:
            text = self.texts.get(key)
            document = self.catalog.get(key.tenant, key.doc_id)
            if document is None or document.generation != key.generation:
                continue  # replaced or deleted meanwhile
            if text is None:
                failed.append((key, "its text is missing: train it again, or delete it"))
                continue
            if sum(len(prepared.chunks) for prepared in batches[-1]) >= BATCH_CHUNKS:
                batches.append([])
            batches[-1].append(again(document, text))
        return [batch for batch in batches if batch]

    def _make(
        self, batch: Sequence[Prepared], space: Space, failed: list[tuple[GenerationKey, str]]
    ) -> tuple[int, int]:
        """Makes the vectors of some documents; when that fails, of each alone. How many documents and chunks."""
        keys = [prepared.key for prepared in batch]
        try:
            added = index(batch, space)
        except LlamabdaError as exc:
            if len(batch) > 1:
                parts = [self._make([prepared], space, failed) for prepared in batch]
                return sum(made for made, _ in parts), sum(added for _, added in parts)
            log.warning("%r of %s cannot be made: %s", keys[0].doc_id, keys[0].tenant, exc.message)
            failed.append((keys[0], exc.public))
            return 0, 0
        self.embeddings.made(keys, space.fingerprint)
        live = self.catalog.live({(key.tenant, key.doc_id) for key in keys})
        # what was replaced or deleted while it was made may have been swept from the indexes already
        space.index.delete([key for key in keys if live.get((key.tenant, key.doc_id)) != key.generation])
        return len(keys), added

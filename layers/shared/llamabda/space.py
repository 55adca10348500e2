"""An embedding model and the index of its vectors: of use only together."""

from __future__ import annotations

from dataclasses import dataclass

from llamabda.ports import Embedder, Index
from llamabda.types import Embedding, EmbeddingModel


@dataclass(frozen=True, slots=True)
class Space:
    """`model`: how the embedder was named. The index holds vectors of this embedder only."""

    model: EmbeddingModel
    embedder: Embedder
    index: Index

    @property
    def fingerprint(self) -> str:
        return self.embedder.fingerprint

    @property
    def embedding(self) -> Embedding:
        return Embedding(self.fingerprint, self.model)

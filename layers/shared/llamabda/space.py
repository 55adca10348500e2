"""An embedding model and the index of its vectors: of use only together."""

from __future__ import annotations

from dataclasses import dataclass

from llamabda.ports import Embedder, Index


@dataclass(frozen=True, slots=True)
class Space:
    """The index holds vectors of this embedder only. `build` names it (see `types.Build`)."""

    build: str
    embedder: Embedder
    index: Index

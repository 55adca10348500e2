"""Stand-ins that a reader can compute by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


class WordEmbedder:
    """A vector counts the words of a text, each at the place that its hash gives: equal words, cosine 1; none, 0."""

    dim = 256
    fingerprint = "words-256"
    background = 0.1
    ceiling = 1.0
    languages: tuple[str, ...] = ()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self.embed_query(text) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.dim, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()) or [""]:
            vector[self.place(word)] += 1
        return vector / np.float32(np.linalg.norm(vector))

    def place(self, word: str) -> int:
        """Where a word counts."""
        return int.from_bytes(sha256(word.encode()).digest()[:4], "big") % self.dim

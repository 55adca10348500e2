"""Stand-ins for the ports that Search and Ask use, simple enough to work out by hand what they return."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from llamabda.errors import Busy
from llamabda.filters import Filter, Scope
from llamabda.ports import Index
from llamabda.space import Space
from llamabda.types import Chunk, Deadline, Found, GenerationKey, Prompt, ScoredChunk, TextMatches

FEW_WORDS = re.compile(r"(an?|and|are|did|does|do|in|is|it|of|on|or|the|to|was|were|what|when|where|which|who)")


def vocabulary(text: str) -> list[str]:
    """Lower-case words without the commonest ones."""
    return [word for word in re.findall(r"\w+", text.lower()) if not FEW_WORDS.fullmatch(word)]


def chunk(doc_id: str, text: str, *, tenant: str = "t", generation: int = 1, ordinal: int = 0) -> Chunk:
    digest = sha256(text.encode()).hexdigest()
    return Chunk(tenant, doc_id, generation, ordinal, 0, len(text), text, digest, {})


class WordEmbedder:
    """A dimension for each word, so that the cosine of two texts is the overlap of their words."""

    dim = 4096
    fingerprint = "words"
    background = 0.0
    ceiling = 1.0
    languages: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.embedded: list[str] = []

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self.embed_documents([text])[0]

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in vocabulary(text) or ["nothing"]:
                vectors[row, self.known.setdefault(word, len(self.known))] = 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class WordIndex:
    """Scores a chunk by how many of the query's words it holds; every word weighs 1, so the bound is their number."""

    def __init__(self, embedder: WordEmbedder, chunks: Iterable[Chunk] = ()) -> None:
        self.embedder = embedder
        self.stored = list(chunks)
        self.limits: list[int] = []
        self.filters: list[Filter | None] = []  # as they came in; none of them is obeyed

    def add(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        self.stored.extend(chunks)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        tenants: Sequence[str],
        scopes: Sequence[Scope],
        deadline: Deadline | None = None,
    ) -> list[Found]:
        self.filters.extend(scope.filter for scope in scopes)
        self.limits.extend(scope.limit for scope in scopes)
        wanted = set(vocabulary(text))
        scored = [ScoredChunk(c, float(len(wanted & set(vocabulary(c.text))))) for c in self._of(tenants)]
        matches = sorted((s for s in scored if s.score > 0), key=lambda s: -s.score)
        near = [ScoredChunk(c, float(self.embedder.embed_query(c.text) @ vector)) for c in self._of(tenants)]
        near.sort(key=lambda s: -s.score)
        bound = float(len(wanted)) if matches else 0.0
        return [
            Found(TextMatches(tuple(matches[: scope.limit]), bound), tuple(near[: scope.limit])) for scope in scopes
        ]

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        return [c for c in self.stored if c.key == key and c.ordinal > after][:limit]

    def vectors(self, key: GenerationKey) -> tuple[Sequence[Chunk], NDArray[np.float32]]:
        found = [c for c in self.stored if c.key == key]
        return found, self.embedder.embed_documents([c.text for c in found])

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        gone = set(keys)
        self.stored = [c for c in self.stored if c.key not in gone]

    def ping(self) -> None:
        return None

    def _of(self, tenants: Sequence[str]) -> list[Chunk]:
        return [c for c in self.stored if c.tenant in tenants]


def word_space(embedder: WordEmbedder, index: object) -> Space:
    return Space("words", embedder, index)  # type: ignore[arg-type]  # any index of a test


@dataclass
class LiveGenerations:
    """The part of a catalog that readers use."""

    generations: dict[tuple[str, str], int] = field(default_factory=dict)
    asked: int = 0

    def live(self, documents: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        self.asked += 1
        return {key: self.generations[key] for key in documents if key in self.generations}


@dataclass
class Scripted:
    """A running completion of a text that is known before."""

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 7
    cached_tokens: int = 3
    completion_tokens: int = 5
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    given: int = 0
    closed: bool = False
    fails: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.text), 4):
            self.given = start + 4
            yield self.text[start : start + 4]
        if self.fails is not None:
            raise self.fails

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedGenerator:
    """Writes `text` whatever it is asked; `busy` refuses, `fails` breaks after the text."""

    text: str = ""
    name: str = "scripted"
    context_size: int = 2048
    busy: bool = False
    fails: Exception | None = None
    finish_reason: str = "stop"
    prompts: list[Prompt] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
    running: list[Scripted] = field(default_factory=list)

    def count_tokens(self, text: str) -> int:
        return math.ceil(len(text) / 4)

    def generate(self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline) -> Scripted:
        if self.busy:
            raise Busy("the queue before the model is full", retry_after=3)
        self.prompts.append(prompt)
        self.deadlines.append(deadline)
        self.running.append(Scripted(self.text, finish_reason=self.finish_reason, fails=self.fails))
        return self.running[-1]


def by_words(index: Index, query: str, *, limit: int = 1000) -> tuple[ScoredChunk, ...]:
    """What the words find of tenant "t"."""
    (found,) = index.search(query, None, tenants=("t",), scopes=[Scope(limit)])
    return found.texts.matches

"""The vocabulary: frozen values that every other module speaks in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

SHARED_TENANT = "shared"  # readable by everyone; only the CLI and the bucket write it

DocState: TypeAlias = Literal["queued", "processing", "ready", "failed"]
Mode: TypeAlias = Literal["auto", "extractive", "generated"]
Role: TypeAlias = Literal["admin", "member"]
Registration: TypeAlias = Literal["open", "invite", "closed"]
FinishReason: TypeAlias = Literal["stop", "length", "deadline"]
Metadata: TypeAlias = Mapping[str, object]  # JSON object: keys are strings, values are JSON values


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock by which a reply must be on its way."""

    at: float  # seconds, time.monotonic()

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        return time.monotonic() >= self.at


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of code points in a text: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """An embedding model as the settings name it."""

    name: str
    backend: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """A model as it made vectors: vectors of different fingerprints must not be compared."""

    fingerprint: str
    model: EmbeddingModel


@dataclass(frozen=True, slots=True)
class Build:
    """One making of the vectors of all documents. `name` is never given again, and is that of its index, too."""

    name: str
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document as it is handed in. `text` is the whole text; citations point into exactly this string."""

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)
    source: str = "api"  # where it came from: "api", "file:<name>", "s3://bucket/key"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a bucket, whole."""

    data: bytes
    etag: str
    version: str | None  # of a bucket that keeps versions
    content_type: str  # as whoever put it there said
    modified_at: datetime  # UTC


@dataclass(frozen=True, slots=True)
class Document:
    """What the catalog knows about a document.

    `state` speaks of the latest ingestion; `generation`, `sha256`, `bytes` and `chunks` of what readers see now
    (`generation` is None until a first one went live). A re-ingestion that fails leaves the old generation live.
    """

    tenant: str
    id: str
    source: str
    state: DocState
    generation: int | None
    sha256: str  # of the UTF-8 bytes of the whole live text, hex
    bytes: int  # length of that UTF-8
    chunks: int
    metadata: Metadata
    error: str | None
    created_at: datetime  # UTC
    updated_at: datetime  # UTC
    recipe: str = ""  # how the live chunks were made
    sequencer: str | None = None  # of the source's latest event that is settled


@dataclass(frozen=True, slots=True)
class Pending:
    """What is known of a generation that is still to be made."""

    source: str
    metadata: Metadata
    instructions: str  # as they were given to `begin`
    sequencer: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece of work that one worker has for a while. `receipt` proves that it still has it."""

    key: GenerationKey
    receipt: str
    attempts: int  # how often it was taken, this time included


@dataclass(frozen=True, slots=True)
class DocumentPage:
    documents: tuple[Document, ...]
    counts: Mapping[str, int]  # documents of this tenant per state, all pages
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class GenerationKey:
    """One version of one document."""

    tenant: str
    doc_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text, as the index keeps it. `text == source_text[start:end]`."""

    tenant: str
    doc_id: str
    generation: int
    ordinal: int  # 0-based place within the document
    start: int  # code points
    end: int
    text: str
    sha256: str  # of the whole source text of this generation
    metadata: Metadata
    context: str = field(default="", compare=False)  # words that find this chunk too; searched, but never given back

    @property
    def id(self) -> str:
        """Unique within a tenant."""
        return f"{self.doc_id}#{self.generation}.{self.ordinal}"

    @property
    def key(self) -> GenerationKey:
        return GenerationKey(self.tenant, self.doc_id, self.generation)


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """`score`: higher is better. BM25 for text searches, cosine in [-1, 1] for vector searches."""

    chunk: Chunk
    score: float


@dataclass(frozen=True, slots=True)
class TextMatches:
    """The answer of a text search, best first.

    `bound` is the highest BM25 score that any text could reach for this query: the sum of the inverse document
    frequencies of its distinct terms (times k1 + 1 where the scores carry that factor). A term that nothing holds
    counts too, and most, unless it is a function word: a question full of unknown words is covered badly. 0 for an
    empty collection or query.
    """

    matches: tuple[ScoredChunk, ...]
    bound: float


@dataclass(frozen=True, slots=True)
class Found:
    """What an index has for a question: by its words, and the nearest by its vector, best first."""

    texts: TextMatches = TextMatches((), 0.0)
    nearest: tuple[ScoredChunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved chunk. `score`: in [0, 1], higher is better, comparable within one result list only."""

    chunk: Chunk
    score: float
    text_score: float = 0.0  # the text part of the fused score, in [0, 1]
    cosine: float = 0.0  # cosine of question and chunk, in [-1, 1]; 0 when the vector search did not return it
    # How the ids in the question name the chunk's document: 2 when one is the document's own, or when it refers to all
    # of several; 1 when it refers to one; 0 not at all.
    named: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """`n` is the number that stands in the answer as `[n]`."""

    n: int
    hit: Hit


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    cached_tokens: int = 0  # prompt tokens whose state was re-used
    completion_tokens: int = 0
    gb_seconds: float | None = None  # on Lambda: run time so far times memory
    estimated_cost_usd: float | None = None  # of these and the request, by the table of prices


@dataclass(frozen=True, slots=True)
class Reply:
    """`answered` is False when nothing retrieved supports an answer; then `answer` says so and `citations` is empty."""

    answer: str
    answered: bool
    mode: Literal["generated", "extractive"]
    finish_reason: FinishReason
    citations: tuple[Citation, ...]
    model: str | None  # name of the generator's model; None when none took part
    usage: Usage
    timings: Mapping[str, float]  # milliseconds per stage: embed, search, rerank, prefill, decode, total


@dataclass(frozen=True, slots=True)
class Prompt:
    """The segments of a chat, kept apart so that each can be tokenized on its own and data is never parsed as control.

    The generator lays them out as its model's chat template wants: `system` and the passages that fit, then `question`.
    """

    system: str  # instructions; the same for every question in a language, so that its state can be re-used
    passages: tuple[str, ...]  # numbered, best first; the first ones that fit into the context are used
    question: str


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each search counts in the fused score; both >= 0, not both 0."""

    text: float
    vector: float


@dataclass(frozen=True, slots=True)
class User:
    username: str
    tenant: str
    role: Role
    password_hash: str = field(repr=False)
    disabled: bool
    created_at: datetime  # UTC
    credentials: int = 0  # tokens carry this number; those that carry another one are refused


@dataclass(frozen=True, slots=True)
class Invite:
    """Lets one person register in a tenant. Only the SHA-256 of what they are sent is kept."""

    digest: str
    tenant: str
    role: Role
    created_by: str  # a username, or "" for the command line
    expires_at: float  # epoch seconds


@dataclass(frozen=True, slots=True)
class Session:
    """A chain of refresh tokens that began with one login. Only the SHA-256 of its newest token is kept."""

    id: str
    username: str
    digest: str
    expires_at: float  # epoch seconds
    credentials: int = 0  # the user's when it began: when theirs is another one, the session is worth nothing


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as a verified token says."""

    username: str
    tenant: str
    credentials: int = 0

    @property
    def readable(self) -> tuple[str, ...]:
        """The tenants whose documents this caller may read."""
        return (self.tenant,) if self.tenant == SHARED_TENANT else (self.tenant, SHARED_TENANT)

"""The JSON shapes that several endpoints share, and how they are made from our own values."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import PydanticCustomError

from llamabda import filters, types
from llamabda.filters import Filter

DOC_ID_CHARS = 512
BUCKET_PREFIX = "s3:"  # ids of what the bucket holds; only the bucket writes them


def _no_controls(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise PydanticCustomError("control_characters", "must not hold control characters")
    return text


def _writable(doc_id: str) -> str:
    if doc_id.startswith(BUCKET_PREFIX):
        raise PydanticCustomError("reserved_id", "must not start with 's3:': such documents are written by the bucket")
    return _no_controls(doc_id)


def _question(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    if any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in text):
        raise PydanticCustomError("control_characters", "must not hold control characters")
    return text


# Longer than a writable id: "s3:" and a key of up to 1,024 bytes.
DocId = Annotated[str, Field(min_length=1, max_length=1_100), AfterValidator(_no_controls)]
WritableDocId = Annotated[str, Field(min_length=1, max_length=DOC_ID_CHARS), AfterValidator(_writable)]
Question = Annotated[str, AfterValidator(_question)]
Meta = dict[str, JsonValue]


class Body(BaseModel):
    """A request body: nothing unknown, no guessing at types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """Query parameters: nothing unknown; numbers arrive as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(Body):
    """How much each search counts in the fused score."""

    text: float = Field(ge=0, le=1_000)
    vector: float = Field(ge=0, le=1_000)

    def value(self) -> types.Weights:
        return types.Weights(self.text, self.vector)


def _some_weight(weights: Weights) -> Weights:
    if weights.text == 0 and weights.vector == 0:
        raise PydanticCustomError("no_weight", "text and vector must not both be 0")
    return weights


FusionWeights = Annotated[Weights, AfterValidator(_some_weight)]


class Filtered(Body):
    """A request that may leave out documents by their metadata."""

    filter: Meta | None = Field(
        default=None,
        description="Metadata that documents must have: `$eq $ne $in $gt $gte $lt $lte $exists $and $or`; a bare value "
        "means `$eq`.",
        examples=[{"lang": "pt", "year": {"$gte": 2025}}],
    )

    def wanted(self) -> Filter | None:
        """InvalidInput, with the path to the place, when it is malformed."""
        return None if self.filter is None else filters.parse(self.filter)


class Health(BaseModel):
    status: Literal["ok"]


class Doc(BaseModel):
    """`state` speaks of the latest ingestion, `generation`, `sha256`, `bytes`, `chunks` of what readers see."""

    id: str
    source: str
    state: types.DocState
    generation: int | None = Field(description="The version that readers see; null until a first one is ready.")
    sha256: str = Field(description="Of the UTF-8 bytes of the whole text, hex.")
    bytes: int
    chunks: int
    metadata: Meta
    error: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, document: types.Document) -> Doc:
        return cls(
            id=document.id,
            source=document.source,
            state=document.state,
            generation=document.generation,
            sha256=document.sha256,
            bytes=document.bytes,
            chunks=document.chunks,
            metadata=_meta(document.metadata),
            error=document.error,
            created_at=document.created_at,
            updated_at=document.updated_at,
        )


class Chunk(BaseModel):
    """A piece of a document: `text` is `source[start:end]`, counted in code points of GET /source."""

    id: str
    doc_id: str
    generation: int
    text: str
    meta: Meta
    start: int
    end: int
    sha256: str = Field(description="Of the whole source text of this generation, UTF-8, hex.")

    @classmethod
    def of(cls, chunk: types.Chunk) -> Chunk:
        return cls.model_validate(_chunk(chunk))


class Hit(Chunk):
    """A chunk that a search found."""

    score: float = Field(description="0 to 1, higher is better; comparable within one list only.")

    @classmethod
    def of_hit(cls, hit: types.Hit) -> Hit:
        return cls.model_validate({**_chunk(hit.chunk), "score": hit.score})


class Citation(Hit):
    """A hit that the answer cites."""

    n: int = Field(description="The number that stands in the answer as [n].")

    @classmethod
    def of_citation(cls, citation: types.Citation) -> Citation:
        values = {**_chunk(citation.hit.chunk), "score": citation.hit.score, "n": citation.n}
        return cls.model_validate(values)


def _is_none(value: object) -> bool:
    return value is None


def _a_number(schema: dict[str, Any]) -> None:
    """It is a number or absent, never null."""
    schema.pop("anyOf", None)
    schema.pop("default", None)
    schema["type"] = "number"


class Usage(BaseModel):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    gb_seconds: float | None = Field(
        default=None,
        exclude_if=_is_none,
        json_schema_extra=_a_number,
        description="On Lambda only: what is billed of this invocation up to the answer, run time in whole "
        "milliseconds times the function's memory.",
    )
    estimated_cost_usd: float | None = Field(
        default=None,
        exclude_if=_is_none,
        json_schema_extra=_a_number,
        description="On Lambda only: the price of these GB-seconds and of the request, by the prices of us-east-1 that "
        "`llamabda cost --prices` lists; not what other services took, nor what is free.",
    )


class Reply(BaseModel):
    """An answer with the passages it rests on."""

    answer: str
    answered: bool = Field(description="False when nothing retrieved supports an answer; `answer` says so.")
    mode: Literal["generated", "extractive"]
    finish_reason: types.FinishReason
    citations: list[Citation]
    model: str | None
    usage: Usage
    timings: dict[str, float] = Field(description="Milliseconds per stage.")

    @classmethod
    def of(cls, reply: types.Reply) -> Reply:
        return cls(
            answer=reply.answer,
            answered=reply.answered,
            mode=reply.mode,
            finish_reason=reply.finish_reason,
            citations=[Citation.of_citation(citation) for citation in reply.citations],
            model=reply.model,
            usage=Usage(
                prompt_tokens=reply.usage.prompt_tokens,
                cached_tokens=reply.usage.cached_tokens,
                completion_tokens=reply.usage.completion_tokens,
                gb_seconds=reply.usage.gb_seconds,
                estimated_cost_usd=reply.usage.estimated_cost_usd,
            ),
            timings={name: round(ms, 3) for name, ms in reply.timings.items()},
        )


class ProblemEntry(BaseModel):
    loc: list[str | int] = Field(description="Path to what is wrong, for example body, docs, 0, id.")
    msg: str
    value: str | int | float | bool | None = Field(
        default=None, description="What was sent, cut at 100 characters; left out for secrets, lists and objects."
    )


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="Names this occurrence: urn:uuid: and the X-Request-Id.")
    code: str = Field(description="A stable name of the case.")
    errors: list[ProblemEntry]


def _meta(metadata: Mapping[str, object]) -> Meta:
    return dict(metadata)  # type: ignore[arg-type]  # JSON values by types.Metadata's promise; pydantic checks them again


def _chunk(chunk: types.Chunk) -> dict[str, object]:
    return {
        "id": chunk.id,
        "doc_id": chunk.doc_id,
        "generation": chunk.generation,
        "text": chunk.text,
        "meta": dict(chunk.metadata),
        "start": chunk.start,
        "end": chunk.end,
        "sha256": chunk.sha256,
    }

"""Documents in and out: /training/*, /documents, /chunks, /source."""

from __future__ import annotations

import json
import logging
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from llamabda import wiring
from llamabda.chunking import Chunking
from llamabda.deliveries import Delivery
from llamabda.errors import LlamabdaError
from llamabda.http import TEXT_TYPES, Caller, Until, create_app, routes
from llamabda.http_openapi import problems
from llamabda.http_shapes import Body, Chunk, Doc, DocId, Meta, Parameters, WritableDocId
from llamabda.ingest import TrainedState
from llamabda.types import Deadline, DocState, NewDocument

if TYPE_CHECKING:
    from mangum import Mangum

log = logging.getLogger("llamabda.ingest")
router = routes(tags=["documents"])

TRAIN_SECONDS = 17.0  # for which a request waits; what is under way then still ends, so that a reply is there in 20 s
WORK_MARGIN = 20.0  # seconds before the function's end in which nothing more is begun
SWEEP = {"llamabda": "sweep"}  # what the schedule sends, and nothing beside it
NOTICES_SECONDS = 1.0  # with less time left nobody looks at the documents' languages
MAX_DOCUMENTS = 1_000  # of one request
MAX_METADATA_BYTES = 16_384  # as JSON; it is repeated with every chunk
MAX_GENERATION = 2**53  # beyond any count, within every client's integers


def _bounded(metadata: Meta) -> Meta:
    size = len(json.dumps(metadata, ensure_ascii=False).encode("utf-8"))
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError("metadata_size", f"is {size} bytes as JSON: at most {MAX_METADATA_BYTES}")
    return metadata


class TrainDoc(Body):
    id: WritableDocId = Field(description="Yours to choose; training the same id again replaces the document.")
    text: str = Field(min_length=1)
    metadata: Annotated[Meta, AfterValidator(_bounded)] = Field(default_factory=dict)

    def document(self) -> NewDocument:
        return NewDocument(self.id, self.text, self.metadata)


class TrainRequest(Body):
    """Either `texts` or `docs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"texts": ["The harbour office opens at eight."]},
                {"docs": [{"id": "harbour", "text": "The harbour office opens at eight.", "metadata": {"lang": "en"}}]},
            ]
        }
    )

    texts: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_DOCUMENTS,
        description="Each gets the id text-<SHA-256, cut>.",
    )
    docs: list[TrainDoc] | None = Field(default=None, min_length=1, max_length=MAX_DOCUMENTS)
    chunk_size: int = Field(default=800, description="Characters.")
    chunk_overlap: int = Field(default=100, description="Characters; less than chunk_size.")

    @model_validator(mode="after")
    def _one_of_both(self) -> TrainRequest:
        if (self.texts is None) == (self.docs is None):
            raise PydanticCustomError("texts_or_docs", "send either texts or docs")
        return self

    def documents(self) -> list[NewDocument]:
        if self.docs is not None:
            return [doc.document() for doc in self.docs]
        distinct = dict.fromkeys(self.texts or ())  # the same text twice is one document
        return [NewDocument("text-" + sha256(text.encode("utf-8")).hexdigest()[:32], text) for text in distinct]


class TrainedDoc(BaseModel):
    id: str
    state: TrainedState = Field(description="`unchanged`: ready, and the same as before.")
    chunks: int
    generation: int | None
    error: str | None


class TrainReply(BaseModel):
    documents: list[TrainedDoc]
    indexed: int = Field(description="Documents that are ready, unchanged ones included.")
    chunks: int = Field(description="Of these, together.")
    notices: list[str] = Field(
        description="What stands in the way of good answers though all went well: documents in a language that the "
        "embedding model does not know, and what to do. Usually empty."
    )


class DocsQuery(Parameters):
    state: DocState | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=4_096, description="next_cursor of the page before.")


class DocsReply(BaseModel):
    documents: list[Doc]
    counts: dict[str, int] = Field(description="Your documents per state, over all pages.")
    next_cursor: str | None


class ChunksQuery(Parameters):
    doc_id: DocId
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=4_096)


class ChunksReply(BaseModel):
    chunks: list[Chunk]
    next_cursor: str | None


class SourceQuery(Parameters):
    doc_id: DocId
    generation: int | None = Field(default=None, ge=1, le=MAX_GENERATION, description="By default the live one.")


@router.post(
    "/training/train",
    responses={202: {"model": TrainReply, "description": "All is stored, some of it is still queued"}, **problems(503)},
)
def train(body: TrainRequest, caller: Caller, until: Until, response: Response) -> TrainReply:
    """Makes documents answerable. Each goes in whole or not at all; `state` and `error` tell for each.

    202 when that takes longer than 20 s: what was sent is stored, and `GET /documents` tells how it goes on.
    """
    chunking = Chunking(size=body.chunk_size, overlap=body.chunk_overlap)
    soon = Deadline.after(min(TRAIN_SECONDS, until.remaining()))
    documents = body.documents()
    trained = wiring.ingest().train(caller.tenant, documents, chunking=chunking, until=soon)
    if any(done.state in ("queued", "processing") for done in trained):
        response.status_code = 202
    taken = [new.text for new, done in zip(documents, trained, strict=True) if done.state != "failed"]
    notices = _notices(taken) if until.remaining() >= NOTICES_SECONDS else []
    ready = [done for done in trained if done.state in ("ready", "unchanged")]
    return TrainReply(
        documents=[TrainedDoc.model_validate(done, from_attributes=True) for done in trained],
        indexed=len(ready),
        chunks=sum(done.chunks for done in ready),
        notices=notices,
    )


@router.get("/documents", responses=problems(503))
def list_documents(query: Annotated[DocsQuery, Query()], caller: Caller) -> DocsReply:
    """Your own documents, in order of id."""
    page = wiring.catalog().list(caller.tenant, state=query.state, limit=query.limit, cursor=query.cursor)
    return DocsReply(
        documents=[Doc.of(document) for document in page.documents],
        counts=dict(page.counts),
        next_cursor=page.next_cursor,
    )


@router.get("/documents/{id:path}", responses=problems(404, 503))
def get_document(id: Annotated[DocId, Path()], caller: Caller) -> Doc:
    """One document, your own or a shared one."""
    return Doc.of(wiring.ingest().document(caller.readable, id))


@router.delete("/documents/{id:path}", status_code=204, responses=problems(404, 503))
def delete_document(id: Annotated[WritableDocId, Path()], caller: Caller) -> None:
    """Nobody finds the document from now on."""
    wiring.ingest().delete(caller.tenant, id)


@router.get("/chunks", responses=problems(404, 410, 503))
def list_chunks(query: Annotated[ChunksQuery, Query()], caller: Caller) -> ChunksReply:
    """A document's chunks in order. 410 when it was replaced between two pages."""
    chunks, cursor = wiring.ingest().chunks(caller.readable, query.doc_id, limit=query.limit, cursor=query.cursor)
    return ChunksReply(chunks=[Chunk.of(chunk) for chunk in chunks], next_cursor=cursor)


@router.get("/source", response_class=PlainTextResponse, responses=problems(404, 410, 503))
def source(query: Annotated[SourceQuery, Query()], caller: Caller) -> PlainTextResponse:
    """The text that citations point into. 410 when that generation has been replaced."""
    text, _ = wiring.ingest().source(caller.readable, query.doc_id, query.generation)
    return PlainTextResponse(text)


def _notices(texts: list[str]) -> list[str]:
    try:
        notices = wiring.language_check().notices(texts)
    except LlamabdaError as exc:  # the documents are accepted, whatever is to be said about them
        log.warning("the documents' languages are not looked at: %s", exc.message)
        return []
    for notice in notices:
        log.warning("%s", notice)
    return notices


app = create_app("Llamabda ingest", router)


@cache
def _lambda() -> Mangum:
    from mangum import Mangum

    return Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry: for requests, for what the queue delivers, for the sweep. ValueError for any other event."""
    if event == SWEEP:
        return _swept(context)
    records = event.get("Records")
    if isinstance(records, list) and records and all(one.get("eventSource") == "aws:sqs" for one in records):
        return _delivered(records, context)
    if event.get("version") == "2.0" and "http" in event.get("requestContext", {}):
        return _lambda()(event, context)
    raise ValueError(
        f"neither an HTTP request, nor a batch of SQS messages, nor a sweep: an event with {sorted(event)[:10]}"
    )


def _delivered(records: list[dict[str, Any]], context: Any) -> dict[str, Any]:
    """The messages that are to be delivered again, as the event source mapping wants to hear it."""
    batch = [
        Delivery(one["messageId"], one["body"], int(one.get("attributes", {}).get("ApproximateReceiveCount", 1)))
        for one in records
    ]
    undone = wiring.deliveries()(batch, until=_until(context))
    return {"batchItemFailures": [{"itemIdentifier": id} for id in undone]}


def _swept(context: Any) -> dict[str, Any]:
    """What is gone. A failure is the invocation's: who asked tries again, and the function's errors are counted."""
    done = wiring.ingest().tidy(_until(context))
    counts = {"generations": done.generations, "indexes": done.indexes, "whole": done.whole}
    log.info("swept: %d generations and %d indexes are gone", done.generations, done.indexes, extra=counts)
    return counts


def _until(context: Any) -> Deadline:
    return Deadline.after(max(0.0, context.get_remaining_time_in_millis() / 1000 - WORK_MARGIN))

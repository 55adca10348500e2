"""Our values as the plain dicts that the JSON of the HTTP interface is made of: same keys, same order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from llamabda.errors import LlamabdaError
from llamabda.types import Chunk, Citation, DocState, Document, DocumentPage, Hit, Reply, Usage, User

Json = dict[str, Any]


class TrainResult(Protocol):
    """What became of one document, as `ingest.Trained` has it."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> DocState | Literal["unchanged"]: ...
    @property
    def chunks(self) -> int: ...
    @property
    def generation(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...


def document(value: Document) -> Json:
    return {
        "id": value.id,
        "source": value.source,
        "state": value.state,
        "generation": value.generation,
        "sha256": value.sha256,
        "bytes": value.bytes,
        "chunks": value.chunks,
        "metadata": dict(value.metadata),
        "error": value.error,
        "created_at": moment(value.created_at),
        "updated_at": moment(value.updated_at),
    }


def documents(page: DocumentPage) -> Json:
    return {
        "documents": [document(value) for value in page.documents],
        "counts": dict(page.counts),
        "next_cursor": page.next_cursor,
    }


def chunk(value: Chunk) -> Json:
    return {
        "id": value.id,
        "doc_id": value.doc_id,
        "generation": value.generation,
        "text": value.text,
        "meta": dict(value.metadata),
        "start": value.start,
        "end": value.end,
        "sha256": value.sha256,
    }


def hit(value: Hit) -> Json:
    return {**chunk(value.chunk), "score": value.score}


def hits(values: Sequence[Hit]) -> Json:
    return {"hits": [hit(value) for value in values]}


def citation(value: Citation) -> Json:
    return {**hit(value.hit), "n": value.n}


def usage(value: Usage) -> Json:
    """What it took. Without what is not known: outside Lambda nobody bills it."""
    spent = {"gb_seconds": value.gb_seconds, "estimated_cost_usd": value.estimated_cost_usd}
    return {
        "prompt_tokens": value.prompt_tokens,
        "cached_tokens": value.cached_tokens,
        "completion_tokens": value.completion_tokens,
        **{name: amount for name, amount in spent.items() if amount is not None},
    }


def reply(value: Reply) -> Json:
    return {
        "answer": value.answer,
        "answered": value.answered,
        "mode": value.mode,
        "finish_reason": value.finish_reason,
        "citations": [citation(cited) for cited in value.citations],
        "model": value.model,
        "usage": usage(value.usage),
        "timings": {name: round(milliseconds, 3) for name, milliseconds in value.timings.items()},
    }


def trained(results: Iterable[TrainResult], notices: Sequence[str] = ()) -> Json:
    rows = [
        {"id": r.id, "state": r.state, "chunks": r.chunks, "generation": r.generation, "error": r.error}
        for r in results
    ]
    ready = [row for row in rows if row["state"] in ("ready", "unchanged")]
    chunks = sum(int(str(row["chunks"])) for row in ready)
    return {"documents": rows, "indexed": len(ready), "chunks": chunks, "notices": list(notices)}


def user(value: User) -> Json:
    """An account without its password hash."""
    return {
        "username": value.username,
        "tenant": value.tenant,
        "role": value.role,
        "disabled": value.disabled,
        "created_at": moment(value.created_at),
    }


def problem(error: LlamabdaError) -> Json:
    """What a command that failed says with --json: the parts of a problem document that make sense outside HTTP."""
    return {"title": error.code.replace("_", " "), "detail": error.message, "code": error.code}


def moment(value: datetime) -> str:
    """RFC 3339, UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")

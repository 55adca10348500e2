"""Questions: /ask/question, /search, /health/ready."""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from llamabda import wiring
from llamabda.errors import LlamabdaError, TooLarge
from llamabda.http import TEXT_TYPES, Caller, Until, create_app, routes, server_timing
from llamabda.http_openapi import problems
from llamabda.http_shapes import Body, FusionWeights, Hit, Question, Reply
from llamabda.settings import settings
from llamabda.types import Mode

if TYPE_CHECKING:
    from mangum import Mangum

logger = logging.getLogger("llamabda.http")
router = routes(tags=["questions"])

OPTIONAL = frozenset(("generator",))  # without it answers are extracts, but answers


class AskRequest(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"question": "When does the harbour office open?"}]})

    question: Question
    top_k: int = Field(default=3, ge=1, le=50, description="Passages to answer from.")
    max_tokens: int = Field(default=200, ge=1, le=4_096)
    mode: Mode = Field(default="auto", description="`extractive` never uses the language model.")
    weights: FusionWeights | None = None


class SearchRequest(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "harbour opening hours"}]})

    query: Question
    top_k: int = Field(default=5, ge=1, le=100)
    weights: FusionWeights | None = None


class SearchReply(BaseModel):
    hits: list[Hit]


class Check(BaseModel):
    status: str
    ms: float


class Readiness(BaseModel):
    status: Literal["ok", "loading", "degraded", "failed"]
    checks: dict[str, Check]


@router.post("/ask/question", responses=problems(503))
def ask(body: AskRequest, caller: Caller, until: Until, response: Response) -> Reply:
    """An answer from your documents, with the passages it rests on."""
    _bounded("question", body.question)
    reply = wiring.ask()(
        body.question,
        tenants=caller.readable,
        top_k=body.top_k,
        max_tokens=body.max_tokens,
        mode=body.mode,
        weights=body.weights.value() if body.weights else None,
        deadline=until,
    )
    server_timing(response, reply.timings)
    return Reply.of(reply)


@router.post("/search", responses=problems(503))
def search(body: SearchRequest, caller: Caller, until: Until, response: Response) -> SearchReply:
    """The passages that fit best, by words and by meaning."""
    _bounded("query", body.query)
    weights = body.weights.value() if body.weights else None
    result = wiring.search()(body.query, tenants=caller.readable, top_k=body.top_k, weights=weights, deadline=until)
    server_timing(response, result.timings)
    return SearchReply(hits=[Hit.of_hit(hit) for hit in result.hits])


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not ready"}})
def ready(response: Response) -> Readiness:
    """Whether questions can be answered now, and what each part says."""
    checks: dict[str, Check] = {}
    for name, check in wiring.checks().items():
        started = time.perf_counter()
        try:
            status = check()
        except LlamabdaError as exc:
            logger.warning("%s is not ready: %s", name, exc.message)
            status = "failed"
        checks[name] = Check(status=status, ms=round((time.perf_counter() - started) * 1000, 3))
    readiness = Readiness(status=_overall(checks), checks=checks)
    if readiness.status in ("loading", "failed"):
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return readiness


def _overall(checks: dict[str, Check]) -> Literal["ok", "loading", "degraded", "failed"]:
    needed = {check.status for name, check in checks.items() if name not in OPTIONAL}
    if "failed" in needed:
        return "failed"
    if "loading" in needed:
        return "loading"
    return "degraded" if any(check.status == "failed" for check in checks.values()) else "ok"


def _bounded(name: str, text: str) -> None:
    limit = settings().max_question_chars
    if len(text) > limit:
        raise TooLarge(f"{name} has {len(text)} characters: at most {limit} (MAX_QUESTION_CHARS)")


app = create_app("Llamabda ask", router)


@cache
def _lambda() -> Mangum:
    from mangum import Mangum

    return Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry."""
    return _lambda()(event, context)

"""Questions: /ask/question, /search, /health/ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from llamabda import rendering, time_left, wiring
from llamabda.ask import Delta, Event, Extract, Leaving, Retrieved, last
from llamabda.errors import LlamabdaError, TooLarge
from llamabda.http import TEXT_TYPES, Caller, Until, create_app, routes, stages
from llamabda.http_envelope import LAPS, REQUEST_ID, Laps
from llamabda.http_events import MEDIA_TYPE as EVENTS
from llamabda.http_events import EventStream, while_connected
from llamabda.http_openapi import problems
from llamabda.http_shapes import Filtered, FusionWeights, Hit, Question, Reply
from llamabda.settings import settings
from llamabda.types import Citation, Deadline, Mode
from llamabda.types import Reply as AskReply

if TYPE_CHECKING:
    from mangum import Mangum

logger = logging.getLogger("llamabda.http")
router = routes(tags=["questions"])

NAMES = ("search_results", "extract", "message", "citation", "final_answer", "error")
STREAM = {
    "type": "object",
    "properties": {"event": {"enum": list(NAMES)}, "data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["event", "data"],
}
EXAMPLE = 'event: message\ndata: {"delta": "The office opens at eight. [1]"}\n\n'
# without the generator answers are extracts, without the reranker hits stay as they were found
OPTIONAL = frozenset(("generator", "reranker"))


class AskRequest(Filtered):
    model_config = ConfigDict(json_schema_extra={"examples": [{"question": "When does the harbour office open?"}]})

    question: Question
    top_k: int = Field(default=3, ge=1, le=50, description="Passages to answer from.")
    max_tokens: int = Field(default=200, ge=1, le=4_096)
    mode: Mode = Field(default="auto", description="`extractive` never uses the language model.")
    weights: FusionWeights | None = None
    stream: bool = Field(default=False, description="Send server-sent events while the answer is being made.")


class SearchRequest(Filtered):
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


@router.post(
    "/ask/question",
    response_model=Reply,
    responses={200: {"content": {EVENTS: {"schema": STREAM, "example": EXAMPLE}}}, **problems(503)},
)
async def ask(body: AskRequest, caller: Caller, until: Until, request: Request) -> Any:
    """An answer from your documents, with the passages it rests on.

    With `stream`, these events: `search_results`, `extract` (what the answer will be if the model adds nothing),
    `message` (all `delta` put together are the answer), `citation`, and at last one `final_answer`, which is what is
    sent without `stream`, or one `error`, a problem document.
    """
    _bounded("question", body.question)
    leaving = Leaving()

    def begin() -> Iterator[Event]:
        events = wiring.ask().events(
            body.question,
            tenants=caller.readable,
            top_k=body.top_k,
            max_tokens=body.max_tokens,
            mode=body.mode,
            weights=body.weights.value() if body.weights else None,
            filter=body.wanted(),
            deadline=until,
            leaving=leaving,
        )
        return chain([next(events)], events)  # what fails up to here has a status of its own

    if body.stream:
        events = await run_in_threadpool(begin)
        told = (_receipted(event, request) if isinstance(event, AskReply) else event for event in events)
        named = (pair for event in told for pair in shown(event))
        return EventStream(named, leave=leaving, request_id=request.scope[REQUEST_ID])
    reply = _receipted(await while_connected(request.receive, lambda: last(begin()), leaving), request)
    stages(request, reply.timings)
    wiring.metrics().answer(reply)
    return Reply.of(reply)


@router.post("/search", responses=problems(503))
def search(body: SearchRequest, caller: Caller, until: Until, request: Request) -> SearchReply:
    """The passages that fit best, by words and by meaning."""
    _bounded("query", body.query)
    result = wiring.search()(
        body.query,
        tenants=caller.readable,
        top_k=body.top_k,
        weights=body.weights.value() if body.weights else None,
        filter=body.wanted(),
        deadline=until,
    )
    stages(request, result.timings)
    return SearchReply(hits=[Hit.of_hit(hit) for hit in result.hits])


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not ready"}})
def ready(response: Response, until: Until) -> Readiness:
    """Whether questions can be answered now, and what each part says."""
    checks: dict[str, Check] = {}
    for name, check in wiring.checks().items():
        started = time.perf_counter()
        share = Deadline.after(until.remaining() / 2)  # one that hangs leaves time for the others
        try:
            with time_left.within(share):
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


def _receipted(reply: AskReply, request: Request) -> AskReply:
    """With what this invocation has cost so far; outside Lambda as it is."""
    receipts = wiring.receipts()
    if receipts is None:
        return reply
    laps: Laps = request.scope[LAPS]
    return receipts.on(reply, time.perf_counter() - laps.began)


def shown(event: Event) -> Iterator[tuple[str, dict[str, object]]]:
    """An event of the use case as the events that are sent."""
    match event:
        case Retrieved(hits):
            yield "search_results", {"hits": [rendering.citation(Citation(n, hit)) for n, hit in enumerate(hits, 1)]}
        case Extract(answer, citations):
            yield "extract", {"answer": answer, "citations": [rendering.citation(cited) for cited in citations]}
        case Delta(text, citations):
            yield "message", {"delta": text}
            for cited in citations:
                yield "citation", rendering.citation(cited)
        case _:
            wiring.metrics().answer(event)
            wiring.metrics().stages(event.timings)
            yield "final_answer", rendering.reply(event)


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

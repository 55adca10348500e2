"""The HTTP side that all functions share: how an app is made, who calls, until when, and what failures look like."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Lifespan

import llamabda
from llamabda import http_json, http_problems, time_left, wiring
from llamabda.errors import LlamabdaError, Unauthorized, UnsupportedMedia
from llamabda.http_client import client_address
from llamabda.http_envelope import LAPS, PRINCIPAL, REQUEST_ID, Bounds, Envelope, Laps
from llamabda.http_limits import RateLimits, count_user
from llamabda.http_openapi import with_problems
from llamabda.http_problems import Failure
from llamabda.settings import settings
from llamabda.types import Deadline, Principal

MAX_TOKEN_CHARS = 8_192
GATEWAY_SECONDS = 30.0  # after which an HTTP API has given up on a request
REPLY_SECONDS = 2.0  # of a function's remaining time, kept for sending the reply
DEADLINE = "llamabda.deadline"  # key in the ASGI scope
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# What Mangum must not encode as base64.
TEXT_TYPES = ["text/", "application/json", http_problems.MEDIA_TYPE]

_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="JWT", scheme_name="bearer", description="The access_token of POST /auth/login."
)


class Api(FastAPI):
    """A FastAPI whose OpenAPI document tells the truth about failures."""

    def openapi(self) -> dict[str, Any]:
        return with_problems(super().openapi())


def create_app(
    title: str,
    *routers: APIRouter,
    lifespan: Lifespan[FastAPI] | None = None,
    openapi_url: str | None = None,
    description: str = "",
    cors: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Api:
    """An app with these routes, whose every failure is a problem document. Reads no settings until a request comes.

    `cors` is an ASGI layer for the laptop; on AWS the gateway does it.
    """
    app = Api(
        title=title,
        description=description,
        version=llamabda.__version__,
        lifespan=lifespan,
        openapi_url=openapi_url,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(LlamabdaError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Bounds, max_body_bytes=lambda: settings().max_body_bytes)
    app.add_middleware(RateLimits, buckets=wiring.rate_limits, trusted=lambda: settings().proxies)
    if cors is not None:
        app.add_middleware(cors)
    app.add_middleware(Envelope, count=lambda *request: wiring.metrics().request(*request))  # the outermost
    return app


def routes(*, tags: list[str | Any]) -> APIRouter:
    """Where a function puts its routes."""
    return APIRouter(route_class=StrictRoute, tags=tags)


class StrictRoute(APIRoute):
    """Asks for the token before it reads a body, and reads the body strictly. Its deadline counts from here on."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        needs_token = any(dependency.call is principal for dependency in self.dependant.dependencies)
        takes_json = self.body_field is not None

        async def strict(request: Request) -> Response:
            laps: Laps = request.scope[LAPS]
            # not for this block only: a reply that is streamed is made after it. Each request is a task of its own.
            request.scope[DEADLINE] = until = _deadline(request)
            time_left.begin(until)
            if needs_token:
                request.scope[PRINCIPAL] = found = await run_in_threadpool(_authenticate, request)
                count_user(request.scope, found.username)
                laps.lap("auth")
            if takes_json:
                _require_json(request)
                body = await request.body()
                request = _Parsed(request, body, await run_in_threadpool(http_json.parse, body))
                laps.lap("read")
            return await handle(request)

        return strict


class _Parsed(Request):
    """A request whose body has been read and understood."""

    def __init__(self, request: Request, body: bytes, value: object) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        return self._bytes

    async def json(self) -> Any:
        return self._value


def _require_json(request: Request) -> None:
    sent = request.headers.get("content-type", "")
    header = Message()
    header["content-type"] = sent
    subtype = header.get_content_subtype()
    is_json = header.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
    charset = str(header.get_param("charset", "utf-8")).lower()
    if not sent or not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"the Content-Type is {sent[:100] or 'missing'}: send application/json in UTF-8")


def _authenticate(request: Request) -> Principal:
    sent = request.headers.getlist("authorization")
    if not sent:
        raise Unauthorized("this needs an access token: send the header 'Authorization: Bearer <access_token>'")
    scheme, _, token = sent[0].partition(" ")
    token = token.strip()
    if len(sent) > 1 or scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise Unauthorized("the Authorization header is not of the form 'Bearer <access_token>'")
    found = wiring.verifier().verify(token)
    wiring.accounts().check(found)
    return found


async def principal(
    request: Request, _shown_in_openapi: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Principal:
    """Who calls. StrictRoute has verified the token by now."""
    found: Principal = request.scope[PRINCIPAL]
    return found


async def deadline(request: Request) -> Deadline:
    """By when to reply."""
    found: Deadline = request.scope[DEADLINE]
    return found


def _deadline(request: Request) -> Deadline:
    """Behind an HTTP API its clock counts, which started before ours, and the function's own end."""
    seconds = settings().ask_deadline_seconds
    event: Mapping[str, Any] = request.scope.get("aws.event") or {}
    epoch = event.get("requestContext", {}).get("timeEpoch")  # milliseconds
    if epoch is not None:
        age = time.time() - epoch / 1000
        # older than the gateway waits: its clock is not ours (`sam local` counts in seconds), and says nothing
        if age <= GATEWAY_SECONDS:
            seconds -= max(0.0, age)
    context = request.scope.get("aws.context")
    if context is not None:
        seconds = min(seconds, context.get_remaining_time_in_millis() / 1000 - REPLY_SECONDS)
    return Deadline.after(max(0.0, seconds))


async def address(request: Request) -> str | None:
    """Where the request comes from: the nearest hop that is not one of TRUSTED_PROXIES. Behind an HTTP API the gateway
    says it."""
    return client_address(request.scope, settings().proxies)


Address = Annotated[str | None, Depends(address)]
Caller = Annotated[Principal, Depends(principal)]
Until = Annotated[Deadline, Depends(deadline)]


def stages(request: Request, timings: Mapping[str, float]) -> None:
    """Tells what the request's time went into so far (milliseconds per stage), for `Server-Timing` and the metrics."""
    request.scope[LAPS].lap("handle", timings)
    wiring.metrics().stages(timings)


async def _on_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, LlamabdaError)
    return http_problems.from_error(
        exc, request_id=request.scope[REQUEST_ID], token_sent="authorization" in request.headers
    )


async def _on_invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    failures = [
        Failure(
            loc=error["loc"],
            msg=error["msg"],
            value=error["input"],
            show=len(error["loc"]) > 1 and error["type"] not in ("missing", "extra_forbidden"),
        )
        for error in exc.errors()
    ]
    first = failures[0]
    where = ".".join(str(part) for part in first.loc)
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return http_problems.problem(
        422, f"{where}: {first.msg}{more}", failures=failures, request_id=request.scope[REQUEST_ID]
    )


async def _on_http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    scope, status, detail, headers = request.scope, exc.status_code, exc.detail, dict(exc.headers or {})
    if status == 404:
        detail = "there is no such endpoint"
    elif status == 405:
        allowed = [method for method in METHODS if _serves(request, method)]
        headers = {"Allow": ", ".join(allowed)}
        detail = f"this endpoint takes {', '.join(allowed)}"
    return http_problems.problem(status, detail, headers=headers, request_id=scope[REQUEST_ID])


def _serves(request: Request, method: str) -> bool:
    probe = {**request.scope, "method": "GET" if method == "HEAD" else method}
    return any(route.matches(probe)[0] is Match.FULL for route in request.app.routes)

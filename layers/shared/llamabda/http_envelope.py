"""What every reply carries and every request must keep to, as one plain ASGI layer around the app.

Request id, security headers, where the time went, one log line, size limit while the body streams in, HEAD, and a
problem document for whatever nobody expected.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamabda.http_problems import problem, unexpected

logger = logging.getLogger("llamabda.http")

# keys in the ASGI scope
REQUEST_ID = "llamabda.request_id"
LAPS = "llamabda.laps"
PRINCIPAL = "llamabda.principal"
CLIENT_GONE = 499  # nginx's number for it
MAX_URL = 8_192  # bytes of path and query together: S3 keys reach 1,024, three bytes each when percent-encoded

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Laps:
    """Where a request's time goes, in milliseconds: every moment since its start belongs to one part."""

    def __init__(self) -> None:
        self.began = self._last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def lap(self, name: str, stages: Mapping[str, float] | None = None) -> None:
        """The time since the last lap was spent on `name`, but for the stages that are known by themselves."""
        now = time.perf_counter()
        known = {stage: ms for stage, ms in (stages or {}).items() if stage != "total"}
        self.parts.update(known)
        spent = 1000 * (now - self._last) - sum(known.values())
        self.parts[name] = self.parts.get(name, 0.0) + max(0.0, spent)
        self._last = now

    def header(self) -> str:
        """`Server-Timing`, which browsers show beside the request."""
        self.lap("respond")
        total = 1000 * (self._last - self.began)
        return ", ".join(f"{name};dur={ms:.2f}" for name, ms in {**self.parts, "total": total}.items())


class Envelope:
    """The outermost layer: every reply, expected or not, leaves through it.

    `count` is told of every request: route ("" when there was none), method, status, seconds.
    """

    def __init__(self, app: ASGIApp, *, count: Callable[[str, str, int, float], None]) -> None:
        self.app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        method = scope["method"]
        is_head = method == "HEAD"  # routes know GET; its body is dropped below
        laps = Laps()
        scope = {**scope, REQUEST_ID: request_id, LAPS: laps, "method": "GET" if is_head else method}
        line = f"{quote(method, errors='replace')} {quote(scope['path'], errors='replace')}"
        status = 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["Server-Timing"] = laps.header()
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(scope, receive, dressed)
        except ClientDisconnect:
            status = status or CLIENT_GONE  # in the log only: nobody is there to read a reply
        except Exception:
            # The border of the process: a defect is logged with its request and told as a bare 500.
            logger.exception("%s: unexpected failure of %s", request_id, line)
            if status:  # the reply is on its way and cannot be taken back: the server must cut it off
                raise
            await unexpected(request_id=request_id)(scope, receive, dressed)
        finally:
            seconds = time.perf_counter() - laps.began
            route = getattr(scope.get("route"), "path", "")
            caller = scope.get(PRINCIPAL)
            fields = {
                "request_id": request_id,
                "method": quote(method, errors="replace"),
                "path": quote(scope["path"], errors="replace"),
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                "user": caller.username if caller is not None else None,
            }
            logger.info("%s %d %.0f ms", line, status, 1000 * seconds, extra=fields)
            self._count(route, method, status, seconds)


class Bounds:
    """Refuses what is too large or not text, before anything else looks at it.

    `max_body_bytes` is asked at each request, so that building the app reads no settings.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: Callable[[], int]) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.max_body_bytes()
        too_large = f"the body is larger than {limit} bytes (MAX_BODY_BYTES)"
        refused = _url_problem(scope)
        declared = Headers(scope=scope).get("content-length", "")
        if refused is None and declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            refused = 413, too_large
        if refused is not None:
            await problem(*refused, request_id=scope[REQUEST_ID])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, too_large)  # the one kind of error that the framework lets through here
            return message

        await self.app(scope, counted, send)


def _url_problem(scope: Scope) -> tuple[int, str] | None:
    """Servers replace what they cannot decode, which would make two names one: look at the bytes that were sent."""
    raw_path: bytes | None = scope.get("raw_path")
    path = unquote_to_bytes(raw_path) if raw_path is not None else scope["path"].encode("utf-8", "surrogatepass")
    query: bytes = scope.get("query_string", b"")
    if len(path) + len(query) > MAX_URL:
        return 414, f"path and query are longer than {MAX_URL} bytes"
    for name, part in (("path", path), ("query", unquote_to_bytes(query))):
        try:
            part.decode("utf-8")
        except UnicodeDecodeError:
            return 400, f"the {name} is not UTF-8 text"
    return None

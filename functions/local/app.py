"""The three functions in one process, for a laptop: `llamabda serve`, or `uvicorn llamabda_functions.local.app:app`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from starlette.middleware.cors import CORSMiddleware

from llamabda import wiring
from llamabda.http import Api, create_app
from llamabda.settings import obsolete, settings

from ..ask.app import router as ask_router
from ..auth.app import router as auth_router
from ..ingest.app import router as ingest_router
from .docs import CONTENT_SECURITY_POLICY, PAGE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("llamabda.http")

DRAIN_SECONDS = 10  # for requests under way when the server is told to stop

page_router = APIRouter(include_in_schema=False)


@page_router.get("/docs")
async def docs() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


class Cors:
    """CORS for the origins that the settings name; built at the first request, so that making the app reads none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._layer: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._layer is None:
            origins = settings().origins
            self._layer = self.app if not origins else self._allow(origins)
        await self._layer(scope, receive, send)

    def _allow(self, origins: tuple[str, ...]) -> CORSMiddleware:
        return CORSMiddleware(
            self.app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Request-Id", "Server-Timing", "Retry-After"],
        )


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    for warning in obsolete():
        logger.warning("%s", warning)
    threading.Thread(target=wiring.warm, name="warm-up", daemon=True).start()  # imports are slow: /health must not wait
    yield


def create_local_app() -> Api:
    """Everything under one address, with /docs and /openapi.json."""
    return create_app(
        "Llamabda",
        auth_router,
        ingest_router,
        ask_router,
        page_router,
        lifespan=_lifespan,
        openapi_url="/openapi.json",
        cors=Cors,
        description="Answers from your own documents, with citations that can be checked.",
    )


def serve(*, host: str | None = None, port: int | None = None) -> None:
    """Serves until SIGINT or SIGTERM; requests under way are finished first. Must run on the main thread."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # uvicorn raises the signal again once it has shut down: that is then a clean end
    signal.signal(signal.SIGTERM, _exit)
    uvicorn.run(
        app,
        host=host or settings().host,
        port=settings().port if port is None else port,
        proxy_headers=False,
        server_header=False,
        access_log=False,  # ours has the request id, and no query
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _exit(_signal: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


app = create_local_app()

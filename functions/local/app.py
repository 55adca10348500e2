"""The three functions in one process, for a laptop: `llamabda serve`, or `uvicorn llamabda_functions.local.app:app`."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from starlette.middleware.cors import CORSMiddleware

from llamabda import logs, wiring
from llamabda.errors import NotFound
from llamabda.http import Address, Api, create_app
from llamabda.http_client import is_within
from llamabda.settings import obsolete, settings

from ..ask.app import router as ask_router
from ..auth.app import page_router as docs_router
from ..auth.app import router as auth_router
from ..ingest.app import router as ingest_router

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("llamabda.http")

DRAIN_SECONDS = 10  # for requests under way when the server is told to stop

metrics_router = APIRouter(include_in_schema=False)


@metrics_router.get("/metrics")
def metrics(address: Address) -> Response:
    """For Prometheus. It tells how much is going on, so it is for METRICS_FROM only; to others it is not there."""
    if address is not None and not is_within(address, settings().metrics_networks):
        raise NotFound("there is no such endpoint")
    found = wiring.prometheus()
    return Response(found.text(), media_type=found.content_type)


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
    threading.Thread(target=_begin, name="warm-up", daemon=True).start()  # imports are slow: /health must not wait
    yield
    if not wiring.worker().stop(DRAIN_SECONDS):
        logger.warning("the ingestion under way is left; it goes on at the next start")


def _begin() -> None:
    wiring.warm()
    wiring.worker().start()


def create_local_app() -> Api:
    """Everything under one address, with /docs and /openapi.json."""
    return create_app(
        "Llamabda",
        auth_router,
        ingest_router,
        ask_router,
        docs_router,
        metrics_router,
        lifespan=_lifespan,
        openapi_url="/openapi.json",
        cors=Cors,
        description="Answers from your own documents, with citations that can be checked.",
    )


def serve(*, host: str | None = None, port: int | None = None) -> None:
    """Serves until SIGINT or SIGTERM; requests under way are finished first. Must run on the main thread."""
    import uvicorn

    logs.configure(settings().log_format, debug=settings().debug)
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

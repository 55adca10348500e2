"""Work that ends when the client leaves, and server-sent events (the HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llamabda.errors import LlamabdaError
from llamabda.http_problems import from_error, unexpected

T = TypeVar("T")

logger = logging.getLogger("llamabda.http")

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 5.0  # proxies close connections on which nothing comes
PING = b": ping\n\n"

Event = tuple[str, Mapping[str, object]]


async def while_connected(receive: Receive, work: Callable[[], T], leave: Callable[[], None]) -> T:
    """What `work` returns, from a thread; `leave` is called, in another one, as soon as the client has gone.

    The request's body must have been read.
    """
    watcher = asyncio.ensure_future(_gone(receive))
    worker = asyncio.ensure_future(run_in_threadpool(work))
    try:
        await asyncio.wait({watcher, worker}, return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            await run_in_threadpool(leave)
        return await worker
    except asyncio.CancelledError:
        await asyncio.shield(run_in_threadpool(leave))  # the server ends
        raise
    finally:
        watcher.cancel()


class EventStream(StreamingResponse):
    """Sends events as they come, and comments while none comes.

    `events` is iterated in a thread; what it raises becomes an `error` event. `leave`, called in another thread when
    the client goes, must make it end soon.
    """

    def __init__(self, events: Iterable[Event], *, leave: Callable[[], None], request_id: str) -> None:
        super().__init__((), media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._events = events
        self._leave = leave
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        ready: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def produce() -> None:
            for block in self._blocks():
                loop.call_soon_threadsafe(ready.put_nowait, block)

        producer = asyncio.ensure_future(run_in_threadpool(produce))
        watcher = asyncio.ensure_future(_gone(receive))
        try:
            while not watcher.done():
                taker = asyncio.ensure_future(ready.get())
                await asyncio.wait({taker, producer, watcher}, timeout=PING_SECONDS, return_when="FIRST_COMPLETED")
                if taker.done():
                    await _send(send, taker.result())
                    continue
                taker.cancel()
                if producer.done() and ready.empty():
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    break
                if not producer.done():
                    await _send(send, PING)
        finally:
            watcher.cancel()
            if not producer.done():
                await asyncio.shield(run_in_threadpool(self._leave))
                await producer

    def _blocks(self) -> Iterable[bytes]:
        try:
            for name, data in self._events:
                yield block(name, data)
        except LlamabdaError as exc:
            problem = from_error(exc, request_id=self._request_id, token_sent=True)
            yield block("error", json.loads(bytes(problem.body)))
        except Exception:
            # the border of the process: the status is sent already, so the defect is told as an event
            logger.exception("%s: unexpected failure of a stream", self._request_id)
            yield block("error", json.loads(bytes(unexpected(request_id=self._request_id).body)))


def block(name: str, data: Mapping[str, object]) -> bytes:
    """One event as it is sent. JSON has no line breaks of its own, so one `data` line holds it."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n".encode()


async def _send(send: Send, body: bytes) -> None:
    with contextlib.suppress(OSError):  # it has gone: the watcher is told, too
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

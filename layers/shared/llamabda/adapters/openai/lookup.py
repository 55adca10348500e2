"""Looks a name up without waiting for it."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import Any, TypeAlias

Address: TypeAlias = tuple[Any, Any, int, str, Any]  # as getaddrinfo gives it


class Lookup:
    """Resolving a name cannot be bounded or interrupted: a thread does it, never two at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._running: Future[list[Address]] | None = None

    def now(self) -> list[Address]:
        """Of a numeric address, which nobody needs to be asked for."""
        return list(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))

    def begun(self) -> Future[list[Address]]:
        """It ends with addresses, an OSError or a UnicodeError. OSError when no thread can be had."""
        with self._lock:
            if self._running is None or self._running.done():
                lookup = Future[list[Address]]()
                thread = threading.Thread(target=self._fulfil, args=(lookup,), name="lookup", daemon=True)
                try:
                    thread.start()
                except RuntimeError as exc:  # as many threads as the machine allows
                    raise OSError(f"its name cannot be looked up: {exc}") from exc
                self._running = lookup  # not before it runs: nobody would ever fulfil it
            return self._running

    def _fulfil(self, lookup: Future[list[Address]]) -> None:
        try:
            lookup.set_result(self.now())
        except (OSError, UnicodeError) as exc:
            lookup.set_exception(exc)
        except BaseException as exc:  # noqa: BLE001  whatever it is, others wait for an outcome
            lookup.set_exception(OSError(f"its name cannot be looked up: {type(exc).__name__}"))

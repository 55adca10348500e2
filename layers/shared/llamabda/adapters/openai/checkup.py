"""Asks a server how it is, but not every time that somebody wants to know."""

from __future__ import annotations

import threading
import time

from llamabda.adapters.openai.connection import Line, failed
from llamabda.adapters.openai.server import Server
from llamabda.errors import Busy, DependencyFailed
from llamabda.types import Deadline

FRESH_SECONDS = 5.0  # that an outcome is given again


class Checkup:
    """One at a time. Safe to share between threads."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._outcome = ("", f"{server} has not answered yet")  # status, or else failure
        self._fresh_until = 0.0  # seconds, monotonic

    def __call__(self, within: float) -> str:
        """ "ok" or "busy", found now or a moment ago; DependencyFailed for anything else. It takes `within` seconds."""
        began = time.monotonic()
        if self._lock.acquire(timeout=within):
            try:
                if time.monotonic() >= self._fresh_until:
                    self._outcome = self._found(Deadline(began + within), within)
                    self._fresh_until = time.monotonic() + FRESH_SECONDS
            finally:
                self._lock.release()
        status, failure = self._outcome
        if failure:
            raise failed(failure)
        return status

    def _found(self, deadline: Deadline, within: float) -> tuple[str, str]:
        line = Line()
        try:
            self._server.refresh(line, deadline)
            return "ok", ""
        except Busy:
            return "busy", ""
        except TimeoutError:
            return "", f"{self._server} does not answer within {within:g} s"
        except DependencyFailed as exc:
            return "", exc.message
        finally:
            line.free()

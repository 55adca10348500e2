"""When a server is left alone, so that questions are answered without it at once."""

from __future__ import annotations

import math
import threading
import time

from llamabda.adapters.openai.connection import Unreachable
from llamabda.adapters.openai.refusal import busy
from llamabda.types import Deadline

REST_SECONDS = 5.0  # after a server was not reached, or said nothing until a deadline
MAX_REST_SECONDS = 60.0  # of a server that never says anything: each rest is twice as long as the last one


class Rest:
    """Of one server. Safe to share between threads."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._until = 0.0  # seconds, monotonic, like all moments here
        self._why = ""  # empty when the server asked for it
        self._silence = 0.0  # seconds, of the last rest after a silence; 0 while it speaks
        self._silent_since = 0.0
        self._trying = False

    def check(self) -> None:
        """While it lasts: Busy when the server asked for it, else Unreachable."""
        with self._lock:
            self._check()

    def enter(self, deadline: Deadline) -> None:
        """Before a completion, with the errors of `check`. After a silence one tries, and no other until it is told."""
        with self._lock:
            self._check()
            if self._silence:
                self._trying = True
                self._begin(min(deadline.remaining(), MAX_REST_SECONDS), "did not answer, and is being tried")

    def unreached(self) -> None:
        with self._lock:
            self._tried()
            self._begin(REST_SECONDS, "was not reached")

    def asked(self, seconds: float) -> None:
        """By the server itself: it is there, but has no time."""
        with self._lock:
            self._speaks()
            self._begin(seconds, "")

    def silent(self, began: float) -> None:
        """Nothing was said until the deadline. `began`: when the waiting did, as one silence is counted once."""
        with self._lock:
            if began >= self._silent_since:
                self._tried()
                self._silent_since = time.monotonic()
                self._silence = min(MAX_REST_SECONDS, 2 * self._silence or REST_SECONDS)
                self._begin(self._silence, "did not answer in time")

    def tried(self) -> None:
        """Whoever tried has an outcome, which is no answer."""
        with self._lock:
            self._tried()

    def speaks(self) -> None:
        with self._lock:
            self._speaks()

    def _speaks(self) -> None:
        self._silence = 0.0
        self._trying = False
        if self._why:
            self._until = 0.0

    def _tried(self) -> None:
        if self._trying:
            self._trying = False
            self._until = 0.0

    def _check(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            return
        if not self._why:
            raise busy(math.ceil(left))
        raise Unreachable(f"{self._server} {self._why}; it is tried again in {left:.0f} s", dependency="generator")

    def _begin(self, seconds: float, why: str) -> None:
        until = time.monotonic() + seconds
        if until > self._until:
            self._until, self._why = until, why

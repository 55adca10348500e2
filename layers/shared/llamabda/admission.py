"""How many may wait for the model: the others are told at once, not after they have waited."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from llamabda.errors import Busy

MAX_RETRY_SECONDS = 60
FIRST_GUESS_SECONDS = 5.0  # how long a question takes, before one was seen
LEARNING = 0.3  # weight of the newest question in the guess


class Admission:
    """Places for one question that is being answered and `waiting` more."""

    def __init__(self, waiting: int) -> None:
        self._places = waiting + 1
        self._taken = 0
        self._seconds = FIRST_GUESS_SECONDS
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """Busy, at once, when all are taken."""
        with self._lock:
            if self._taken >= self._places:
                seconds = min(MAX_RETRY_SECONDS, max(1, ceil(self._seconds)))
                raise Busy(
                    f"{self._taken} questions are being answered or wait for the model: try again in {seconds} s, or "
                    "ask with mode extractive",
                    retry_after=seconds,
                )
            self._taken += 1
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1
                # those before this one made it wait: their time is not its own
                own = (time.monotonic() - began) / (self._taken + 1)
                self._seconds += LEARNING * (own - self._seconds)

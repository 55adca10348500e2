"""Token buckets: a steady rate with room for a burst, for each key on its own."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

MAX_KEYS = 50_000  # kept in memory; the ones longest unseen are forgotten, which fills their buckets
WINDOW = 60  # seconds that limits are stated for


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request. `remaining`: how many more may come at once; `reset`: seconds until the bucket is full;
    `wait`: seconds until one more may come, 0 when this one may."""

    policy: str
    limit: int
    remaining: int
    reset: int
    wait: float


class Buckets:
    """`limit` requests a minute for each key, all of which may come at once. Safe to share between threads.

    `clock`: seconds that never go back.
    """

    def __init__(self, policy: str, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self.limit = limit
        self._rate = limit / WINDOW
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: (tokens, at)

    def take(self, key: str) -> Taken:
        with self._lock:
            now = self._clock()  # not before: of two requests the later one could come first
            level, at = self._levels.get(key, (float(self.limit), now))
            level = min(float(self.limit), level + (now - at) * self._rate)
            allowed = level >= 1
            if allowed:
                level -= 1
            self._levels[key] = level, now
            self._levels.move_to_end(key)
            while len(self._levels) > MAX_KEYS:
                self._levels.popitem(last=False)
        wait = 0.0 if allowed else (1 - level) / self._rate
        return Taken(self.policy, self.limit, int(level), ceil((self.limit - level) / self._rate), wait)

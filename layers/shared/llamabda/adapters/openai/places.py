"""How many completions may be open at once."""

from __future__ import annotations

import threading

from llamabda.errors import Busy

RETRY_SECONDS = 5


class Places:
    def __init__(self, count: int) -> None:
        self._free = count
        # re-entrant: the garbage collector may give a place back from inside any of these methods
        self._lock = threading.RLock()

    def enter(self) -> None:
        """Busy when none is free."""
        with self._lock:
            if self._free <= 0:
                raise Busy(
                    f"all places before the model are taken; try again in {RETRY_SECONDS} s, or ask with mode "
                    "extractive",
                    retry_after=RETRY_SECONDS,
                )
            self._free -= 1

    def leave(self) -> None:
        with self._lock:
            self._free += 1

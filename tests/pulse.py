"""How long this machine stood still: what a reply may be late by that was due then."""

from __future__ import annotations

import threading
import time
from collections import deque

PULSE_SECONDS = 0.02
NEGLIGIBLE = 0.05  # seconds: any machine is so late now and then, and it is nobody's excuse
KEPT = 20_000  # beats: some minutes


class Pulse:
    """A thread that does nothing but sleep, and how late it was woken each time."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._beaten = threading.Condition()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        while True:
            due = time.monotonic() + PULSE_SECONDS
            time.sleep(PULSE_SECONDS)
            with self._beaten:
                self._late.append((due, time.monotonic() - due))
                self._beaten.notify_all()

    def lag(self, since: float) -> float:
        """Seconds for which it stood still since then (of `time.monotonic`), until now."""
        now = time.monotonic()
        with self._beaten:
            # the beat that was under way is only known once it has ended
            self._beaten.wait_for(lambda: self._late and self._late[-1][0] - PULSE_SECONDS >= now)
            return sum(
                late
                for due, late in self._late
                if late > NEGLIGIBLE and due - PULSE_SECONDS < now and due + late > since
            )

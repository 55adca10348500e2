"""One at a time, and a bounded number that wait."""

from __future__ import annotations

import threading
from collections import deque
from math import ceil

from llamabda.errors import Busy
from llamabda.types import Deadline

MAX_RETRY_SECONDS = 60
FIRST_GUESS_SECONDS = 5.0  # how long a generation takes, before one was seen


class Ticket:
    """A place in the queue. `leave` it once; doing so again does nothing."""

    __slots__ = ("_queue",)

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def wait(self, deadline: Deadline) -> bool:
        """Blocks until it is this ticket's turn. False: the deadline passed, or the ticket was given back meanwhile."""
        return self._queue.wait(self, deadline)

    def withdraw(self) -> None:
        """Gives back a ticket whose turn has not come; it does nothing to the one whose turn it is."""
        self._queue.withdraw(self)

    def leave(self) -> None:
        self._queue.leave(self)


class Queue:
    """First come, first served."""

    def __init__(self, waiting: int) -> None:
        """`waiting`: how many may wait beside the one that runs."""
        self._limit = waiting + 1
        # re-entrant: the garbage collector may give a ticket back from inside any of these methods
        self._changed = threading.Condition(threading.RLock())
        self._open: set[Ticket] = set()
        self._line: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._seconds = FIRST_GUESS_SECONDS

    def enter(self) -> Ticket:
        """Busy when the queue is full."""
        with self._changed:
            if len(self._open) >= self._limit:
                seconds = min(MAX_RETRY_SECONDS, max(1, ceil(self._seconds)))
                raise Busy(
                    f"the model is busy and {len(self._open) - 1} more questions wait for it; "
                    f"try again in {seconds} s, or ask with mode extractive",
                    retry_after=seconds,
                )
            ticket = Ticket(self)
            self._open.add(ticket)
            return ticket

    def took(self, seconds: float) -> None:
        """Learns how long one turn takes."""
        with self._changed:
            self._seconds += 0.3 * (seconds - self._seconds)

    def wait(self, ticket: Ticket, deadline: Deadline) -> bool:
        with self._changed:
            self._line.append(ticket)

            def decided() -> bool:
                return ticket not in self._open or (self._running is None and self._line[0] is ticket)

            self._changed.wait_for(decided, deadline.remaining())
            mine = not deadline.passed() and ticket in self._open and decided()
            if ticket in self._line:
                self._line.remove(ticket)
            if mine:
                self._running = ticket
            self._changed.notify_all()
            return mine

    def withdraw(self, ticket: Ticket) -> None:
        with self._changed:
            if self._running is not ticket:
                self.leave(ticket)

    def leave(self, ticket: Ticket) -> None:
        with self._changed:
            self._open.discard(ticket)
            if self._running is ticket:
                self._running = None
            self._changed.notify_all()

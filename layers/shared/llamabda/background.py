"""Values that are slow to make: made once, by one thread, while others go on or wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from llamabda import time_left
from llamabda.errors import DependencyFailed, LlamabdaError

T = TypeVar("T")


class Once(Generic[T]):
    """A provider that makes its value at the first call; callers at the same moment wait for that one.

    A failure is not kept: the next call tries again. DependencyFailed when the deadline of what is under way comes
    while another thread makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._value: T | None = None

    def __call__(self) -> T:
        value = self._value
        if value is None:
            if not self._lock.acquire(timeout=time_left.at_most(threading.TIMEOUT_MAX)):
                message = f"{getattr(self._make, '__name__', 'something')} was still being set up at the deadline"
                raise DependencyFailed(message, dependency="service")
            try:
                value = self._value
                if value is None:
                    value = self._value = self._make()
            finally:
                self._lock.release()
        return value


class Background(Generic[T]):
    """A value that a thread of its own makes, from `start` (or the first `wait`) on."""

    def __init__(self, make: Callable[[], T], *, name: str, retry: float | None = None) -> None:
        """`retry`: after so many seconds a failure is forgotten by the next `start` or `wait`; None: never."""
        self._make = make
        self._name = name
        self._retry = retry
        self._failed_at = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._error: LlamabdaError | None = None

    @property
    def state(self) -> Literal["idle", "loading", "ready", "failed"]:
        if self._value is not None:
            return "ready"
        if self._error is not None:
            return "failed"
        return "idle" if self._thread is None else "loading"

    def start(self) -> None:
        """Returns at once; further calls do nothing while it is made, or there."""
        with self._lock:
            if self._error is not None and self._retry is not None and time.monotonic() > self._failed_at + self._retry:
                self._error = self._thread = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"load-{self._name}", daemon=True)
                self._thread.start()

    def peek(self) -> T | None:
        """The value when it is there. Raises what the making raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout: float | None = None) -> T | None:
        """The value; None when it is not there after `timeout` seconds. Raises what the making raised."""
        self.start()
        if self._thread is not None:
            self._thread.join(timeout)
        return self.peek()

    def _run(self) -> None:
        try:
            self._value = self._make()
        except LlamabdaError as exc:
            self._failed_at = time.monotonic()
            self._error = exc
        except Exception:
            self._failed_at = time.monotonic()
            self._error = LlamabdaError(f"the {self._name} could not be made: an unexpected failure, see the log")
            raise

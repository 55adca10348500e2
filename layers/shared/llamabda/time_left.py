"""By when what is under way must have ended: said once, where a request comes in, it counts for every call below.

Without it, as on the command line, nothing is cut short. A thread that is started does not inherit it: what goes on
beside a request has all the time it wants.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

from llamabda.types import Deadline

T = TypeVar("T")

_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class TimeIsUp(TimeoutError):
    """Somebody who was asked has not answered by the deadline."""


def begin(deadline: Deadline) -> None:
    """For the rest of this task or thread."""
    _current.set(deadline)


def current() -> Deadline | None:
    """None: there is none."""
    return _current.get()


@contextmanager
def within(deadline: Deadline | None) -> Iterator[None]:
    """For the block. One that is earlier goes on counting; None changes nothing."""
    outer = _current.get()
    if deadline is None or (outer is not None and outer.at <= deadline.at):
        yield
        return
    token = _current.set(deadline)
    try:
        yield
    finally:
        _current.reset(token)


def at_most(seconds: float) -> float:
    """So many, or what is left when that is less."""
    deadline = _current.get()
    return seconds if deadline is None else min(seconds, deadline.remaining())


def bounded(call: Callable[[], T], seconds: float = math.inf) -> T:
    """What `call` returns or raises; TimeIsUp when that is not there in `seconds`, nor by the deadline.

    A socket's time-out counts from one part to the next, and neither for resolving a name: a peer that sends a byte a
    second, or a name server that is silent, would hold a caller up for ever. So the call has a thread of its own, which
    is left behind when the time is up. It must end by itself some time, and its result must not matter then.
    """
    seconds = at_most(seconds)
    if seconds == math.inf:
        return call()
    if seconds <= 0:
        raise TimeIsUp("there was no time left to ask")
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as exc:  # noqa: BLE001  (raised again where somebody waits for it)
            failure.append(exc)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="bounded", daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if failure:
        raise failure[0]
    if not result:
        raise TimeIsUp(f"there was no answer in {seconds:.1f} s")
    return result[0]


def together(jobs: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """Does them at the same time, under the same deadline, and returns what they return, in their order.

    The first one's failure is raised, once all have ended.
    """
    if len(jobs) < 2 or threads < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(min(len(jobs), threads), thread_name_prefix="together") as pool:
        return [job.result() for job in [pool.submit(copy_context().run, job) for job in jobs]]

"""Goes on with the work in the queue: what a request had no time for, and what a process left when it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamabda.errors import LlamabdaError
from llamabda.ingest import Ingest
from llamabda.ports import WorkerQueue
from llamabda.types import Lease

log = logging.getLogger("llamabda.worker")

LEASE_SECONDS = 60.0  # after a crash the work is taken again this much later
BATCH = 16  # documents taken together: small ones share a batch of chunks
POLL_SECONDS = 1.0
SWEEP_SECONDS = 60.0  # what was replaced stays for as long, anyway
MAX_ATTEMPTS = 5
BACKOFF = (5.0, 20.0, 80.0, 320.0)  # seconds before each further attempt


@dataclass(slots=True)
class Worker:
    """One thread that works until it is told to stop. Several may share a queue."""

    ingest: Callable[[], Ingest]
    queue: Callable[[], WorkerQueue]
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _sweep_at: float = 0.0  # seconds, monotonic
    _doubt: bool = False  # whether the last work that failed did so for want of the index

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Ends after the batch that is under way; True when it has. What is left stays in the queue."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        said = ""
        while not self._stop.is_set():
            worked, trouble = 0, ""
            try:
                worked = self.once()
            except LlamabdaError as exc:
                trouble = exc.message
                if trouble != said:
                    log.warning("the queue cannot be worked on now: %s", trouble)
            except Exception:
                # the border of the thread: a defect must not end it
                log.exception("unexpected failure while looking at the queue")
            said = trouble
            if not worked:
                self._stop.wait(POLL_SECONDS)

    def once(self) -> int:
        """Takes what is due and works on it; returns how many documents that were.

        LlamabdaError when there is no embedder: that is no fault of the work, so none is taken.
        """
        ingest = self.ingest()
        try:
            return self._work(ingest)
        finally:
            if time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_SECONDS
                ingest.sweep()
                ingest.discard()

    def _work(self, ingest: Ingest) -> int:
        space = ingest.writable()
        if self._doubt:
            space.index.ping()  # what failed for want of it is not to fail as often as it may
            self._doubt = False
        queue = self.queue()
        leases = {lease.key: lease for lease in queue.take(limit=BATCH, seconds=LEASE_SECONDS)}
        for lease in leases.values():
            if lease.attempts > MAX_ATTEMPTS:
                self._give_up(ingest, lease, f"given up after {MAX_ATTEMPTS} attempts; the last one did not end")
        keys = [key for key, lease in leases.items() if lease.attempts <= MAX_ATTEMPTS]
        try:
            for outcome in ingest.work(keys, alive=_Extending(queue, list(leases.values()))):
                lease = leases.pop(outcome.key)
                self._doubt = self._doubt or outcome.again
                if not outcome.again:
                    queue.done(lease)
                elif lease.attempts >= MAX_ATTEMPTS:
                    self._give_up(ingest, lease, f"given up after {MAX_ATTEMPTS} attempts: {outcome.trained.error}")
                else:
                    log.info(
                        "attempt %d at %r did not succeed: %s",
                        lease.attempts,
                        outcome.key.doc_id,
                        outcome.trained.error,
                    )
                    queue.retry(lease, delay=BACKOFF[lease.attempts - 1])
        except Exception:
            # the border of the thread: a defect must not end it; the lease runs out and the work is tried again
            log.exception("unexpected failure while working on the queue")
        return len(keys)

    def _give_up(self, ingest: Ingest, lease: Lease, why: str) -> None:
        ingest.catalog.fail(lease.key, why)
        self.queue().done(lease)


class _Extending:
    """Keeps leases while the work on them goes on."""

    def __init__(self, queue: WorkerQueue, leases: Sequence[Lease]) -> None:
        self._queue = queue
        self._leases = leases
        self._at = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._at > LEASE_SECONDS / 4:
            self._at = time.monotonic()
            self._queue.extend(self._leases, seconds=LEASE_SECONDS)

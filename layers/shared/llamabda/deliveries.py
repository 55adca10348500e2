"""Use case: what the queue delivers is done, sent on to be tried again, or buried with the reason.

A delivery is acknowledged only when what it says is durable: indexed, stored with its work queued, or sent on. A record
that fails does so alone. Deliveries come at least once and in any order; the catalog's sequencers put them in theirs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamabda import events
from llamabda.chunking import Chunking
from llamabda.errors import InvalidInput, LlamabdaError, NotFound, TooLarge, UnsupportedMedia
from llamabda.events import Nonsense, ObjectCreated, ObjectDeleted, Record, Sweep, Work
from llamabda.ingest import Ingest, Outcome
from llamabda.ports import Extractor, Letters, ObjectStore
from llamabda.types import Deadline, GenerationKey, NewDocument

log = logging.getLogger("llamabda.deliveries")

MAX_OBJECT_BYTES = 100_000_000  # read whole into memory
LAST_RECEIVE = 3  # what ended its worker twice is not tried again: the queue would bury it without a reason
MAX_ATTEMPTS = 10
BACKOFF = (5.0, 20.0, 80.0, 320.0)  # seconds before further attempts; later ones wait for the last of these
SWEEP_SECONDS = 60.0
UNREADABLE = (UnsupportedMedia, TooLarge, InvalidInput)  # what no further attempt changes


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message. `receives`: how often it was delivered, this time included."""

    id: str
    body: str
    receives: int


@dataclass(slots=True)
class Deliveries:
    """Works on batches of messages. `bucket`: the one whose objects are documents."""

    ingest: Callable[[], Ingest]
    letters: Letters
    objects: ObjectStore
    extractor: Callable[[], Extractor]
    bucket: str
    _sweep_at: float = field(default=0.0, init=False)  # seconds, monotonic

    def __call__(self, batch: Sequence[Delivery], *, until: Deadline) -> list[str]:
        """The ids of what must be delivered again: it could neither be done nor sent on."""
        undone: dict[str, None] = {}
        work: dict[GenerationKey, list[tuple[str, Record]]] = {}
        for delivery in batch:
            try:
                for record in events.parse(delivery.body):
                    key = self._taken(record, delivery.receives, until)
                    if key is not None:
                        work.setdefault(key, []).append((delivery.id, record))
            except LlamabdaError as exc:
                log.warning("message %s is to be delivered again: %s", delivery.id, exc.message)
                undone[delivery.id] = None
        for outcome in self.ingest().work(list(work), until=until):
            waiting = work[outcome.key]
            try:
                self._settle(outcome, waiting[0][1])
            except LlamabdaError as exc:
                log.warning("%r is to be delivered again: %s", outcome.key.doc_id, exc.message)
                undone.update((id, None) for id, _ in waiting)
        self._sweep(until)
        return list(undone)

    def _taken(self, record: Record, receives: int, until: Deadline) -> GenerationKey | None:
        """What there is to make; None when the record is settled."""
        event = record.event
        if isinstance(event, Nonsense):
            self._bury(record, event.why)
        elif receives >= LAST_RECEIVE:
            self._give_up(record, f"given up: the work on it ended {receives - 1} times without a result")
        elif until.passed():
            self.letters.send(events.again(record, attempt=record.attempt), delay=0.0)
        elif isinstance(event, Work):
            return event.key
        elif isinstance(event, Sweep):
            self._sweep_at = 0.0
        else:
            return self._stored(event, record)
        return None

    def _stored(self, event: ObjectCreated | ObjectDeleted, record: Record) -> GenerationKey | None:
        try:
            return self._changed(event)
        except UNREADABLE as exc:
            self._give_up(record, exc.message)
        except LlamabdaError as exc:
            log.warning("attempt %d at %s did not succeed: %s", record.attempt, _named(record), exc.message)
            self._later(record, exc.message)
        return None

    def _changed(self, event: ObjectCreated | ObjectDeleted) -> GenerationKey | None:
        """Stores the text of an object that is there; forgets the document of one that is not."""
        if event.bucket != self.bucket:
            raise InvalidInput(f"the object lies in the bucket {event.bucket!r}, and not in {self.bucket!r}")
        tenant, doc_id = events.owner(event.key), f"s3:{event.key}"
        if isinstance(event, ObjectDeleted) and event.version is None:
            self._forget(tenant, doc_id, event)
            return None
        if event.key.endswith("/"):
            return None  # how folders are made
        # of one version that is gone another one may be the object now
        version = event.version if isinstance(event, ObjectCreated) else None
        try:
            data = self.objects.read(event.bucket, event.key, version=version, limit=MAX_OBJECT_BYTES).data
        except NotFound:
            if isinstance(event, ObjectDeleted):
                self._forget(tenant, doc_id, event)
            return None  # of an object that was made, the event of its end follows, or has been seen
        name = event.key.rpartition("/")[2]
        document = NewDocument(doc_id, self.extractor().extract(data, name=name), source=_source(event))
        return self.ingest().receive(tenant, document, chunking=Chunking(), sequencer=event.sequencer)

    def _forget(self, tenant: str, doc_id: str, event: ObjectDeleted) -> None:
        self.ingest().catalog.delete(tenant, doc_id, sequencer=event.sequencer)

    def _settle(self, outcome: Outcome, record: Record) -> None:
        """After the work on a generation."""
        key, error = outcome.key, outcome.trained.error
        if outcome.again:
            made = Record(Work(key), events.work(key), record.attempt)  # its text is stored by now
            if error is None:
                self.letters.send(events.again(made, attempt=made.attempt), delay=0.0)  # there was no time left
            else:
                self._later(made, error)
        elif (
            outcome.trained.state == "failed"
            and not isinstance(record.event, Work)
            and self.ingest().catalog.get(key.tenant, key.doc_id) is not None  # else it was deleted meanwhile
        ):
            self._bury(record, error or "it could not be made")

    def _later(self, record: Record, why: str) -> None:
        if record.attempt >= MAX_ATTEMPTS:
            self._give_up(record, f"given up after {MAX_ATTEMPTS} attempts: {why}")
            return
        delay = BACKOFF[min(record.attempt, len(BACKOFF)) - 1]
        self.letters.send(events.again(record, attempt=record.attempt + 1), delay=delay)

    def _give_up(self, record: Record, why: str) -> None:
        """Whoever looks at the document, or into the queue of what failed, reads why."""
        event = record.event
        ingest = self.ingest()
        if isinstance(event, Work):
            ingest.catalog.fail(event.key, why)
        elif isinstance(event, ObjectCreated) and event.bucket == self.bucket:
            self._fail(event, why)
        self._bury(record, why)

    def _fail(self, event: ObjectCreated, why: str) -> None:
        try:
            tenant = events.owner(event.key)
        except InvalidInput:
            return  # nobody's document
        ingest = self.ingest()
        doc_id = f"s3:{event.key}"
        generation = ingest.catalog.begin(tenant, doc_id, source=_source(event), metadata={}, sequencer=event.sequencer)
        if generation is not None:
            ingest.catalog.fail(GenerationKey(tenant, doc_id, generation), why)

    def _bury(self, record: Record, why: str) -> None:
        log.warning("%s is put aside: %s", _named(record), why)
        self.letters.bury(record.body, why)

    def _sweep(self, until: Deadline) -> None:
        if time.monotonic() < self._sweep_at or until.passed():
            return
        self._sweep_at = time.monotonic() + SWEEP_SECONDS
        try:
            self.ingest().sweep()
            self.ingest().discard()
        except LlamabdaError as exc:  # the next one does it
            log.warning("what nobody wants any more cannot be removed now: %s", exc.message)


def _source(event: ObjectCreated | ObjectDeleted) -> str:
    return f"s3://{event.bucket}/{event.key}"


def _named(record: Record) -> str:
    match record.event:
        case ObjectCreated(key=key) | ObjectDeleted(key=key):
            return f"the object {key[:100]!r}"
        case Work(key):
            return f"{key.doc_id[:100]!r}"
        case Sweep():
            return "a sweep"
    return "a message"

"""Use case: what the queue delivers is done, sent on to be tried again, or buried with the reason.

A delivery is acknowledged only when what it says is durable: indexed, stored with its work queued, or sent on. A record
that fails does so alone. Deliveries come at least once and in any order; the catalog's sequencers put them in theirs.

What is delivered once more may have ended its worker, and its neighbours with it: of such deliveries one is worked on,
and the others are sent on to come one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from llamabda import events, time_left
from llamabda.chunking import Chunking
from llamabda.errors import InvalidInput, LlamabdaError, NotFound, TooLarge, UnsupportedMedia
from llamabda.events import Nonsense, ObjectCreated, ObjectDeleted, Record, Sweep, Work
from llamabda.ingest import Ingest, Outcome
from llamabda.ports import Extractor, Letters, ObjectStore
from llamabda.succession import behind
from llamabda.types import Deadline, GenerationKey, NewDocument

log = logging.getLogger("llamabda.deliveries")

MAX_OBJECT_BYTES = 100_000_000  # read whole into memory
LAST_RECEIVE = 3  # of one message: after it the queue would bury it without a reason
MAX_ATTEMPTS = 10
APART_SECONDS = 10.0  # between deliveries that are to come one by one
READ_SECONDS = 75.0  # longer than fetching and reading one file takes
CUT_SECONDS = 10.0  # after `until` nobody waits any longer than that for what is under way
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
        again = [delivery for delivery in batch if delivery.receives > 1]
        for place, delivery in enumerate([*again[:1], *(one for one in batch if one.receives <= 1), *again[1:]]):
            apart = APART_SECONDS * (place - len(batch) + len(again)) if delivery in again[1:] else 0.0
            try:
                for number, record in enumerate(events.parse(delivery.body)):
                    first = place == number == 0
                    key = self._taken(record, delivery.receives, until, first=first, apart=apart)
                    if key is not None:
                        work.setdefault(key, []).append((delivery.id, record))
            except LlamabdaError as exc:
                log.warning("message %s is to be delivered again: %s", delivery.id, exc.message)
                undone[delivery.id] = None
            except Exception:  # a defect, which must not hold up the others
                log.exception("message %s is to be delivered again", delivery.id)
                undone[delivery.id] = None
        self._work(work, until, undone)
        self._sweep(until)
        return list(undone)

    def _work(
        self, work: Mapping[GenerationKey, Sequence[tuple[str, Record]]], until: Deadline, undone: dict[str, None]
    ) -> None:
        """Makes generations. What can neither be done nor sent on is added to `undone`."""
        left = dict(work)
        try:
            for outcome in self.ingest().work(list(left), until=until, cut=Deadline(until.at + CUT_SECONDS)):
                waiting = left[outcome.key]
                self._or_undone(partial(self._settle, outcome, waiting[0][1]), waiting, undone)
                del left[outcome.key]
        except LlamabdaError as exc:  # what the work stands on: no document's fault
            for key, waiting in left.items():
                made = Record(Work(key), events.work(key), waiting[0][1].attempt)  # its text is stored by now
                self._or_undone(partial(self._later, made, exc.message), waiting, undone)
        except Exception:  # a defect, which must not hold up the others
            log.exception("the work on %d documents ended", len(left))
            for key, waiting in left.items():
                if len(work) > 1:
                    self._work({key: waiting}, until, undone)
                else:
                    undone.update((id, None) for id, _ in waiting)

    @staticmethod
    def _or_undone(settle: Callable[[], None], waiting: Sequence[tuple[str, Record]], undone: dict[str, None]) -> None:
        try:
            settle()
        except LlamabdaError as exc:
            log.warning("%s is to be delivered again: %s", _named(waiting[0][1]), exc.message)
            undone.update((id, None) for id, _ in waiting)

    def _taken(
        self, record: Record, receives: int, until: Deadline, *, first: bool, apart: float
    ) -> GenerationKey | None:
        """What there is to make; None when the record is settled. `apart`: in how many seconds it is to come alone."""
        event = record.event
        if isinstance(event, Nonsense):
            self._bury(record, event.why)
        elif isinstance(event, Sweep):
            self._sweep_at = 0.0
        elif receives > 1 and self._done(event):
            log.info("%s was done when it was delivered before", _named(record))
        elif receives >= LAST_RECEIVE:
            self._once_more(record, f"given up: the work on it ended {receives - 1} times without a result")
        elif apart:
            self.letters.send(events.again(record, attempt=min(record.attempt + 1, MAX_ATTEMPTS)), delay=apart)
        elif until.passed() or (not first and not isinstance(event, Work) and until.remaining() < READ_SECONDS):
            self.letters.send(events.again(record, attempt=record.attempt), delay=0.0)
        elif isinstance(event, Work):
            return event.key
        else:
            return self._stored(event, record, until)
        return None

    def _done(self, event: ObjectCreated | ObjectDeleted | Work) -> bool:
        """Whether readers see what it says, or something later."""
        catalog = self.ingest().catalog
        if isinstance(event, Work):
            found = catalog.get(event.key.tenant, event.key.doc_id)
            return found is not None and found.generation == event.key.generation
        try:
            found = catalog.get(events.owner(event.key), f"s3:{event.key}")
        except InvalidInput:
            return False
        if found is None or found.generation is None or found.sequencer is None or event.sequencer is None:
            return False
        return not behind(found.sequencer, event.sequencer)

    def _stored(self, event: ObjectCreated | ObjectDeleted, record: Record, until: Deadline) -> GenerationKey | None:
        try:
            with time_left.within(Deadline(until.at + CUT_SECONDS)):
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
        if isinstance(event, ObjectCreated) and event.key.endswith("/"):
            return None  # how folders are made
        tenant, doc_id = events.owner(event.key), f"s3:{event.key}"
        if isinstance(event, ObjectDeleted) and event.version is None:
            self._forget(tenant, doc_id, event)
            return None
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
            why = f"given up after {MAX_ATTEMPTS} attempts: {why}"
            if isinstance(record.event, Work):
                # its text is kept: whoever sends the message again has it made, once that is there which was away
                self.ingest().catalog.requeue(record.event.key, why)
                self._bury(record, why)
            else:
                self._give_up(record, why)
            return
        delay = BACKOFF[min(record.attempt, len(BACKOFF)) - 1]
        self.letters.send(events.again(record, attempt=record.attempt + 1), delay=delay)

    def _once_more(self, record: Record, why: str) -> None:
        """It may never have been tried: where functions are throttled, deliveries count, too."""
        if record.attempt >= MAX_ATTEMPTS:
            self._give_up(record, why)
        else:
            self.letters.send(events.again(record, attempt=MAX_ATTEMPTS), delay=BACKOFF[-1])

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
            with time_left.within(Deadline(until.at + CUT_SECONDS)):
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

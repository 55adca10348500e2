"""Use case: documents go in whole or not at all.

What was accepted is durable: its text is stored and its work queued before anybody is told so. Each ingestion writes a
new generation of a document (its chunks), makes it searchable, and only then makes it live by one conditional write in
the catalog. Whatever stops it half-way, readers go on seeing the former generation, and whoever takes the work from the
queue goes on where it stopped. What will never be live is garbage, which is swept later.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from llamabda import time_left
from llamabda.chunking import Chunking
from llamabda.errors import Busy, DependencyFailed, Gone, InvalidInput, LlamabdaError, ModelError, NotFound
from llamabda.ports import Catalog, Embeddings, Indexes, Queue, TextStore
from llamabda.preparation import BATCH_CHUNKS, Known, Prepared, index, instructions, known_vectors, prepare
from llamabda.space import Space
from llamabda.time_left import together
from llamabda.types import Chunk, Deadline, DocState, Document, GenerationKey, NewDocument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("llamabda.ingest")

GRACE = timedelta(seconds=60)  # a reader that saw a generation live may still fetch its text this much later
ABANDONED = timedelta(hours=1)  # longer than any ingestion takes: one that began earlier has died
RETIRED = timedelta(minutes=10)  # processes that follow to new vectors read the old ones for a while
UNFINISHED = timedelta(days=1)  # a reindexing that nobody has gone on with for so long is given up
TEXT_SECONDS = 30.0  # longer than storing one text takes
SETTLE_SECONDS = 2.0  # of the time for a reply, a quarter at most: kept for saying what of the work is left
TOO_LATE = 0.1  # seconds before a deadline, with which left nobody is asked any more
HOLD_SECONDS = 30.0  # so long others leave alone what is being worked on by whoever accepted it
TRANSIENT = (DependencyFailed, Busy, ModelError)  # what may go well another time

TrainedState: TypeAlias = DocState | Literal["unchanged"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of one document. `chunks` and `generation` are those that readers see now."""

    id: str
    state: TrainedState
    chunks: int
    generation: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one piece of work; `again`: it is not finished, and should be tried again."""

    key: GenerationKey
    trained: Trained
    again: bool = False


@dataclass(frozen=True, slots=True)
class Tidied:
    """How many generations and indexes are gone; `whole`: nothing is left of what was due."""

    generations: int
    indexes: int
    whole: bool


class _OutOfTime(Exception):
    """The rest has to wait for another worker."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """Writes and reads documents of one or more tenants. `space` is called late: loading a model takes a while.

    `at_once`: how many documents are stored at the same time, which helps where a store is far away.
    """

    catalog: Catalog
    space: Callable[[], Space]  # to read
    writable: Callable[[], Space]
    texts: TextStore
    queue: Queue
    indexes: Indexes
    embeddings: Embeddings
    at_once: int = 1

    def train(
        self,
        tenant: str,
        documents: Sequence[NewDocument],
        *,
        chunking: Chunking,
        until: Deadline | None = None,
        progress: Callable[[Trained], None] | None = None,
    ) -> list[Trained]:
        """Accepts documents and makes them answerable, each on its own, so that one failure leaves the others.

        What is not done by `until`, and what may go well another time, stays in the queue: its state is "queued". So
        does what waits for an index, a model or a store shortly before the deadline of what is under way.
        Raises InvalidInput, before anything is written, when a text is empty or not Unicode, or an id occurs twice.
        """
        keys = self.accept(tenant, documents, chunking=chunking, delay=HOLD_SECONDS)
        held = time.monotonic()

        def hold() -> None:
            nonlocal held
            if time.monotonic() - held > HOLD_SECONDS / 3:
                held = time.monotonic()
                self.queue.put(open_keys, delay=HOLD_SECONDS)

        open_keys = list(keys)
        results: dict[GenerationKey, Trained] = {}
        for outcome in self.work(keys, until=until, cut=_cut(), alive=hold):
            results[outcome.key] = outcome.trained
            if not outcome.again:
                open_keys.remove(outcome.key)
                self.queue.withdraw([outcome.key])
            if progress is not None:
                progress(outcome.trained)
        self.queue.put(open_keys)
        if until is None:  # who has no time leaves it to the worker
            try:
                self.sweep()
            except LlamabdaError as exc:  # what was trained is trained; the next one sweeps
                log.warning("what nobody wants any more cannot be removed now: %s", exc.message)
        return [results[key] for key in keys]

    def accept(
        self, tenant: str, documents: Sequence[NewDocument], *, chunking: Chunking, delay: float = 0.0
    ) -> list[GenerationKey]:
        """Stores documents and queues the work; once this returns, nothing is lost. Raises as `train` does.

        `delay`: seconds in which the caller means to do the work itself.
        """
        for at, document in enumerate(documents):
            _check(document, at)
        _check_distinct(documents)
        keys: list[GenerationKey] = []
        for first in range(0, len(documents), self.at_once):
            keys += self._accepted(tenant, documents[first : first + self.at_once], chunking, delay)
        self.queue.put(keys, delay=delay)
        return keys

    def _accepted(
        self, tenant: str, documents: Sequence[NewDocument], chunking: Chunking, delay: float
    ) -> list[GenerationKey]:
        begun: dict[int, GenerationKey] = {}

        def begin(at: int) -> None:
            document = documents[at]
            generation = self.catalog.begin(
                tenant,
                document.id,
                source=document.source,
                metadata=document.metadata,
                state="queued",
                instructions=instructions(chunking),
            )
            if generation is None:
                raise AssertionError("a write without a sequencer is never superseded at its beginning")
            begun[at] = GenerationKey(tenant, document.id, generation)

        places = range(len(documents))
        try:
            together([partial(begin, at) for at in places], self.at_once)
        finally:
            # queued before its text is there: a crash in between is found, and told, when the work is taken
            if begun:
                self.queue.put([begun[at] for at in sorted(begun)], delay=max(delay, TEXT_SECONDS))
        together([partial(self.texts.put, begun[at], documents[at].text) for at in places], self.at_once)
        return [begun[at] for at in places]

    def receive(
        self, tenant: str, document: NewDocument, *, chunking: Chunking, sequencer: str | None
    ) -> GenerationKey | None:
        """Stores a document whose work somebody else keeps in a queue, and returns what is to be made.

        None: the source has said something later already. Raises InvalidInput when its text is empty.
        """
        _check(document, 0)
        generation = self.catalog.begin(
            tenant,
            document.id,
            source=document.source,
            metadata=document.metadata,
            state="queued",
            sequencer=sequencer,
            instructions=instructions(chunking),
        )
        if generation is None:
            return None
        key = GenerationKey(tenant, document.id, generation)
        self.texts.put(key, document.text)
        return key

    def work(
        self,
        keys: Sequence[GenerationKey],
        *,
        until: Deadline | None = None,
        cut: Deadline | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> Iterator[Outcome]:
        """Makes generations that were accepted. `alive` is called every few seconds while it goes on.

        After `until` nothing more is begun; at `cut` nobody waits any longer for what is under way.
        """
        batch: list[Prepared] = []
        for place, key in enumerate(keys):
            if until is not None and until.passed():
                yield from self._finish(batch, until, cut, alive)
                yield from (self._later(late, None) for late in keys[place:])
                return
            alive()
            try:
                with time_left.within(cut):
                    prepared = self._prepared(key)
            except LlamabdaError as exc:
                yield self._failed(key, exc)
                continue
            if isinstance(prepared, Outcome):
                yield prepared
                continue
            batch.append(prepared)
            if sum(len(one.chunks) for one in batch) >= BATCH_CHUNKS:
                yield from self._finish(batch, until, cut, alive)
                batch = []
        yield from self._finish(batch, until, cut, alive)

    def delete(self, tenant: str, doc_id: str) -> None:
        """Readers stop seeing the document at once. Raises NotFound."""
        if not self.catalog.delete(tenant, doc_id):
            raise NotFound(f"there is no document {doc_id[:100]!r}")

    def document(self, tenants: Sequence[str], doc_id: str) -> Document:
        """The caller's own document before a shared one of that id. Raises NotFound."""
        for tenant in tenants:
            found = self.catalog.get(tenant, doc_id)
            if found is not None:
                return found
        raise NotFound(f"there is no document {doc_id[:100]!r}")

    def source(self, tenants: Sequence[str], doc_id: str, generation: int | None) -> tuple[str, GenerationKey]:
        """The text that citations of a generation point into; the live one's when `generation` is None.

        Raises NotFound, or Gone when that generation has been replaced.
        """
        key = self._live(tenants, doc_id)
        if generation is not None and generation != key.generation:
            if 0 < generation < key.generation:
                message = f"generation {generation} of {doc_id[:100]!r} has been replaced by {key.generation}"
                raise Gone(message)
            raise NotFound(f"there is no generation {generation} of {doc_id[:100]!r}")
        text = self.texts.get(key)
        if text is None:
            message = f"the text of {doc_id[:100]!r}, generation {key.generation}, is missing; train it again"
            raise DependencyFailed(message, dependency="texts")
        return text, key

    def chunks(
        self, tenants: Sequence[str], doc_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[list[Chunk], str | None]:
        """A page of a live document's chunks in order, and the cursor of the next page.

        Raises NotFound; InvalidInput for a foreign cursor; Gone when the document was replaced between two pages.
        """
        key = self._live(tenants, doc_id)
        after = -1
        if cursor is not None:
            parsed = re.fullmatch(r"(\d{1,18})\.(\d{1,18})", cursor, re.ASCII)
            if parsed is None:
                message = f"cursor {cursor[:100]!r} is not one that a listing returned"
                raise InvalidInput(message, loc=("query", "cursor"), value=cursor)
            if int(parsed[1]) != key.generation:
                message = (
                    f"{doc_id[:100]!r} was replaced by generation {key.generation}: list its chunks from the start"
                )
                raise Gone(message)
            after = int(parsed[2])
        found = list(self.space().index.chunks(key, limit=limit + 1, after=after))
        page = found[:limit]
        return page, f"{key.generation}.{page[-1].ordinal}" if len(found) > limit else None

    def sweep(self) -> int:
        """Removes what no reader can still want; returns how many generations went."""
        now = datetime.now(UTC)
        keys = self.catalog.garbage(before=now - GRACE, abandoned_before=now - ABANDONED)
        if keys:
            self.indexes.delete(keys)
            self.texts.delete(keys)
            self.catalog.swept(keys)  # last: a crash before it only means that the same is deleted again
        return len(keys)

    def discard(self) -> int:
        """Removes whole indexes that nobody searches any more: former models', and those that were never finished.

        Returns how many went.
        """
        now = datetime.now(UTC)
        there = self.indexes.names()  # before the builds are asked for: an index is made after its build is known
        unused = (
            *self.embeddings.discard(retired_before=now - RETIRED, unfinished_before=now - UNFINISHED),
            *(there - self.embeddings.names()),
        )
        for build in unused:
            self.indexes.drop(build)
            self.embeddings.dropped(build)
            log.info("the index %s, which nobody uses any more, is gone", build)
        return len(unused)

    def tidy(self, until: Deadline) -> Tidied:
        """Sweeps until nothing is left that nobody wants, and discards; what there is no time for is for the next one.

        It may be done at any time, twice, and by several at once. A failure is a LlamabdaError: what went is gone.
        """
        generations = 0
        with time_left.within(until):
            while until.remaining() > TOO_LATE:
                try:
                    swept = self.sweep()
                    generations += swept
                    if not swept:
                        return Tidied(generations, self.discard(), whole=True)
                except LlamabdaError:
                    if until.remaining() > TOO_LATE:
                        raise
        return Tidied(generations, 0, whole=False)

    def _live(self, tenants: Sequence[str], doc_id: str) -> GenerationKey:
        document = self.document(tenants, doc_id)
        if document.generation is None:
            raise NotFound(f"document {doc_id[:100]!r} has no searchable version yet: it is {document.state}")
        return GenerationKey(document.tenant, document.id, document.generation)

    def _prepared(self, key: GenerationKey) -> Prepared | Outcome:
        """The document cut into chunks; an Outcome when there is nothing to do."""
        space = self.writable()  # without a model nothing can be made now: better told before anything is begun
        pending = self.catalog.start(key)
        if pending is None:
            return Outcome(key, self._now(key))
        text = self.texts.get(key)
        if text is None:
            self.catalog.fail(key, "its text did not arrive whole; send the document again")
            return Outcome(key, self._now(key))
        prepared = prepare(key, pending, text)
        live = self.catalog.get(key.tenant, key.doc_id)
        if (
            live is not None
            and live.generation is not None
            and (live.sha256, live.recipe, live.source) == (prepared.sha256, prepared.recipe, pending.source)
            and dict(live.metadata) == dict(pending.metadata)
            and self.texts.get(GenerationKey(key.tenant, key.doc_id, live.generation)) is not None
            and self.catalog.unchanged(key, live.generation, build=space.build)
        ):
            return Outcome(key, Trained(key.doc_id, "unchanged", live.chunks, live.generation, None))
        return prepared

    def _finish(
        self, batch: Sequence[Prepared], until: Deadline | None, cut: Deadline | None, alive: Callable[[], None]
    ) -> Iterator[Outcome]:
        """Indexes a batch together; when that fails, each document alone, so that only the culprits fail."""
        if not batch:
            return
        try:
            with time_left.within(cut):
                space = self.writable()
                self._index(batch, space, until, alive)
        except _OutOfTime:
            yield from (self._later(prepared.key, None) for prepared in batch)
            return
        except LlamabdaError as exc:
            if len(batch) == 1 or (isinstance(exc, DependencyFailed) and exc.dependency == "index"):
                yield from (self._failed(prepared.key, exc) for prepared in batch)  # the index's is no document's fault
                return
            for prepared in batch:
                yield from self._finish([prepared], until, cut, alive)
            return
        for prepared in batch:
            yield self._committed(prepared, space)

    def _committed(self, prepared: Prepared, space: Space) -> Outcome:
        pending = prepared.pending
        try:
            self.catalog.commit(
                prepared.key,
                source=pending.source,
                metadata=pending.metadata,
                sha256=prepared.sha256,
                size=prepared.size,
                chunks=len(prepared.chunks),
                recipe=prepared.recipe,
                build=space.build,
                sequencer=pending.sequencer,
            )
        except LlamabdaError as exc:
            return self._failed(prepared.key, exc)
        return Outcome(prepared.key, self._now(prepared.key))

    def _index(
        self, batch: Sequence[Prepared], space: Space, until: Deadline | None, alive: Callable[[], None]
    ) -> None:
        known: dict[tuple[str, str], NDArray[np.float32]] = {}
        for prepared in batch:
            known.update(self._live_vectors(prepared, space))

        def in_time() -> None:
            if until is not None and until.passed():
                raise _OutOfTime
            alive()

        index(batch, space, known=known, alive=in_time)

    def _live_vectors(self, prepared: Prepared, space: Space) -> Known:
        """Of the version that readers see now."""
        key = prepared.key
        live = self.catalog.get(key.tenant, key.doc_id)
        if live is None or live.generation is None or _pipeline(live.recipe) != _pipeline(prepared.recipe):
            return {}
        former = GenerationKey(key.tenant, key.doc_id, live.generation)
        text = self.texts.get(former)
        return {} if text is None else known_vectors(*space.index.vectors(former), text=text)

    def _failed(self, key: GenerationKey, error: LlamabdaError) -> Outcome:
        log.warning("%r of %s cannot be made: %s", key.doc_id, key.tenant, error.message)
        if isinstance(error, TRANSIENT):
            return self._later(key, error.public)
        self.catalog.fail(key, error.public)
        return Outcome(key, self._now(key))

    def _later(self, key: GenerationKey, error: str | None) -> Outcome:
        self.catalog.requeue(key, error)
        return Outcome(key, self._now(key), again=True)

    def _now(self, key: GenerationKey) -> Trained:
        found = self.catalog.get(key.tenant, key.doc_id)
        if found is None:
            return Trained(key.doc_id, "failed", 0, None, "the document was deleted while it was being trained")
        return Trained(key.doc_id, found.state, found.chunks, found.generation, found.error)


def _cut() -> Deadline | None:
    """When to stop waiting, so that what is left can be told in time."""
    due = time_left.current()
    return None if due is None else Deadline(due.at - min(SETTLE_SECONDS, due.remaining() / 4))


def _pipeline(recipe: str) -> str:
    """What a chunk's vector depends on beside its text and its embedder."""
    return recipe.partition(":")[0]


def _check(document: NewDocument, at: int) -> None:
    loc = ("body", "docs", at, "text")
    if not document.text.strip():
        raise InvalidInput(f"document {document.id[:100]!r} has no text: nothing could ever be found in it", loc=loc)
    try:
        document.text.encode()
    except UnicodeEncodeError as exc:
        message = f"the text of {document.id[:100]!r} holds a lone surrogate at position {exc.start}: it is not Unicode"
        raise InvalidInput(message, loc=loc) from exc


def _check_distinct(documents: Sequence[NewDocument]) -> None:
    seen: set[str] = set()
    for at, document in enumerate(documents):
        if document.id in seen:
            message = f"the id {document.id[:100]!r} occurs twice in this request"
            raise InvalidInput(message, loc=("body", "docs", at, "id"), value=document.id)
        seen.add(document.id)

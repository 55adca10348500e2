"""Reads and writes of single documents with their generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from llamabda.adapters.dynamodb import counts, layout
from llamabda.adapters.dynamodb.head import Head, head
from llamabda.adapters.dynamodb.items import Record, Version, generation_key, record, version
from llamabda.adapters.dynamodb.records import Action, Item, Records, text
from llamabda.succession import INTERRUPTED, QUEUED, behind
from llamabda.types import GenerationKey

BURIED = 100  # generations in one transaction


class Documents:
    """What is read here is not read at one instant; but a write is refused (Outdated) when the document, or one of its
    generations, has been written since it was read."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def get(self, tenant: str, doc_id: str) -> Record | None:
        item = self._records.get(layout.document(tenant, doc_id))
        return None if item is None else record(item)

    def read_many(self, documents: Iterable[tuple[str, str]]) -> tuple[Head, list[Record]]:
        """Of (tenant, document id), those that are there."""
        wanted = {layout.document(*document) for document in documents}
        found = self._records.get_many([layout.HEAD, *sorted(wanted)])
        return head(found.pop(layout.HEAD, None)), [record(item) for item in found.values()]

    def read(self, key: GenerationKey) -> tuple[Record | None, Version | None]:
        keys = layout.document(key.tenant, key.doc_id), layout.generation(key)
        return _parsed(*map(self._records.get_many(keys).get, keys))

    def read_all(self, key: GenerationKey) -> tuple[Head, Record | None, Version | None]:
        keys = layout.HEAD, layout.document(key.tenant, key.doc_id), layout.generation(key)
        first, *others = map(self._records.get_many(keys).get, keys)
        return head(first), *_parsed(*others)

    def pending(self, key: GenerationKey) -> tuple[Record | None, Version | None]:
        """No version where it is not to be made any more."""
        document, generation = self.read(key)
        waiting = document is not None and generation is not None and document.awaits(generation)
        return document, generation if waiting else None

    def begun_before(self, key: GenerationKey) -> list[GenerationKey]:
        """The document's earlier generations that are still to be made."""
        pages = self._records.query(
            "#pk = :pk AND #sk < :nth",
            {
                ":pk": text(layout.generations(key.tenant, key.doc_id)),
                ":nth": text(layout.nth(key.generation)),
                ":pending": text("pending"),
            },
            where="#phase = :pending",
            attributes=("tenant", "id", "generation"),
        )
        return [generation_key(item) for page in pages for item in page.items]

    def write(
        self, before: Record | None, after: Record, versions: Sequence[Version], *, head: Head | None = None
    ) -> None:
        """In one transaction with what it changes in the counts.

        `head`: to be given where the live generation changes. It has to be of the turn in which this is written.
        """
        actions = [self._put(before, after), *(self._records.put_action(one.item) for one in versions)]
        actions += counts.count_state(self._records, before, after)
        if head is not None:
            actions.append(counts.count_vectors(self._records, head, after.shard, [(before, after)]))
        if before is None and self._records.get(layout.tenant(after.tenant)) is None:
            actions.append(self._records.put_action(layout.tenant(after.tenant).item))
        self._records.write(actions)

    def mark(self, head: Head, changes: Sequence[tuple[Record, Record]]) -> None:
        """Writes documents of one shard of which only the marks change, in one transaction."""
        puts = [self._put(before, after) for before, after in changes]
        self._records.write([*puts, counts.count_vectors(self._records, head, changes[0][0].shard, changes)])

    def refuse(self, before: Record | None, key: GenerationKey, now: datetime) -> None:
        """The generation is garbage, whether it was known or not; nothing else changes."""
        buried = Version(key, "dead", now)
        if before is not None:
            self.write(before, before, [buried])
            return
        absent = self._records.check_action(layout.document(key.tenant, key.doc_id), "attribute_not_exists(#pk)")
        self._records.write([absent, self._records.put_action(buried.item)])

    def fail(self, key: GenerationKey, error: str, now: datetime) -> None:
        def attempt() -> None:
            before, made = self.pending(key)
            if before is not None and made is not None:
                self.write(before, _failed(before, made, error, now), [Version(key, "dead", now)])

        self._records.retried(attempt)

    def give_up(self, key: GenerationKey, abandoned_before: datetime, now: datetime) -> bool:
        """Fails a generation that is abandoned. False: it is not, or need not be."""

        def attempt() -> bool:
            before, made = self.read(key)
            if before is None or made is None or made.phase != "pending":
                return False
            if not before.awaits(made):  # its burial was left out by a crash
                self.write(before, before, [Version(key, "dead", now)])
                return True
            if not _abandoned(before, made, abandoned_before, now):
                return False
            self.write(before, _failed(before, made, INTERRUPTED, now), [Version(key, "dead", now)])
            return True

        return self._records.retried(attempt)

    def bury(self, versions: Sequence[Version]) -> None:
        """Generations that their document says are dead."""
        for at in range(0, len(versions), BURIED):
            actions = [self._records.put_action(one.item) for one in versions[at : at + BURIED]]
            self._records.retried(partial(self._records.write, actions))

    def _put(self, before: Record | None, after: Record) -> Action:
        known = 0 if before is None else before.version
        return self._records.put_action(replace(after, version=known + 1).item, *counts.unchanged(known))


def _parsed(document: Item | None, generation: Item | None) -> tuple[Record | None, Version | None]:
    return None if document is None else record(document), None if generation is None else version(generation)


def _failed(document: Record, made: Version, error: str, now: datetime) -> Record:
    if behind(made.sequencer, document.sequencer):
        return document.superseded(made.key, now)
    return document.told(made.key, "failed", error, now)


def _abandoned(document: Record, made: Version, abandoned_before: datetime, now: datetime) -> bool:
    """What has instructions is in a queue, for as long as a queue keeps it; so is what the document says is queued."""
    queued = bool(made.instructions) or (document.state == "queued" and document.last == made.key.generation)
    return made.since < (min(abandoned_before, now - QUEUED) if queued else abandoned_before)

"""The catalog of documents in DynamoDB.

Every change of a document reads it, decides, and writes what it has decided in one transaction: the document, its
generations and the counts, on condition that the document is still as it was read. Else it begins anew. Where a method
needs more than one transaction, that is said there.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from llamabda.adapters.dynamodb import counts, garbage, layout
from llamabda.adapters.dynamodb.documents import Documents
from llamabda.adapters.dynamodb.items import Record, Version, dump, record
from llamabda.adapters.dynamodb.records import LONGEST_PAGE, PATIENCE, Records, text
from llamabda.cursors import decode, encode, foreign
from llamabda.errors import DependencyFailed
from llamabda.succession import behind, may_go_live
from llamabda.types import DocState, Document, DocumentPage, GenerationKey, Metadata, Pending

OVERTAKEN = 90  # generations that are buried in the transaction that overtakes them; it has 100 items
LIST_QUERIES = 25  # of 1,000 items each, for one page of a listing: a reply is due after 25 seconds


class DynamoCatalog:
    """The Catalog port over one table, by a boto3 client."""

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._records = Records(client, table, patience=patience)
        self._documents = Documents(self._records)
        self._now = clock

    def begin(
        self,
        tenant: str,
        doc_id: str,
        *,
        source: str,
        metadata: Metadata,
        state: DocState = "processing",
        sequencer: str | None = None,
        instructions: str = "",
    ) -> int | None:
        now, described = self._now(), dump(metadata)

        def attempt() -> int | None:
            before = self._documents.get(tenant, doc_id)
            if before is not None and behind(sequencer, before.sequencer):
                return None
            if before is None:
                after = Record(tenant, doc_id, source, state, 1, now, now, described)
            elif before.state == "deleted":  # it starts a new life
                after = replace(
                    before, source=source, metadata=described, state=state, error=None, created_at=now, updated_at=now
                )
            else:
                after = replace(before, state=state, error=None, updated_at=now)
            after = replace(after, last=1 if before is None else before.last + 1)
            key = GenerationKey(tenant, doc_id, after.last)
            begun = Version(key, "pending", now, source, described, instructions, sequencer)
            self._documents.write(before, after, [begun])
            return after.last

        return self._records.retried(attempt)

    def start(self, key: GenerationKey) -> Pending | None:
        now = self._now()

        def attempt() -> Pending | None:
            before, made = self._documents.pending(key)
            if before is None or made is None:
                return None
            if not _may_go_live(before, key, made.sequencer):
                self._documents.write(before, before.superseded(key, now), [Version(key, "dead", now)])
                return None
            after = before.told(key, "processing", None, now)
            self._documents.write(before, after, [replace(made, since=now)])
            return made.pending

        return self._records.retried(attempt)

    def requeue(self, key: GenerationKey, error: str | None) -> None:
        now = self._now()

        def attempt() -> None:
            before, made = self._documents.pending(key)
            if before is not None and made is not None:
                self._documents.write(before, before.told(key, "queued", error, now), [])

        self._records.retried(attempt)

    def unchanged(self, key: GenerationKey, live: int, *, build: str = "") -> bool:
        """What was begun in between is dead by the transaction that says so in the document. More than 90 are buried
        as garbage only afterwards: after a crash, once they are found to be abandoned."""
        now = self._now()

        def attempt() -> tuple[bool, Sequence[Version]]:
            head, before, made = self._documents.read_all(key)
            if before is None or before.live != live or (build and not before.marks & head.mark(build)):
                return False, ()
            after, dead = before, []
            if before.last == key.generation:
                after = replace(after, state="ready", error=None)
            if made is not None and before.awaits(made):
                if made.sequencer is None:
                    after = replace(after, overtaken_upto=max(before.overtaken_upto, key.generation - 1))
                    dead = [Version(other, "dead", now) for other in self._documents.begun_before(key)]
                elif not behind(made.sequencer, before.sequencer):
                    # what is older, though begun later, is known by it
                    after = replace(after, sequencer=made.sequencer)
                dead.insert(0, Version(key, "dead", now))
            self._documents.write(before, after, dead[:OVERTAKEN], head=head if build else None)
            return True, dead[OVERTAKEN:]

        same, rest = self._records.retried(attempt)
        self._documents.bury(rest)
        return same

    def commit(
        self,
        key: GenerationKey,
        *,
        source: str,
        metadata: Metadata,
        sha256: str,
        size: int,
        chunks: int,
        recipe: str = "",
        build: str = "",
        sequencer: str | None = None,
    ) -> bool:
        now, described = self._now(), dump(metadata)

        def attempt() -> bool:
            head, before, made = self._documents.read_all(key)
            if build and head.live is not None and head.live.name != build:
                raise DependencyFailed(
                    f"the embedding model has changed to {head.live.embedding.model.name} meanwhile:"
                    " the document is made again",
                    dependency="embedder",
                )
            if before is not None and before.live == key.generation:
                return True  # two had this piece of work, and the other one was first
            if (
                before is None
                or made is None  # swept already: chunks that came later are garbage, too
                or not before.awaits(made)  # given up as abandoned: its chunks may be gone
            ):
                self._documents.refuse(before, key, now)
                return False
            if not _may_go_live(before, key, sequencer):
                self._documents.write(before, before.superseded(key, now), [Version(key, "dead", now)])
                return False
            # a later ingestion may be under way: then the state is its own
            latest = before.last == key.generation or before.state == "deleted"
            after = replace(
                before,
                source=source,
                state="ready" if latest else before.state,
                live=key.generation,
                sequencer=before.sequencer if sequencer is None else sequencer,
                sha256=sha256,
                size=size,
                chunks=chunks,
                metadata=described,
                recipe=recipe,
                error=None if latest else before.error,
                updated_at=now,
                marks=head.mark(build),
            )
            former = [] if before.live is None else [Version(replace(key, generation=before.live), "dead", now)]
            self._documents.write(before, after, [Version(key, "live", now), *former], head=head)
            return True

        return self._records.retried(attempt)

    def fail(self, key: GenerationKey, error: str) -> None:
        self._documents.fail(key, error, self._now())

    def get(self, tenant: str, doc_id: str) -> Document | None:
        found = self._documents.get(tenant, doc_id)
        return None if found is None else found.document

    def list(
        self, tenant: str, *, state: DocState | None = None, limit: int = 50, cursor: str | None = None
    ) -> DocumentPage:
        """A page may have fewer documents than asked for, though there are more, where it would take too long to find
        them among others."""
        after = "" if cursor is None else decode(cursor)
        if len(after.encode()) > layout.SORT_KEY_BYTES:
            raise foreign(str(cursor))
        counted = counts.states(self._records, tenant)
        wanted = counted.get(state, 0) if state is not None else sum(counted.values())
        found: list[Document] = []
        last: str | None = None
        if wanted:
            found, last = self._page(tenant, state, limit, after)
        return DocumentPage(tuple(found), counted, None if last is None else encode(last))

    def _page(
        self, tenant: str, state: DocState | None, limit: int, after: str
    ) -> tuple[builtins.list[Document], str | None]:
        found: builtins.list[Document] = []
        pages = self._records.query(
            "#pk = :pk" + (" AND #sk > :after" if after else ""),
            {
                ":pk": text(layout.documents(tenant)),
                ":state": text("deleted" if state is None else state),
                **({":after": text(after)} if after else {}),
            },
            where="#state <> :state" if state is None else "#state = :state",
            page=limit + 1 if state is None else LONGEST_PAGE,
        )
        for query, page in enumerate(pages, 1):
            for item in page.items:
                document = record(item).document
                if document is None:
                    continue
                if len(found) == limit:
                    return found, layout.sort_key(found[-1].id)
                found.append(document)
            if query == LIST_QUERIES:
                return found, page.last
        return found, None

    def live(self, documents: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        wanted = {layout.document(tenant, doc_id): (tenant, doc_id) for tenant, doc_id in documents}
        found = self._records.get_many(builtins.list(wanted), attributes=("live",))
        return {wanted[key]: int(item["live"]["N"]) for key, item in found.items() if "live" in item}

    def delete(self, tenant: str, doc_id: str, *, sequencer: str | None = None) -> bool:
        now = self._now()

        def attempt() -> bool:
            head, found = self._documents.read_many([(tenant, doc_id)])
            before = found[0] if found else None
            if before is None:
                if sequencer is not None:  # an event that overtook the document's creation: remember it
                    tombstone = Record(tenant, doc_id, "", "deleted", 0, now, now, sequencer=sequencer)
                    self._documents.write(None, tombstone, [])
                return False
            if behind(sequencer, before.sequencer):
                return False
            after = replace(
                before,
                state="deleted",
                live=None,
                deleted_upto=before.last,
                sequencer=before.sequencer if sequencer is None else sequencer,
                sha256="",
                size=0,
                chunks=0,
                metadata="{}",
                error=None,
                updated_at=now,
                marks=frozenset(),
            )
            if before.live is None:
                self._documents.write(before, after, [])
            else:
                former = Version(GenerationKey(tenant, doc_id, before.live), "dead", now)
                self._documents.write(before, after, [former], head=head)
            return before.state != "deleted"

        return self._records.retried(attempt)

    def garbage(self, *, before: datetime, abandoned_before: datetime) -> Sequence[GenerationKey]:
        """Some hundreds at most: what is left comes the next time. Each is given up by a transaction of its own."""
        now = self._now()
        given_up = garbage.give_up(self._documents, self._records, abandoned_before, now)
        found = garbage.dead(self._records, before)
        # what has just been given up is dead now; the index may know it later
        return builtins.list(dict.fromkeys((*found, *(given_up if now < before else ()))))

    def swept(self, keys: Iterable[GenerationKey]) -> None:
        """Each on its own. What has just been made garbage again is forgotten, too."""
        self._records.delete([layout.generation(key) for key in set(keys)])

    def ping(self) -> None:
        self._records.get(layout.HEAD)


def _may_go_live(before: Record, key: GenerationKey, sequencer: str | None) -> bool:
    return may_go_live(
        key.generation, sequencer, live=before.live, deleted_upto=before.deleted_upto, known=before.sequencer
    )

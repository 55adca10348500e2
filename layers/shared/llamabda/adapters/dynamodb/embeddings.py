"""Which vectors readers search, beside the catalog: documents carry marks of the builds in which they have vectors.

The head says which build is live, and which marks count. What changes either is one transaction with all counts, which
carry the head's turn; a document's commit, delete or mark is on condition that its turn is still that of the head that
was read. So the counts are exact, and readers change over in one write when they say that no document is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from llamabda.adapters.dynamodb import counts, layout
from llamabda.adapters.dynamodb.documents import Documents
from llamabda.adapters.dynamodb.head import Head, head
from llamabda.adapters.dynamodb.records import PATIENCE, Records, text, together
from llamabda.types import Build, Embedding, GenerationKey

MARKED = 50  # documents in one transaction: with metadata of 16 KB each they are far from its 4 MB
_NO_DOCUMENTS = "attribute_not_exists(#documents) OR #documents = :none"
_ALL_MADE = f"#documents = #made OR {_NO_DOCUMENTS}"


class DynamoEmbeddings:
    """The Embeddings port over the catalog's table, by a boto3 client."""

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

    def owner(self) -> str:
        def attempt() -> str:
            found = self._head()
            if not found.version:
                self._put(found, found)
            return found.owner

        return self._records.retried(attempt)

    def live(self) -> Build | None:
        live = self._head().live
        return None if live is None else live.build

    def settle(self, embedding: Embedding) -> Build | None:
        def attempt() -> Build | None:
            before, now = self._head(), self._now()
            live = before.live
            if live is not None and live.embedding.fingerprint == embedding.fingerprint:
                return self._renamed(before, live.name, embedding)
            if live is not None and self.documents():
                return live.build
            prepared, name = before.prepared(embedding, now)
            # without a live build, documents have none that could be taken from them
            self._turn(before, prepared.adopted(name, now), () if live is None else (_NO_DOCUMENTS,))
            return Build(name, embedding)

        return self._records.retried(attempt)

    def begin(self, embedding: Embedding, *, anew: bool = False) -> Build:
        def attempt() -> Build:
            before = self._head()
            live = before.live
            if not anew and live is not None and live.embedding.fingerprint == embedding.fingerprint:
                return self._renamed(before, live.name, embedding)
            prepared, name = before.prepared(embedding, self._now(), retired=not anew)
            if prepared.marks == before.marks:
                self._put(before, prepared)
            else:
                self._turn(before, prepared)
            return Build(name, embedding)

        return self._records.retried(attempt)

    def unmade(self, build: str, *, limit: int, after: GenerationKey | None = None) -> Sequence[GenerationKey]:
        found: list[GenerationKey] = []
        mark = next(iter(self._head().mark(build)), None)
        if not self._left(mark):
            return found
        for tenant in self._tenants("" if after is None else after.tenant):
            later = None if after is None or after.tenant != tenant else layout.sort_key(after.doc_id)
            for key in self._lacking(tenant, mark, later):
                if len(found) == limit:
                    return found
                found.append(key)
        return found

    def left(self, build: str) -> int:
        return self._left(next(iter(self._head().mark(build)), None))

    def documents(self) -> int:
        return sum(shard.documents for shard in counts.shards(self._records))

    def made(self, keys: Iterable[GenerationKey], build: str) -> None:
        """A transaction for each some documents: after a crash the others are still unmade."""
        self._worked_on(build)
        shards: dict[int, list[GenerationKey]] = {}
        for key in sorted(set(keys), key=lambda key: (key.tenant, key.doc_id, key.generation)):
            shards.setdefault(layout.shard(key.tenant, key.doc_id), []).append(key)
        together([partial(self._made, shard, build) for shard in shards.values()])

    def adopt(self, build: str) -> bool:
        def attempt() -> bool:
            before = self._head()
            making = before.making(build)
            if making is None or self._left(making.mark):
                return False
            self._turn(before, before.adopted(build, self._now()), (_ALL_MADE,), {"#made": counts.made(making.mark)})
            return True

        return self._records.retried(attempt)

    def names(self) -> frozenset[str]:
        return frozenset(making.name for making in self._head().builds)

    def discard(self, *, retired_before: datetime, unfinished_before: datetime) -> Sequence[str]:
        def attempt() -> Sequence[str]:
            before = self._head()
            after = replace(
                before,
                builds=tuple(
                    replace(one, state="dropping")
                    if (one.state == "retired" and one.since < retired_before)
                    or (one.state == "building" and one.since < unfinished_before)
                    else one
                    for one in before.builds
                ),
            )
            if after != before:
                self._turn(before, after)
            return [one.name for one in after.builds if one.state == "dropping"]

        return self._records.retried(attempt)

    def dropped(self, build: str) -> None:
        def attempt() -> None:
            before = self._head()
            kept = tuple(one for one in before.builds if one.name != build or one.state != "dropping")
            if kept != before.builds:
                self._put(before, replace(before, builds=kept))

        self._records.retried(attempt)

    def lost(self, build: str) -> None:
        def attempt() -> None:
            before = self._head()
            if before.making(build) is not None:
                self._turn(before, before.emptied((build,)))

        self._records.retried(attempt)

    def moved(self, place: str) -> bool:
        def attempt() -> bool:
            before = self._head()
            if before.place == place:
                return False
            after = replace(before, place=place).emptied(frozenset(one.name for one in before.builds))
            marks = sorted(before.marks)
            had = any(shard.made.get(mark) for shard in counts.shards(self._records) for mark in marks)
            names = {f"#made{n}": counts.made(mark) for n, mark in enumerate(marks)}
            none = [f"attribute_not_exists({name}) OR {name} = :none" for name in names]
            self._turn(before, after, () if had else none, names)
            return had

        return self._records.retried(attempt)

    # --

    def _head(self) -> Head:
        return head(self._records.get(layout.HEAD))

    def _put(self, before: Head, after: Head) -> None:
        """Where neither the live build changes nor which marks count."""
        item = replace(after, version=before.version + 1).item
        self._records.put(item, *counts.unchanged(before.version))

    def _turn(
        self, before: Head, after: Head, conditions: Sequence[str] = (), names: Mapping[str, str] | None = None
    ) -> None:
        self._records.write(counts.turn(self._records, before, after, conditions, names))

    def _renamed(self, before: Head, build: str, embedding: Embedding) -> Build:
        after = before.named(build, embedding.model)
        if after != before:
            self._put(before, after)
        return Build(build, embedding)

    def _left(self, mark: str | None) -> int:
        return sum(shard.left(mark) for shard in counts.shards(self._records))

    def _tenants(self, first: str) -> Iterable[str]:
        pages = self._records.query(
            "#pk = :pk" + (" AND #sk >= :first" if first else ""),
            {":pk": text(layout.TENANTS), **({":first": text(first)} if first else {})},
        )
        return (item["sk"]["S"] for page in pages for item in page.items)

    def _lacking(self, tenant: str, mark: str | None, after: str | None) -> Iterable[GenerationKey]:
        pages = self._records.query(
            "#pk = :pk" + ("" if after is None else " AND #sk > :after"),
            {
                ":pk": text(layout.documents(tenant)),
                **({} if after is None else {":after": text(after)}),
                **({} if mark is None else {":mark": text(mark)}),
            },
            where="attribute_exists(#live)" + ("" if mark is None else " AND NOT contains(#marks, :mark)"),
            attributes=("id", "live"),
        )
        return (GenerationKey(tenant, item["id"]["S"], int(item["live"]["N"])) for page in pages for item in page.items)

    def _worked_on(self, build: str) -> None:
        def attempt() -> None:
            before = self._head()
            making = before.making(build)
            if making is not None and making.state == "building":
                now = self._now()
                self._put(before, before.changed(build, lambda one: replace(one, since=now)))

        self._records.retried(attempt)

    def _made(self, keys: Sequence[GenerationKey], build: str) -> None:
        """Of documents of one shard."""
        for at in range(0, len(keys), MARKED):
            batch = keys[at : at + MARKED]
            self._records.retried(partial(self._mark, batch, build))

    def _mark(self, keys: Sequence[GenerationKey], build: str) -> None:
        wanted = {(key.tenant, key.doc_id, key.generation) for key in keys}
        head, found = self._documents.read_many([(key.tenant, key.doc_id) for key in keys])
        mark = head.mark(build)
        changes = [
            (before, replace(before, marks=(before.marks & head.marks) | mark))
            for before in found
            if (before.tenant, before.id, before.live) in wanted and not mark <= before.marks
        ]
        if changes:
            self._documents.mark(head, changes)

"""Documents and their generations as items of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from llamabda.adapters.dynamodb import layout
from llamabda.adapters.dynamodb.records import Item, number, text
from llamabda.types import DocState, Document, GenerationKey, Metadata, Pending

Phase: TypeAlias = Literal["pending", "live", "dead"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Record:
    """A document that was ever seen; a deleted one stays, so that its generations are not allotted again, and an event
    older than the delete finds its sequencer.

    `version` is raised by every write of the document or of one of its generations: who has read one version writes on
    condition that it is still the one.
    """

    tenant: str
    id: str
    source: str
    state: DocState | Literal["deleted"]
    last: int  # the generation that was begun last
    created_at: datetime
    updated_at: datetime
    metadata: str = "{}"  # JSON
    version: int = 0  # 0: it is not there yet
    live: int | None = None
    deleted_upto: int = 0  # the generation that was begun last before the last delete
    overtaken_upto: int = 0  # generations up to this one that were still to be made when it was set are dead
    sequencer: str | None = None
    sha256: str = ""
    size: int = 0
    chunks: int = 0
    error: str | None = None
    recipe: str = ""
    marks: frozenset[str] = frozenset()  # of the builds in which the live generation has all its vectors

    @property
    def visible(self) -> str | None:
        """The state in which it is counted, if it is."""
        return None if self.state == "deleted" else self.state

    @property
    def shard(self) -> int:
        return layout.shard(self.tenant, self.id)

    @property
    def document(self) -> Document | None:
        """None: it was deleted."""
        if self.state == "deleted":
            return None
        return Document(
            tenant=self.tenant,
            id=self.id,
            source=self.source,
            state=self.state,
            generation=self.live,
            sha256=self.sha256,
            bytes=self.size,
            chunks=self.chunks,
            metadata=json.loads(self.metadata),
            error=self.error,
            created_at=self.created_at,
            updated_at=self.updated_at,
            recipe=self.recipe,
            sequencer=self.sequencer,
        )

    def awaits(self, version: Version) -> bool:
        """Whether this generation of it is still to be made."""
        return version.phase == "pending" and version.key.generation > self.overtaken_upto

    def told(self, key: GenerationKey, state: DocState, error: str | None, now: datetime) -> Record:
        """What became of a generation, when nothing later is under way and it was not deleted meanwhile."""
        if self.last != key.generation or self.deleted_upto >= self.last:
            return self
        return replace(self, state=state, error=error, updated_at=now)

    def superseded(self, key: GenerationKey, now: datetime) -> Record:
        """Nothing comes of a generation, since what readers see is later."""
        return self if self.live is None else self.told(key, "ready", None, now)

    @property
    def item(self) -> Item:
        return {
            **layout.document(self.tenant, self.id).item,
            "tenant": text(self.tenant),
            "id": text(self.id),
            "source": text(self.source),
            "state": text(self.state),
            "last": number(self.last),
            "created_at": moment(self.created_at),
            "updated_at": moment(self.updated_at),
            "metadata": text(self.metadata),
            "version": number(self.version),
            "deleted_upto": number(self.deleted_upto),
            "overtaken_upto": number(self.overtaken_upto),
            "sha256": text(self.sha256),
            "bytes": number(self.size),
            "chunks": number(self.chunks),
            "recipe": text(self.recipe),
            **({} if self.live is None else {"live": number(self.live)}),
            **({} if self.sequencer is None else {"sequencer": text(self.sequencer)}),
            **({} if self.error is None else {"error": text(self.error)}),
            **({"marks": {"SS": sorted(self.marks)}} if self.marks else {}),
        }


@dataclass(frozen=True, slots=True)
class Version:
    """A generation whose chunks or texts may exist: still to be made, live, or garbage. What is pending or dead is in
    the index `due`, by the time at which it was begun, last started, or died."""

    key: GenerationKey
    phase: Phase
    since: datetime
    source: str = ""
    metadata: str = "{}"
    instructions: str = ""
    sequencer: str | None = None

    @property
    def pending(self) -> Pending:
        return Pending(self.source, json.loads(self.metadata), self.instructions, self.sequencer)

    @property
    def due_kind(self) -> str:
        """What has instructions is in a queue, and is waited for much longer."""
        return "queued" if self.phase == "pending" and self.instructions else self.phase

    @property
    def item(self) -> Item:
        tenant, doc_id = self.key.tenant, self.key.doc_id
        due = layout.due(self.due_kind, layout.shard(tenant, doc_id))
        return {
            **layout.generation(self.key).item,
            "tenant": text(tenant),
            "id": text(doc_id),
            "generation": number(self.key.generation),
            "phase": text(self.phase),
            "since": moment(self.since),
            **({} if self.phase == "live" else {"due_pk": text(due), "due_at": moment(self.since)}),
            **(self._told if self.phase == "pending" else {}),
        }

    @property
    def _told(self) -> dict[str, Any]:
        return {
            "source": text(self.source),
            "metadata": text(self.metadata),
            "instructions": text(self.instructions),
            **({} if self.sequencer is None else {"sequencer": text(self.sequencer)}),
        }


def record(item: Item) -> Record:
    return Record(
        tenant=item["tenant"]["S"],
        id=item["id"]["S"],
        source=item["source"]["S"],
        state=item["state"]["S"],
        last=int(item["last"]["N"]),
        created_at=when(item["created_at"]),
        updated_at=when(item["updated_at"]),
        metadata=item["metadata"]["S"],
        version=int(item["version"]["N"]),
        live=int(item["live"]["N"]) if "live" in item else None,
        deleted_upto=int(item["deleted_upto"]["N"]),
        overtaken_upto=int(item["overtaken_upto"]["N"]),
        sequencer=_optional(item, "sequencer"),
        sha256=item["sha256"]["S"],
        size=int(item["bytes"]["N"]),
        chunks=int(item["chunks"]["N"]),
        error=_optional(item, "error"),
        recipe=item["recipe"]["S"],
        marks=frozenset(item["marks"]["SS"]) if "marks" in item else frozenset(),
    )


def version(item: Item) -> Version:
    pending = item["phase"]["S"] == "pending"
    return Version(
        key=generation_key(item),
        phase=item["phase"]["S"],
        since=when(item["since"]),
        source=item["source"]["S"] if pending else "",
        metadata=item["metadata"]["S"] if pending else "{}",
        instructions=item["instructions"]["S"] if pending else "",
        sequencer=_optional(item, "sequencer"),
    )


def generation_key(item: Item) -> GenerationKey:
    return GenerationKey(item["tenant"]["S"], item["id"]["S"], int(item["generation"]["N"]))


def dump(metadata: Metadata) -> str:
    return json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False)


def moment(at: datetime) -> dict[str, str]:
    """Epoch seconds with microseconds, exactly."""
    whole, part = divmod((at - _EPOCH) // _MICROSECOND, 1_000_000)
    return {"N": f"{whole}.{part:06d}"}


def when(value: Mapping[str, Any]) -> datetime:
    return _EPOCH + int(Decimal(value["N"]).scaleb(6)) * _MICROSECOND


def _optional(item: Item, name: str) -> str | None:
    return str(item[name]["S"]) if name in item else None

"""How many documents are in which state, live, and with vectors in which build: changed in the same transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llamabda.adapters.dynamodb import layout
from llamabda.adapters.dynamodb.calls import Key, Values
from llamabda.adapters.dynamodb.head import Head
from llamabda.adapters.dynamodb.items import Record
from llamabda.adapters.dynamodb.records import Action, Item, Records, number, text
from llamabda.types import DocState

STATES: tuple[DocState, ...] = ("queued", "processing", "ready", "failed")
_DOCUMENTS, _MADE = "documents", "made:"


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one shard: its live documents, and how many of them carry which mark."""

    documents: int
    made: Mapping[str, int]

    def left(self, mark: str | None) -> int:
        return self.documents - (0 if mark is None else self.made.get(mark, 0))


def states(records: Records, tenant: str) -> dict[str, int]:
    """How many documents of the tenant are in which state; those without any are left out."""
    total: Counter[str] = Counter()
    for page in records.query("#pk = :pk", {":pk": text(layout.states(tenant, 0).pk)}):
        for item in page.items:
            total.update({state: int(item[state]["N"]) for state in STATES if state in item})
    return {state: total[state] for state in STATES if total[state]}


def shards(records: Records) -> list[Counts]:
    """Each as it is at some instant."""
    found = records.get_many([layout.vectors(shard) for shard in range(layout.SHARDS)])
    return [_counts(found.get(layout.vectors(shard))) for shard in range(layout.SHARDS)]


def count_state(records: Records, before: Record | None, after: Record) -> list[Action]:
    """One action, or none."""
    changes = Counter({after.visible: 1}) if after.visible else Counter()
    if before is not None and before.visible:
        changes.subtract({before.visible: 1})
    return _added(records, layout.states(after.tenant, after.shard), changes)


def count_vectors(records: Records, head: Head, shard: int, changes: Sequence[tuple[Record | None, Record]]) -> Action:
    """The documents as they were and as they will be, all of this shard. It is on condition that the head's turn is
    still the one: then `head` says which build is live, and which marks count."""
    counted = Counter[str]()
    for before, after in changes:
        for record, one in ((before, -1), (after, 1)):
            if record is not None and record.live is not None:
                counted[_DOCUMENTS] += one
                counted.update({made(mark): one for mark in record.marks & head.marks})
    condition, values = _same_turn(head)
    added = _added(records, layout.vectors(shard), counted, condition=condition, values=values)
    return added[0] if added else records.check_action(layout.vectors(shard), condition, values)


def turn(
    records: Records,
    before: Head,
    after: Head,
    conditions: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> list[Action]:
    """Writes the head, and lets the counts follow: to be done in one transaction.

    `conditions`: what else must be true of every shard's counts, where :none is zero, and `names` says what stands for
    what.
    """
    after = replace(after, version=before.version + 1, turn=before.turn + 1)
    same, values = _same_turn(before)
    forgotten = {f"#old{n}": made(mark) for n, mark in enumerate(sorted(before.marks - after.marks))}
    followed = [
        records.update_action(
            layout.vectors(shard),
            "SET #turn = :next" + (f" REMOVE {', '.join(forgotten)}" if forgotten else ""),
            {**values, ":next": number(after.turn), **({":none": number(0)} if conditions else {})},
            condition=" AND ".join((same, *(f"({condition})" for condition in conditions))),
            names={**(names or {}), **forgotten},
        )
        for shard in range(layout.SHARDS)
    ]
    return [records.put_action(after.item, *unchanged(before.version)), *followed]


def made(mark: str) -> str:
    """The attribute of a shard's counts that counts the documents with this mark."""
    return f"{_MADE}{mark}"


def unchanged(version: int) -> tuple[str, Values]:
    """The condition that an item is as it was read. Version 0: it was not there."""
    return ("#version = :read", {":read": number(version)}) if version else ("attribute_not_exists(#pk)", {})


def _same_turn(head: Head) -> tuple[str, Values]:
    return ("#turn = :turn", {":turn": number(head.turn)}) if head.turn else ("attribute_not_exists(#turn)", {})


def _added(
    records: Records, key: Key, changes: Mapping[str, int], *, condition: str = "", values: Values | None = None
) -> list[Action]:
    wanted = [(attribute, change) for attribute, change in changes.items() if change]
    if not wanted:
        return []
    return [
        records.update_action(
            key,
            "ADD " + ", ".join(f"#a{n} :a{n}" for n in range(len(wanted))),
            {**(values or {}), **{f":a{n}": number(change) for n, (_, change) in enumerate(wanted)}},
            condition=condition,
            names={f"#a{n}": attribute for n, (attribute, _) in enumerate(wanted)},
        )
    ]


def _counts(item: Item | None) -> Counts:
    counted = {name: int(value["N"]) for name, value in (item or {}).items() if name.startswith(_MADE)}
    documents = 0 if item is None or _DOCUMENTS not in item else int(item[_DOCUMENTS]["N"])
    return Counts(documents, {name.removeprefix(_MADE): count for name, count in counted.items()})

"""Generations that nobody wants any more. The index `due` says where to look, a little late; the item, how it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from llamabda.adapters.dynamodb import layout
from llamabda.adapters.dynamodb.calls import Key
from llamabda.adapters.dynamodb.documents import Documents
from llamabda.adapters.dynamodb.items import Version, moment, version
from llamabda.adapters.dynamodb.records import READ_KEYS, Records, text, together
from llamabda.succession import QUEUED
from llamabda.types import GenerationKey

MOST = 100  # generations of each kind from each partition of the index, in one call


def dead(records: Records, before: datetime) -> list[GenerationKey]:
    """What died before."""

    def look(shard: int) -> list[GenerationKey]:
        found: list[GenerationKey] = []
        for versions in _due(records, layout.due("dead", shard), before):
            found += [one.key for one in versions if one.phase == "dead" and one.since < before]
            if len(found) >= MOST:
                break
        return found

    return [key for keys in together([partial(look, n) for n in range(layout.DUE_SHARDS)]) for key in keys]


def give_up(documents: Documents, records: Records, abandoned_before: datetime, now: datetime) -> list[GenerationKey]:
    """Fails what somebody began and nobody ended."""

    def look(kind: str, before: datetime) -> list[GenerationKey]:
        given_up: list[GenerationKey] = []
        for versions in _due(records, kind, before):
            given_up += [one.key for one in versions if documents.give_up(one.key, abandoned_before, now)]
            if len(given_up) >= MOST:
                break
        return given_up

    jobs = [
        partial(look, layout.due(kind, shard), before)
        for shard in range(layout.DUE_SHARDS)
        for kind, before in (("pending", abandoned_before), ("queued", min(abandoned_before, now - QUEUED)))
    ]
    return [key for keys in together(jobs) for key in keys]


def _due(records: Records, kind: str, before: datetime) -> Iterator[list[Version]]:
    """What the index has for this kind, as it is now. What is not there any more is left out."""
    pages = records.query(
        "#due_pk = :kind AND #due_at < :before",
        {":kind": text(kind), ":before": moment(before)},
        index="due",
        page=READ_KEYS,
        later_pages=READ_KEYS,
    )
    for page in pages:
        keys = [Key(item["pk"]["S"], item["sk"]["S"]) for item in page.items]
        yield [version(item) for item in records.get_many(keys).values()]

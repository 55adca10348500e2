"""Which rows of a shard pass a filter, remembered: one question asks for the same rows many times."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from llamabda.adapters.sqlite.filtering import matching
from llamabda.adapters.sqlite.shard import Mask, Shard
from llamabda.filters import And, Filter

_MOST_BYTES = 16 << 20  # a byte for each row and filter: those of one question over 800,000 chunks
_MOST_FILTERS = 64  # a filter itself takes room, too

_Key: TypeAlias = tuple[str, int, Filter]  # tenant, version of the collection


class Masks:
    """Safe with threads. Those asked for last are kept, `most_bytes` and `most_filters` of them at most."""

    def __init__(self, most_bytes: int = _MOST_BYTES, most_filters: int = _MOST_FILTERS) -> None:
        self._most_bytes = most_bytes
        self._most_filters = most_filters
        self._held = 0
        self._masks: OrderedDict[_Key, Mask] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, db: sqlite3.Connection, shards: Mapping[str, Shard], filter: Filter | None) -> list[Mask] | None:
        """Per shard, by tenant: its living rows that pass the filter, as the transaction of `db` shows them."""
        if filter is None:
            return None
        return [self._mask(db, tenant, shard, filter) for tenant, shard in shards.items()]

    def _mask(self, db: sqlite3.Connection, tenant: str, shard: Shard, filter: Filter) -> Mask:
        (version,) = db.execute("SELECT version FROM collections WHERE tenant = ?", (tenant,)).fetchone()
        if version != shard.version:  # the shard shows what another thread has seen since this transaction began
            return shard.filtered(matching(db, tenant, filter))
        known = self._known((tenant, version, filter))
        if known is None:
            known = self._made(db, tenant, shard, filter)
            self._keep((tenant, version, filter), known)
        return known

    def _made(self, db: sqlite3.Connection, tenant: str, shard: Shard, filter: Filter) -> Mask:
        """Of what is joined by And, parts that are known already are not evaluated anew."""
        parts = filter.parts if isinstance(filter, And) else (filter,)
        known = {part: mask for part in parts if (mask := self._known((tenant, shard.version, part))) is not None}
        masks = list(known.values())
        further = tuple(part for part in parts if part not in known)
        if further and all(any(map(np.any, mask)) for mask in masks):
            masks.append(shard.filtered(matching(db, tenant, And(further) if known else filter)))
        together = masks[0]
        for mask in masks[1:]:
            together = tuple(one & other for one, other in zip(together, mask, strict=True))
        return together

    def _known(self, key: _Key) -> Mask | None:
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
            return self._masks.get(key)

    def _keep(self, key: _Key, mask: Mask) -> None:
        with self._lock:
            if key not in self._masks:
                self._masks[key] = mask
                self._held += _size(mask)
            while self._held > self._most_bytes or len(self._masks) > self._most_filters:
                _, dropped = self._masks.popitem(last=False)
                self._held -= _size(dropped)


def _size(mask: Mask) -> int:
    return sum(part.nbytes for part in mask)

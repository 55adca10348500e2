"""Counted guesses in DynamoDB."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamabda.adapters.dynamodb.attributes import Item
from llamabda.adapters.dynamodb.calls import Key
from llamabda.adapters.dynamodb.table import ConditionFailed, Delete, Table, Update, forget_at
from llamabda.errors import DependencyFailed

# pk                  sk        attributes
# attempts#<sha-256>  <shelf>   s0, s1, ...: when the guess was made that has this slot (epoch seconds), expires
#
# There are as many slots as guesses are allowed in a window, and a guess may take one that is empty, or whose guess is
# older than the window. So no window ever holds more, and two guesses at once are in each other's way only when they
# choose the same slot: no version of the whole has to be right. Slots stand in shelves of SHELF, one item each, so that
# an item stays below 16 KB whatever the limit.
SHELF = 500
TRIES = 64  # each try that fails has seen another guess take a slot
_SLOT = re.compile(r"s(\d+)")


class DynamoAttemptStore:
    """The AttemptStore port over one table. It is exact where a key has the same limit at every call.

    `shelf`: slots in one item.
    """

    def __init__(self, client: Any, table: str, *, setting: str = "USERS_TABLE", shelf: int = SHELF) -> None:
        self._shelf = shelf
        self._table = Table(client, table, dependency="attempts", setting=setting)

    def take(self, key: str, *, limit: int, window: float, now: float) -> float:
        shelves = -(-limit // self._shelf)
        first = random.randrange(shelves)  # noqa: S311 -- spreads the load
        oldest = now
        for number in (*range(first, shelves), *range(first)):
            size = min(self._shelf, limit - number * self._shelf)
            full = self._take(_key(key, number), size, window, now)
            if full is None:
                return 0.0
            oldest = min(oldest, full)
        # never over the window: another's guess may have been counted after this one looked at the clock
        return min(window, oldest + window - now)

    def give_back(self, key: str) -> None:
        for _ in range(TRIES):
            newest = max(self._slots(key), default=None)
            if newest is None:
                return
            at, shelf, name = newest
            try:
                self._table.write(Update(Key(_pk(key), shelf), f"REMOVE #{name}", f"#{name} = :at", {"at": at}))
            except ConditionFailed:
                continue
            return
        raise _crowded()

    def forget(self, key: str) -> None:
        for item in list(self._table.query("#pk = :pk", {"pk": _pk(key)})):
            self._table.write(Delete(Key(item["pk"], item["sk"])))

    def _take(self, key: Key, size: int, window: float, now: float) -> float | None:
        """None: a slot was taken. Else the time of the oldest guess of the newest `size`, which fill the shelf."""
        item = self._table.get(key)
        for _ in range(TRIES):
            recent = {name: at for name, at in _taken(item).items() if at > now - window}
            if len(recent) >= size:
                return sorted(recent.values())[-size]
            name = random.choice([f"s{n}" for n in range(size) if f"s{n}" not in recent])  # noqa: S311 -- no secret
            change = f"SET #{name} = :now, #expires = :expires"
            condition = f"attribute_not_exists(#{name}) OR #{name} <= :before"
            values = {"now": now, "before": now - window, "expires": forget_at(now + window)}
            try:
                self._table.write(Update(key, change, condition, values))
            except ConditionFailed as exc:
                item = exc.item
            else:
                return None
        raise _crowded()

    def _slots(self, key: str) -> Iterator[tuple[float, str, str]]:
        """When, in which shelf and slot."""
        for item in self._table.query("#pk = :pk", {"pk": _pk(key)}):
            yield from ((at, item["sk"], name) for name, at in _taken(item).items())


def _taken(item: Item | None) -> Mapping[str, float]:
    return {name: at for name, at in (item or {}).items() if _SLOT.fullmatch(name)}


def _crowded() -> DependencyFailed:
    return DependencyFailed(f"{TRIES} tries met other guesses of the same key", dependency="attempts")


def _pk(key: str) -> str:
    return f"attempts#{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _key(key: str, shelf: int) -> Key:
    return Key(_pk(key), f"{shelf:06d}")

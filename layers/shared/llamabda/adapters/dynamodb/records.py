"""One table: consistent reads, conditional writes, and what its failures mean."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from llamabda import time_left
from llamabda.adapters.dynamodb.calls import THROTTLED, Calls, Key, Refused, Values, placeholders

T = TypeVar("T")
Item: TypeAlias = Values  # by attribute
Action: TypeAlias = Mapping[str, Any]  # one of a transaction: {"Put": ...}, {"Update": ...}, {"ConditionCheck": ...}

READ_KEYS = 100  # the most that BatchGetItem takes
WRITTEN_KEYS = 25  # the most that BatchWriteItem takes
LONGEST_PAGE = 1_000  # items; the API ends it at 1 MB, too
THREADS = 8
PATIENCE = 15.0  # seconds; a reply is due after 25
FIRST_PAUSE = 0.01  # seconds; a pause is drawn below a bound, which is doubled each time
LONGEST_PAUSE = 0.25

_BUSY = "it has more to do than it takes"
_OTHERS = "others write the same"
_WRITES = frozenset(("batch_write_item", "put_item", "transact_write_items"))


class Outdated(Exception):
    """What was read is not so any more, or cannot be written just now: to be read again. The message says why."""


@dataclass(frozen=True, slots=True)
class Page:
    items: Sequence[Item]
    last: str | None  # the sort key up to which items were looked at; None: there are no more


class Records:
    """A table whose items have the keys `pk` and `sk`, by a boto3 client. Nothing is asked of it yet.

    In expressions an attribute is written "#name"; `names` says which one that is where it is not of that name.
    `patience`: seconds in which what may pass is tried again. Every failure is DependencyFailed.
    """

    def __init__(self, client: Any, table: str, *, patience: float = PATIENCE) -> None:
        self._calls = Calls(client, table, dependency="catalog", setting="CATALOG_TABLE")
        self._table = table
        self._patience = patience

    # -- reads, which see everything that was written before

    def get(self, key: Key) -> Item | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[Key], *, attributes: Sequence[str] = ()) -> dict[Key, Item]:
        """Those that are there, though not as they were at one instant. No key may occur twice.

        `attributes`: those wanted, besides the keys; none: all.
        """
        batches = [keys[at : at + READ_KEYS] for at in range(0, len(keys), READ_KEYS)]
        found = together([partial(self._read, batch, attributes) for batch in batches])
        return {Key(item["pk"]["S"], item["sk"]["S"]): item for items in found for item in items}

    def query(
        self,
        condition: str,
        values: Values,
        *,
        where: str = "",
        names: Mapping[str, str] | None = None,
        attributes: Sequence[str] = (),
        index: str = "",
        page: int = LONGEST_PAGE,
        later_pages: int = LONGEST_PAGE,
    ) -> Iterator[Page]:
        """In order of the sort key, one page at least. `where` leaves out items; `page` and `later_pages`: how many are
        looked at, at most, for the first one, and for each of the others.

        What an `index` has may be late, and out of date.
        """
        request: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "Limit": page,
            **({"IndexName": index} if index else {"ConsistentRead": True}),
            **({"FilterExpression": where} if where else {}),
            **_projection(attributes),
        }
        request |= placeholders(values, condition, where, request.get("ProjectionExpression", ""), names=names)
        while True:
            reply = self._ask("query", **request)
            last = reply.get("LastEvaluatedKey")
            yield Page(reply["Items"], last["sk"]["S"] if last else None)
            if not last:
                return
            request |= {"ExclusiveStartKey": last, "Limit": later_pages}

    # -- writes

    def put_action(self, item: Item, condition: str = "", values: Values | None = None) -> Action:
        return {"Put": {"TableName": self._table, "Item": item, **_condition(condition, values)}}

    def check_action(
        self, key: Key, condition: str, values: Values | None = None, names: Mapping[str, str] | None = None
    ) -> Action:
        return {"ConditionCheck": {"TableName": self._table, "Key": key.item, **_condition(condition, values, names)}}

    def update_action(
        self,
        key: Key,
        change: str,
        values: Values,
        *,
        condition: str = "",
        names: Mapping[str, str] | None = None,
    ) -> Action:
        """The item is made where it is not there."""
        request = {"TableName": self._table, "Key": key.item, "UpdateExpression": change}
        if condition:
            request["ConditionExpression"] = condition
        return {"Update": request | placeholders(values, change, condition, names=names)}

    def write(self, actions: Sequence[Action]) -> None:
        """All or nothing; at most 100, each of another item. Outdated when a condition does not hold (any more)."""
        self._ask("transact_write_items", TransactItems=list(actions))

    def put(self, item: Item, condition: str = "", values: Values | None = None) -> None:
        """Outdated when the condition does not hold (any more)."""
        self._ask("put_item", TableName=self._table, Item=item, **_condition(condition, values))

    def delete(self, keys: Sequence[Key]) -> None:
        """Each on its own; what is not there is gone already."""
        batches = [keys[at : at + WRITTEN_KEYS] for at in range(0, len(keys), WRITTEN_KEYS)]
        together([partial(self._delete, batch) for batch in batches])

    def retried(self, attempt: Callable[[], T]) -> T:
        """What it returns once it is not Outdated."""
        until, bound = time.monotonic() + time_left.at_most(self._patience), FIRST_PAUSE
        while True:
            try:
                return attempt()
            except Outdated as exc:
                pause = random.uniform(0, bound)  # noqa: S311  (not a secret)
                if time.monotonic() + pause >= until:
                    raise self._calls.failed(f"{exc}, and did for {self._patience:g} s") from exc
            time.sleep(pause)
            bound = min(2 * bound, LONGEST_PAUSE)

    # --

    def _read(self, keys: Sequence[Key], attributes: Sequence[str]) -> list[Item]:
        projection = _projection(("pk", "sk", *attributes)) if attributes else {}
        more = {**projection, **placeholders({}, projection.get("ProjectionExpression", ""))}
        asked: dict[str, Any] = {self._table: {"Keys": [key.item for key in keys], "ConsistentRead": True, **more}}
        items: list[Item] = []

        def attempt() -> None:
            nonlocal asked
            reply = self._ask("batch_get_item", RequestItems=asked)
            items.extend(reply["Responses"].get(self._table, ()))
            asked = reply.get("UnprocessedKeys") or {}
            if asked:
                raise Outdated(_BUSY)

        self.retried(attempt)
        return items

    def _delete(self, keys: Sequence[Key]) -> None:
        asked: dict[str, Any] = {self._table: [{"DeleteRequest": {"Key": key.item}} for key in keys]}

        def attempt() -> None:
            nonlocal asked
            asked = self._ask("batch_write_item", RequestItems=asked).get("UnprocessedItems") or {}
            if asked:
                raise Outdated(_BUSY)

        self.retried(attempt)

    def _ask(self, operation: str, **request: Any) -> Mapping[str, Any]:
        try:
            return self._calls.ask(operation, **request)
        except Refused as exc:
            if operation not in _WRITES:
                raise exc.failure from None
            first = next(iter(exc.codes.values()))
            raise Outdated(_BUSY if first in THROTTLED else _OTHERS) from exc


def together(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Does them at the same time, and returns what they return, in their order."""
    return time_left.together(jobs, THREADS)


def text(value: str) -> dict[str, str]:
    return {"S": value}


def number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _projection(attributes: Sequence[str]) -> dict[str, str]:
    return {"ProjectionExpression": ", ".join(f"#{name}" for name in attributes)} if attributes else {}


def _condition(condition: str, values: Values | None = None, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"ConditionExpression": condition, **placeholders(values or {}, condition, names=names)} if condition else {}

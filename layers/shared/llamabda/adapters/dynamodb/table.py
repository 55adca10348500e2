"""One table with the keys `pk` and `sk`, both strings: items as plain values, conditional writes, what failures mean.

The client retries what AWS is known to answer well a moment later (throttling, 5xx, lost connections). What it leaves
alone is retried here: transactions that met another one.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llamabda import time_left
from llamabda.adapters.dynamodb.attributes import Item, decode, encode
from llamabda.adapters.dynamodb.calls import Calls, Key, Refused, placeholders

MAX_SORT_KEY_BYTES = 1_024  # DynamoDB's limit
TRIES = 6
FIRST_PAUSE = 0.025  # seconds; doubled each time, and drawn from zero to the whole
TTL_MARGIN = 3_600  # seconds that an item outlives its use: clocks differ


@dataclass(frozen=True, slots=True)
class Put:
    """A whole item. In expressions attributes are written `#name`, and values `:name` for the one of that name."""

    key: Key
    item: Item  # the attributes beside the key
    condition: str = ""
    values: Item = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Update:
    """`change`: an update expression. It makes the item when it is not there, unless the condition says otherwise."""

    key: Key
    change: str
    condition: str = ""
    values: Item = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """An item that is not there is no failure, unless the condition says otherwise."""

    key: Key
    condition: str = ""
    values: Item = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """Changes nothing; in transactions only."""

    key: Key
    condition: str
    values: Item = field(default_factory=dict)


Write: TypeAlias = Put | Update | Delete
_OPERATIONS = {Put: "put_item", Update: "update_item", Delete: "delete_item"}


class ConditionFailed(Exception):
    """Nothing was written. `items`: by place, of each write whose condition failed the item as it is, None: there is
    none."""

    def __init__(self, items: Mapping[int, Item | None]) -> None:
        super().__init__(f"the condition of {len(items)} writes failed")
        self.items = items

    @property
    def item(self) -> Item | None:
        """Of a single write."""
        return self.items[0]


class Table:
    """`client`: boto3's for DynamoDB. `dependency` names the port in errors, `setting` what named the table.

    Reads are consistent. Every failure but ConditionFailed is a DependencyFailed.
    """

    def __init__(
        self, client: Any, name: str, *, dependency: str, setting: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._calls = Calls(client, name, dependency=dependency, setting=setting)
        self._sleep = sleep

    def get(self, key: Key) -> Item | None:
        reply = self._call("get_item", TableName=self._calls.name, Key=key.item, ConsistentRead=True)
        return decode(reply["Item"]) if "Item" in reply else None

    def write(self, write: Write) -> Item | None:
        """The item as it is after an Update, or was before a Put or Delete: None, there was none."""
        returned = "ALL_NEW" if isinstance(write, Update) else "ALL_OLD"
        reply = self._call(_OPERATIONS[type(write)], ReturnValues=returned, **self._parameters(write))
        return decode(reply["Attributes"]) if reply.get("Attributes") else None

    def transact(self, writes: Sequence[Write | Check]) -> None:
        """All of these, of different items, or none. At most 100."""
        named = [{_transacted(write): self._parameters(write)} for write in writes]
        self._call("transact_write_items", TransactItems=named)

    def query(
        self, condition: str, values: Item, *, keep: str = "", limit: int | None = None, forward: bool = True
    ) -> Iterator[Item]:
        """Items of one partition in order of the sort key, fetched as they are asked for.

        `condition`: on the keys; `keep`: on other attributes; `limit`: items in one page.
        """
        parameters: dict[str, Any] = {
            "TableName": self._calls.name,
            "KeyConditionExpression": condition,
            "ScanIndexForward": forward,
            "ConsistentRead": True,
            **({"FilterExpression": keep} if keep else {}),
            **({"Limit": limit} if limit else {}),
            **placeholders(_values(values), condition, keep),
        }
        while True:
            page = self._call("query", **parameters)
            yield from map(decode, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def ping(self) -> None:
        """Raises DependencyFailed when the table cannot be read."""
        self.get(Key("ping", "ping"))

    def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """A call, again where others were in its way, which the client does not do by itself."""
        for tries in range(1, TRIES + 1):
            try:
                return self._calls.ask(operation, **parameters)
            except Refused as exc:
                if exc.items:
                    found = {place: None if item is None else decode(item) for place, item in exc.items.items()}
                    raise ConditionFailed(found) from None
                refusal = exc
            if tries < TRIES:
                bound = FIRST_PAUSE * 2 ** (tries - 1)
                self._sleep(time_left.at_most(random.uniform(0, bound)))  # noqa: S311 -- no secret
        raise refusal.failure from None

    def _parameters(self, write: Write | Check) -> dict[str, Any]:
        change = write.change if isinstance(write, Update) else ""
        return {
            "TableName": self._calls.name,
            **(
                {"Item": {**encode(write.item), **write.key.item}}
                if isinstance(write, Put)
                else {"Key": write.key.item}
            ),
            **({"UpdateExpression": change} if change else {}),
            **(
                {"ConditionExpression": write.condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
                if write.condition
                else {}
            ),
            **placeholders(_values(write.values), change, write.condition),
        }


def forget_at(moment: float) -> int:
    """The value of the attribute `expires`: DynamoDB deletes the item in the days after, so what reads it must look at
    its real end itself. `moment`: epoch seconds."""
    return math.ceil(moment) + TTL_MARGIN


def _values(values: Item) -> dict[str, Any]:
    return {f":{name}": value for name, value in encode(values).items()}


def _transacted(write: Write | Check) -> str:
    return "ConditionCheck" if isinstance(write, Check) else type(write).__name__

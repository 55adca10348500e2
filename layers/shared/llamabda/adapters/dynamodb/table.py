"""One table with the keys `pk` and `sk`, both strings: items as plain values, conditional writes, what failures mean.

The client retries what AWS is known to answer well a moment later (throttling, 5xx, lost connections). What it leaves
alone is retried here: transactions that met another one, and keys that a batch did not get to.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from llamabda import time_left
from llamabda.adapters.dynamodb.attributes import Item, decode, encode
from llamabda.aws_failures import code, failure
from llamabda.errors import DependencyFailed

Key: TypeAlias = tuple[str, str]  # pk, sk

MAX_SORT_KEY_BYTES = 1_024  # DynamoDB's limit
TRIES = 6
FIRST_PAUSE = 0.025  # seconds; doubled each time, and drawn from zero to the whole
BATCH = 100  # keys in one BatchGetItem
TTL_MARGIN = 3_600  # seconds that an item outlives its use: clocks differ
_CONFLICTS = frozenset({"TransactionConflictException"})
_PASSING = frozenset({"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_NAME = re.compile(r"#(\w+)")
_ADVICE = {
    "ResourceNotFoundException": "there is no such table, or index of it, in this account and region",
    "ValidationException": "it cannot hold what is asked: are its keys pk and sk, both strings?",
}


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
        self._client = client
        self._name = name
        self._dependency = dependency
        self._what = f"the table {name} ({setting})"
        self._sleep = sleep

    def get(self, key: Key) -> Item | None:
        reply = self._call("get_item", TableName=self._name, Key=_key(key), ConsistentRead=True)
        return decode(reply["Item"]) if "Item" in reply else None

    def get_all(self, keys: Iterable[Key]) -> Mapping[Key, Item]:
        """Those that are there."""
        wanted = list(dict.fromkeys(keys))
        found: dict[Key, Item] = {}
        for first in range(0, len(wanted), BATCH):
            for item in self._batch(wanted[first : first + BATCH]):
                found[item["pk"], item["sk"]] = item
        return found

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
        self,
        condition: str,
        values: Item,
        *,
        index: str | None = None,
        keep: str = "",
        limit: int | None = None,
        forward: bool = True,
    ) -> Iterator[Item]:
        """Items of one partition in order of the sort key, fetched as they are asked for.

        `condition`: on the keys; `keep`: on other attributes; `limit`: items in one page. An `index` is read as it is,
        which may be a moment behind.
        """
        parameters: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": condition,
            "ScanIndexForward": forward,
            **({"IndexName": index} if index else {"ConsistentRead": True}),
            **({"FilterExpression": keep} if keep else {}),
            **({"Limit": limit} if limit else {}),
            **_placeholders(f"{condition} {keep}", values),
        }
        while True:
            page = self._call("query", **parameters)
            yield from map(decode, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def ping(self) -> None:
        """Raises DependencyFailed when the table cannot be read."""
        self.get(("ping", "ping"))

    def pause(self, tries: int) -> None:
        """Before something is tried again that was tried so often."""
        self._sleep(time_left.at_most(random.uniform(0, FIRST_PAUSE * 2 ** (tries - 1))))  # noqa: S311 -- no secret

    def _batch(self, keys: Sequence[Key]) -> Iterator[Item]:
        asked: Any = {self._name: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        for tries in range(1, TRIES + 1):
            reply = self._call("batch_get_item", RequestItems=asked)
            yield from map(decode, reply["Responses"].get(self._name, ()))
            asked = reply.get("UnprocessedKeys")
            if not asked:
                return
            if tries < TRIES:
                self.pause(tries)
        raise self._failed(f"it did not get to all of {len(keys)} items in {TRIES} tries")

    def _call(self, operation: str, **parameters: Any) -> Any:
        """A call of the client, again where it met a transaction."""
        for tries in range(1, TRIES + 1):
            try:
                return getattr(self._client, operation)(**parameters)
            except ClientError as exc:
                if not _met_another(exc):
                    found = failure(exc, what=self._what, dependency=self._dependency, advice=_ADVICE | _cancelled(exc))
                    break
            except BotoCoreError as exc:
                found = failure(exc, what=self._what, dependency=self._dependency)
                break
            if tries < TRIES:
                self.pause(tries)
        else:
            found = self._failed(f"{TRIES} tries met other transactions")
        raise found

    def _failed(self, reason: str) -> DependencyFailed:
        return DependencyFailed(f"{self._what} failed: {reason}", dependency=self._dependency)

    def _parameters(self, write: Write | Check) -> dict[str, Any]:
        change = write.change if isinstance(write, Update) else ""
        return {
            "TableName": self._name,
            **(
                {"Item": {**encode(write.item), **_key(write.key)}}
                if isinstance(write, Put)
                else {"Key": _key(write.key)}
            ),
            **({"UpdateExpression": change} if change else {}),
            **(
                {"ConditionExpression": write.condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
                if write.condition
                else {}
            ),
            **_placeholders(f"{change} {write.condition}", write.values),
        }


def forget_at(moment: float) -> int:
    """The value of the attribute `expires`: DynamoDB deletes the item in the days after, so what reads it must look at
    its real end itself. `moment`: epoch seconds."""
    return math.ceil(moment) + TTL_MARGIN


def _key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _placeholders(expressions: str, values: Item) -> dict[str, Any]:
    """Names are always given as placeholders: a good part of all English words is reserved."""
    names = {f"#{name}": name for name in _NAME.findall(expressions)}
    return {
        **({"ExpressionAttributeNames": names} if names else {}),
        **({"ExpressionAttributeValues": {f":{name}": v for name, v in encode(values).items()}} if values else {}),
    }


def _transacted(write: Write | Check) -> str:
    return "ConditionCheck" if isinstance(write, Check) else type(write).__name__


def _met_another(exc: ClientError) -> bool:
    """Whether the same request may succeed a moment later, though the client has not tried again.

    ConditionFailed when a condition did.
    """
    name = code(exc)
    if name == "ConditionalCheckFailedException":
        raise ConditionFailed({0: _found(exc.response)}) from None
    if name == "TransactionCanceledException":
        reasons = exc.response.get("CancellationReasons") or ()
        failed = {
            place: _found(reason)
            for place, reason in enumerate(reasons)
            if reason.get("Code") == "ConditionalCheckFailed"
        }
        if failed:
            raise ConditionFailed(failed) from None
        return bool(reasons) and all(reason.get("Code") in _PASSING for reason in reasons)
    return name in _CONFLICTS


def _cancelled(exc: ClientError) -> dict[str, str]:
    """What stopped a transaction, as advice."""
    codes = {str(reason.get("Code")) for reason in exc.response.get("CancellationReasons") or ()} - {"None"}
    told = [_ADVICE["ValidationException"] if name == "ValidationError" else name for name in sorted(codes)]
    return {"TransactionCanceledException": ", ".join(told)} if told else {}


def _found(reason: Mapping[str, Any]) -> Item | None:
    return decode(reason["Item"]) if reason.get("Item") else None

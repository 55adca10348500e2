"""Writes many items: in batches, each until the cluster has taken every item of it, or refuses one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamabda.adapters.opensearch.connection import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Connection,
    Failed,
    refused,
    wait,
)
from llamabda.errors import InvalidInput

BATCH_BYTES = 5_000_000
BATCH_ITEMS = 500
_NO_ITEM_S_FAULT = ("strict_dynamic_mapping_exception", "index_closed_exception")


@dataclass(frozen=True, slots=True)
class Item:
    """`action`: {"index": {...}} or {"delete": {...}}; `name` is what people call it."""

    name: str
    action: Mapping[str, Any]
    document: Mapping[str, Any] | None = None

    def lines(self) -> str:
        parts = [self.action] if self.document is None else [self.action, self.document]
        return "".join(
            json.dumps(part, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n" for part in parts
        )


def batches(items: Iterable[Item]) -> Iterator[list[tuple[Item, str]]]:
    """With the lines of each. An item that is larger than a batch makes one of its own."""
    batch: list[tuple[Item, str]] = []
    size = 0
    for item in items:
        lines = item.lines()
        length = len(lines.encode("utf-8", "replace"))
        if batch and (len(batch) >= BATCH_ITEMS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((item, lines))
        size += length
    if batch:
        yield batch


def write(
    connection: Connection,
    path: str,
    items: Iterable[Item],
    *,
    params: Mapping[str, str],
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Returns when the cluster has taken all items. They must be such that writing one twice changes nothing.

    InvalidInput names the items that it refuses for what they are, once it has taken the others of their batch. Failed
    when it cannot take them now; then some may be written. `alive` is called between batches.
    """
    for batch in batches(items):
        alive()
        _write(connection, path, batch, params)


def _write(connection: Connection, path: str, batch: list[tuple[Item, str]], params: Mapping[str, str]) -> None:
    deadline = connection.deadline(requests=3.0)
    refusals: list[tuple[Item, Failed]] = []
    pause = FIRST_PAUSE
    while batch:
        try:
            reply = connection.call(
                "POST", path, "".join(lines for _, lines in batch), params=params, deadline=deadline
            )
            again, lasting, failure = _left(batch, reply)
            refusals += lasting
        except Failed as exc:
            if not exc.passing:
                raise
            again, failure = batch, exc
        if again and not wait(pause, deadline):
            raise failure or Failed("the index does not take all that it is sent")
        pause = FIRST_PAUSE if len(again) < len(batch) else min(2 * pause, LONGEST_PAUSE)
        batch = again
    if refusals:
        raise _refusal(refusals)


def _left(
    batch: Sequence[tuple[Item, str]], reply: Mapping[str, Any]
) -> tuple[list[tuple[Item, str]], list[tuple[Item, Failed]], Failed | None]:
    """Those to be sent again, those that are refused for good, and why the former were not taken."""
    results = reply.get("items")
    if not isinstance(results, list) or len(results) != len(batch):
        raise Failed(f"the index does not say what became of {len(batch)} items")
    again, lasting = [], []
    why: Failed | None = None
    for (item, lines), result in zip(batch, results, strict=True):
        (outcome,) = result.values()
        status = int(outcome.get("status", 0))
        if 200 <= status < 300 or (status == 404 and "delete" in result and not outcome.get("error")):
            continue
        failure = refused(status, outcome)
        if failure.passing:
            again.append((item, lines))
            why = failure
        elif status in (400, 413) and failure.kind not in _NO_ITEM_S_FAULT:
            lasting.append((item, failure))
        else:
            raise failure
    return again, lasting, why


def _refusal(refusals: Sequence[tuple[Item, Failed]]) -> InvalidInput:
    names = ", ".join(item.name[:100] for item, _ in refusals[:3])
    more = f" and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return InvalidInput(f"the index does not take {names}{more}: {refusals[0][1].message}")

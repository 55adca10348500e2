"""What must be true of the catalog's table at any time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from llamabda.adapters.dynamodb.head import head
from llamabda.adapters.dynamodb.items import record, version
from llamabda.types import GenerationKey
from tests.aws import CATALOG


def everything(client: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=CATALOG)
    return [item for page in pages for item in page["Items"]]


def check(client: Any) -> None:
    """The table agrees with itself."""
    kinds: dict[str, list[Any]] = {}
    for item in everything(client):
        kinds.setdefault(item["pk"]["S"].split("#")[0], []).append(item)
    documents = [record(item) for item in kinds.get("doc", ())]
    live = [one for one in documents if one.live is not None]

    # counts are exact
    states = Counter((one.tenant, one.visible) for one in documents if one.visible)
    assert _added((item, item["pk"]["S"].split("#")[1]) for item in kinds.get("states", ())) == states
    found = head(next(iter(kinds.get("head", ())), None))
    counted = Counter((None, f"made:{mark}") for one in live for mark in one.marks & found.marks)
    if live:
        counted[None, "documents"] = len(live)
    assert _added((item, None) for item in kinds.get("vectors", ())) == counted
    assert {item.get("turn", {"N": "0"})["N"] for item in kinds.get("vectors", ())} <= {str(found.turn)}

    # every document can be found, and a generation is live when its document says so
    assert {item["sk"]["S"] for item in kinds.get("tenants", ())} == {one.tenant for one in documents}
    versions = [version(item) for item in kinds.get("gen", ())]
    keys = {GenerationKey(one.tenant, one.id, one.live) for one in live if one.live is not None}
    assert {one.key for one in versions if one.phase == "live"} == keys

    # what has to be swept can be found
    for item in kinds.get("gen", ()):
        assert ("due_pk" in item, "due_at" in item) == (item["phase"]["S"] != "live",) * 2


def _added(items: Any) -> Counter[tuple[Any, str]]:
    """The numbers of items that count, added up; that of the turn is none."""
    total: Counter[tuple[Any, str]] = Counter()
    for item, of in items:
        total.update({(of, name): int(value["N"]) for name, value in item.items() if "N" in value and name != "turn"})
    return +total

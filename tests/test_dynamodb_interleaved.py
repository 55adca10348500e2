"""Whatever somebody else does between what a method reads and what it writes, it is as if one had come after the other.

Each pair of methods runs in DynamoDB with the second one in the middle of the first; what both return, and what can be
seen then, is what SQLite has after the one and then the other, or the other way round.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from llamabda.adapters.dynamodb import layout, records
from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings
from llamabda.adapters.sqlite import catalog as sqlite_catalog
from llamabda.adapters.sqlite import embeddings as sqlite_embeddings
from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.errors import DependencyFailed
from llamabda.ports import Catalog, Embeddings
from llamabda.types import Embedding, EmbeddingModel, GenerationKey
from scripts.local import template
from scripts.local.aws import keep_only_what_a_transaction_touches
from tests import dynamodb_table
from tests.aws import CATALOG, REGION

Both = tuple[Catalog, Embeddings]
Does = Callable[[Catalog, Embeddings], object]
NOW = datetime(2026, 3, 1, 12, 0, 0, 100_001, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(days=9), NOW + timedelta(days=9)
ONE, TWO, THREE = (Embedding(name, EmbeddingModel(f"a/{name}", "onnx")) for name in ("one", "two", "three"))
OLD, NEW = "one.random", "two.random"  # the builds: the one that is live, and one that is being made
TABLE = template.table(template.read(), "CatalogTable")
GIVEN: dict[str, Any] = {"source": "api", "metadata": {"k": 1}, "sha256": "ab" * 32, "size": 7, "chunks": 2}


def key(doc_id: str, generation: int) -> GenerationKey:
    return GenerationKey("t", doc_id, generation)


def begin(catalog: Catalog, doc_id: str, **more: Any) -> int | None:
    return catalog.begin("t", doc_id, source="api", metadata={}, **more)


def commit(doc_id: str, generation: int, build: str, **more: Any) -> Does:
    return lambda catalog, _: catalog.commit(key(doc_id, generation), **GIVEN, build=build, **more)


def prepare(catalog: Catalog, embeddings: Embeddings) -> None:
    """`made` has all vectors, `unmade` those of the live build only; new versions of them, and `new`, are begun."""
    embeddings.settle(ONE)
    embeddings.begin(TWO)
    for doc_id in ("made", "unmade"):
        begin(catalog, doc_id)
        catalog.commit(key(doc_id, 1), **GIVEN, build=OLD)
    embeddings.made([key("made", 1)], NEW)
    for doc_id in ("made", "unmade", "new"):
        begin(catalog, doc_id, state="queued")


def prepare_without_documents(catalog: Catalog, embeddings: Embeddings) -> None:
    embeddings.settle(ONE)
    embeddings.begin(TWO)
    begin(catalog, "new")


DOES: dict[str, Does] = {
    "begin": lambda catalog, _: begin(catalog, "unmade", sequencer="5"),
    "begin one never seen": lambda catalog, _: begin(catalog, "unseen"),
    "start": lambda catalog, _: catalog.start(key("unmade", 2)),
    "requeue": lambda catalog, _: catalog.requeue(key("unmade", 2), "later"),
    "fail": lambda catalog, _: catalog.fail(key("unmade", 2), "no"),
    "unchanged": lambda catalog, _: catalog.unchanged(key("unmade", 2), 1, build=OLD),
    "commit": commit("unmade", 2, OLD),
    "commit with a sequencer": commit("unmade", 2, OLD, sequencer="7"),
    "commit the first": commit("new", 1, OLD),
    "commit without vectors": commit("made", 2, ""),
    "commit with those to come": commit("made", 2, NEW),
    "delete": lambda catalog, _: catalog.delete("t", "unmade"),
    "delete by sequencer": lambda catalog, _: catalog.delete("t", "unmade", sequencer="6"),
    "give up": lambda catalog, _: bool(catalog.garbage(before=EARLIER, abandoned_before=LATER)),
    "made": lambda _, embeddings: embeddings.made([key("unmade", 1)], NEW),
    "adopt": lambda _, embeddings: embeddings.adopt(NEW),
    "make and adopt": lambda _, embeddings: (embeddings.made([key("unmade", 1)], NEW), embeddings.adopt(NEW)),
    "lose the live": lambda _, embeddings: embeddings.lost(OLD),
    "lose the other": lambda _, embeddings: embeddings.lost(NEW),
    "move": lambda _, embeddings: embeddings.moved("elsewhere"),
    "discard": lambda _, embeddings: list(embeddings.discard(retired_before=LATER, unfinished_before=LATER)),
    "begin a build": lambda _, embeddings: embeddings.begin(THREE),
    "settle": lambda _, embeddings: embeddings.settle(THREE),
    "settle by another name": lambda _, embeddings: embeddings.settle(Embedding("one", EmbeddingModel("b", "onnx"))),
}
# those that are tried with each other; all of them, where more examples are wanted
SEVERAL_WRITES = ("made", "make and adopt")
FIRST = (
    *("begin", "start", "fail", "unchanged", "commit", "commit with a sequencer", "commit the first", "delete"),
    *("give up", "made", "adopt", "lose the live", "move", "begin a build", "settle"),
)
BETWEEN = (
    *("begin", "unchanged", "commit with a sequencer", "commit without vectors", "delete", "make and adopt"),
    *("lose the live", "discard", "begin a build"),
)
if "LLAMABDA_TEST_EXAMPLES" in os.environ:
    FIRST = BETWEEN = tuple(DOES)
# where no document is live
EMPTY: dict[str, Does] = {
    "settle": lambda _, embeddings: embeddings.settle(THREE),
    "commit": commit("new", 1, OLD),
    "commit without vectors": commit("new", 1, ""),
    "move": lambda _, embeddings: embeddings.moved("elsewhere"),
    "adopt": lambda _, embeddings: embeddings.adopt(NEW),
}


def seen(catalog: Catalog, embeddings: Embeddings) -> object:
    """Everything that can be."""
    names = sorted(embeddings.names())
    return (
        catalog.list("t"),
        embeddings.live(),
        names,
        [embeddings.unmade(name, limit=9) for name in names],
        set(catalog.garbage(before=LATER, abandoned_before=EARLIER)),
    )


def said(does: Does, stores: Both) -> object:
    try:
        return does(*stores)
    except DependencyFailed as exc:
        return exc.message


@pytest.fixture(autouse=True)
def same_for_both(monkeypatch) -> None:
    """The time, and what is random."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "random")
    monkeypatch.setattr(sqlite_catalog, "_now", NOW.timestamp)
    monkeypatch.setattr(sqlite_embeddings.time, "time", NOW.timestamp)
    monkeypatch.setattr(records, "THREADS", 1)
    monkeypatch.setattr(layout, "SHARDS", 3)


class Dynamo:
    """A table that can be brought back to what it was, by two clients: `sending` is called before one of them sends."""

    def __init__(self) -> None:
        given = {"region_name": REGION, "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        self.client: Any = boto3.client("dynamodb", **given)
        self.watched: Any = boto3.client("dynamodb", **given)
        self.sending: Callable[[str], None] = lambda _: None
        self.watched.meta.events.register("before-call.dynamodb", lambda model, **_: self.sending(model.name))
        self.client.create_table(TableName=CATALOG, **TABLE)
        self.kept: list[dict[str, Any]] = []

    def stores(self, client: Any) -> Both:
        return DynamoCatalog(client, CATALOG, clock=lambda: NOW), DynamoEmbeddings(client, CATALOG, clock=lambda: NOW)

    def keep(self) -> None:
        self.kept = dynamodb_table.everything(self.client)

    def restore(self) -> None:
        self.client.delete_table(TableName=CATALOG)
        self.client.create_table(TableName=CATALOG, **TABLE)
        for at in range(0, len(self.kept), 25):
            puts = [{"PutRequest": {"Item": item}} for item in self.kept[at : at + 25]]
            self.client.batch_write_item(RequestItems={CATALOG: puts})


@pytest.fixture
def dynamo() -> Iterator[Dynamo]:
    keep_only_what_a_transaction_touches()
    with mock_aws():
        yield Dynamo()


class Sqlite:
    """A database that can be brought back to what it was."""

    def __init__(self, folder: Path, start: Does) -> None:
        self.folder = folder
        with self.stores("kept.db") as stores:
            start(*stores)

    @contextmanager
    def stores(self, name: str) -> Iterator[Both]:
        database = Database(self.folder / name)
        yield SqliteCatalog(database), SqliteEmbeddings(database)
        database.close()

    def in_order(self, first: Does, second: Does) -> tuple[object, object, object]:
        """What it says to both, and what can be seen then."""
        shutil.copy(self.folder / "kept.db", self.folder / "catalog.db")
        with self.stores("catalog.db") as stores:
            return said(first, stores), said(second, stores), seen(*stores)


def interleaved(
    dynamo: Dynamo, first: Does, second: Does, *, before_write: int
) -> tuple[object, object, object] | None:
    """The second one runs before that write of the first one. None: it does not write so often."""
    written, between = 0, []

    def sending(operation: str) -> None:
        nonlocal written
        if operation in ("TransactWriteItems", "PutItem"):
            written += 1
            if written == before_write:
                between.append(said(second, dynamo.stores(dynamo.client)))

    dynamo.restore()
    dynamo.sending = sending
    outcome = said(first, dynamo.stores(dynamo.watched))
    if not between:
        return None
    dynamodb_table.check(dynamo.client)
    return outcome, between[0], seen(*dynamo.stores(dynamo.client))


@pytest.mark.parametrize("name", FIRST)
def test_one_comes_after_the_other(name, dynamo, tmp_path):
    prepare(*dynamo.stores(dynamo.client))
    dynamo.keep()
    sqlite = Sqlite(tmp_path, prepare)
    for other in BETWEEN:
        for before_write in (1, 2, 3) if name in SEVERAL_WRITES else (1,):
            _compare(DOES[name], DOES[other], dynamo, sqlite, before_write)


@pytest.mark.parametrize("name", EMPTY)
def test_one_comes_after_the_other_where_no_document_is_live(name, dynamo, tmp_path):
    prepare_without_documents(*dynamo.stores(dynamo.client))
    dynamo.keep()
    sqlite = Sqlite(tmp_path, prepare_without_documents)
    for other in EMPTY.values():
        _compare(EMPTY[name], other, dynamo, sqlite, 1)


def _compare(first: Does, second: Does, dynamo: Dynamo, sqlite: Sqlite, before_write: int) -> None:
    found = interleaved(dynamo, first, second, before_write=before_write)
    if found is not None and found != sqlite.in_order(first, second):
        other, one, after = sqlite.in_order(second, first)
        assert found == (one, other, after)

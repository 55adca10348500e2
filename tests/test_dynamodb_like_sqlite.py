"""Whatever is done to a catalog and its embeddings, in DynamoDB they answer what they answer in SQLite.

For the sake of speed moto is in this process, and one request follows another.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from moto import mock_aws

from llamabda.adapters.dynamodb import catalog as dynamodb_catalog
from llamabda.adapters.dynamodb import layout, records
from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings
from llamabda.adapters.sqlite import catalog as sqlite_catalog
from llamabda.adapters.sqlite import embeddings as sqlite_embeddings
from llamabda.adapters.sqlite.catalog import SqliteCatalog
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings
from llamabda.errors import DependencyFailed
from llamabda.types import Build, Embedding, EmbeddingModel, GenerationKey
from scripts.local import template
from scripts.local.aws import keep_only_what_a_transaction_touches
from tests import dynamodb_table
from tests.aws import CATALOG, REGION

LONG = "s3:" + "é" * 550  # longer than a sort key
DOCUMENTS = [("t", "a"), ("t", "é b"), ("u", "a"), ("u", LONG)]
EMBEDDINGS = [
    Embedding("one", EmbeddingModel("a/one", "onnx")),
    Embedding("one", EmbeddingModel("b/one", "onnx")),
    Embedding("two", EmbeddingModel("a/two", "onnx")),
]
TABLE = template.table(template.read(), "CatalogTable")
EXAMPLES = int(os.environ.get("LLAMABDA_TEST_EXAMPLES", "6"))  # more of them find more
STEPS = 30
HOUR, FORTNIGHT = timedelta(hours=1), timedelta(days=16)

documents = st.sampled_from([None, None, None, None, *DOCUMENTS])  # None: that of the latest generation
Chosen = tuple[str, str] | None
sequencers = st.sampled_from([None, None, None, "1", "2", "20", "3"])
# as indexes into what there is; most of the time the latest
places = st.sampled_from([-1, -1, -1, -2, -3, 0])
builds = st.sampled_from(["live", "live", "live", -1, -2, 0, None])
Named = int | str | None


class Clock:
    """Goes on by a second, and a bit that floats do not hold exactly, whenever something is done."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return self.at.timestamp()

    def go_on(self, by: timedelta = timedelta(0)) -> None:
        self.at += timedelta(seconds=1, microseconds=100_001) + by


class Both(RuleBasedStateMachine):
    """Does the same to both, and looks at everything after each step. Here: what documents usually go through."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = Clock()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        database = Database(folder / "catalog.db")
        self.stack.callback(database.close)
        self.stack.enter_context(mock.patch.object(sqlite_catalog, "_now", self.clock.seconds))
        now = SimpleNamespace(time=self.clock.seconds)
        self.stack.enter_context(mock.patch.object(sqlite_embeddings, "time", now))
        self.stack.enter_context(mock.patch.object(records, "THREADS", 1))
        self.stack.enter_context(mock.patch.object(layout, "SHARDS", 3))
        self.stack.enter_context(mock.patch.object(dynamodb_catalog, "OVERTAKEN", 1))
        self.stack.enter_context(mock_aws())
        given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
        self.client = boto3.client("dynamodb", **given)
        self.client.create_table(TableName=CATALOG, **TABLE)
        self.sqlite = (SqliteCatalog(database), SqliteEmbeddings(database))
        self.dynamo = (
            DynamoCatalog(self.client, CATALOG, clock=self.clock),
            DynamoEmbeddings(self.client, CATALOG, clock=self.clock),
        )
        self.keys: list[GenerationKey] = []
        self.builds: list[tuple[str, str]] = []  # one build's names, which are random, in both
        self.looked = 0
        self.tokens: dict[GenerationKey, str | None] = {}

    def teardown(self) -> None:
        self.stack.close()

    # -- what both do, and what they say

    def catalogs(self, what: Callable[[Any], Any]) -> Any:
        """What they both say. Failures are compared, too."""
        return self.compared(lambda pair, _: what(pair[0]))

    def embeddings(self, what: Callable[..., Any], build: Named = None) -> Any:
        """`what` takes the embeddings and, where a build is meant, its name."""
        return self.compared(lambda pair, at: what(pair[1], self.name(build, at)))

    def compared(self, what: Callable[[Any, int], Any]) -> Any:
        said = []
        for at, pair in enumerate((self.sqlite, self.dynamo)):
            try:
                said.append(what(pair, at))
            except DependencyFailed as exc:
                said.append(("failed", exc.dependency, exc.message))
        assert self.plain(said[0], 0) == self.plain(said[1], 1)
        return said[0]

    def name(self, build: Named, at: int) -> str:
        """Of no build (""), of one, or of one that there is not."""
        if build is None:
            return ""
        if build == "live":
            live = (self.sqlite, self.dynamo)[at][1].live()
            return "" if live is None else live.name
        if not self.builds:
            return "nothing"
        return self.builds[max(-len(self.builds), build)][at]

    def plain(self, said: Any, at: int) -> Any:
        """With builds by their number in place of their random names."""
        numbers = {names[at]: number for number, names in enumerate(self.builds)}
        if isinstance(said, Build):
            return numbers[said.name], said.embedding
        if isinstance(said, frozenset):
            return {numbers[name] for name in said}
        return said

    def learn(self, pair: list[Any]) -> None:
        """Of a build that may be new."""
        names = (pair[0].name, pair[1].name)
        known = [names[at] in {build[at] for build in self.builds} for at in range(2)]
        assert known[0] == known[1]
        if not known[0]:
            self.builds.append(names)
        assert names in self.builds

    def pick(self, place: int) -> GenerationKey:
        if not self.keys:
            return GenerationKey("t", "a", 99)  # never begun
        return self.keys[max(-len(self.keys), place)]

    def document(self, chosen: Chosen) -> tuple[str, str]:
        latest = self.pick(-1)
        return chosen or (latest.tenant, latest.doc_id)

    @invariant()
    def everybody_sees_the_same_documents(self) -> None:
        for tenant in ("t", "u"):
            self.catalogs(lambda catalog, tenant=tenant: catalog.list(tenant))
        self.catalogs(lambda catalog: catalog.live(DOCUMENTS))

    @invariant()
    def the_table_agrees_with_itself(self) -> None:
        dynamodb_table.check(self.client)

    @rule(document=documents, state=st.sampled_from(["queued", "processing"]), token=sequencers, told=st.booleans())
    def begin(self, document: Chosen, state: str, token: str | None, told: bool) -> None:
        self.clock.go_on()
        tenant, doc_id = self.document(document)
        generation = self.catalogs(
            lambda catalog: catalog.begin(
                tenant,
                doc_id,
                source=f"from {len(self.keys)}",
                metadata={"n": len(self.keys), "é": [0.1, None]},
                state=state,
                sequencer=token,
                instructions="{}" if told else "",
            )
        )
        if generation is not None:
            key = GenerationKey(tenant, doc_id, generation)
            self.keys.append(key)
            self.tokens[key] = token

    @rule(place=places, wrong=st.sampled_from([0, 0, 0, 1]), build=builds)
    def unchanged(self, place: int, wrong: int, build: Named) -> None:
        self.clock.go_on()
        key = self.pick(place)
        live = self.sqlite[0].live([(key.tenant, key.doc_id)]).get((key.tenant, key.doc_id), 1) + wrong
        self.compared(lambda pair, at: pair[0].unchanged(key, live, build=self.name(build, at)))

    @rule(place=places, build=builds, own=st.sampled_from([True, True, True, False]), token=sequencers)
    def commit(self, place: int, build: Named, own: bool, token: str | None) -> None:
        self.clock.go_on()
        key = self.pick(place)
        self.compared(
            lambda pair, at: pair[0].commit(
                key,
                source=f"committed {key.generation}",
                metadata={"n": key.generation},
                sha256="ab" * 32,
                size=7,
                chunks=key.generation,
                recipe=f"1:{key.generation}",
                build=self.name(build, at),
                sequencer=self.tokens.get(key) if own else token,
            )
        )

    @rule(document=documents, token=sequencers)
    def delete(self, document: Chosen, token: str | None) -> None:
        self.clock.go_on()
        self.catalogs(lambda catalog: catalog.delete(*self.document(document), sequencer=token))

    @rule(document=documents, build=builds)
    def train(self, document: Chosen, build: Named) -> None:
        """All of it, as is usual."""
        self.begin(document, "queued", None, True)
        self.catalogs(lambda catalog: catalog.start(self.pick(-1)))
        self.commit(-1, build, True, None)


class Documents(Both):
    """They go on, or end, in every way that there is."""

    @rule(place=places)
    def start(self, place: int) -> None:
        self.clock.go_on()
        self.catalogs(lambda catalog: catalog.start(self.pick(place)))

    @rule(place=places, error=st.sampled_from([None, "later"]))
    def requeue(self, place: int, error: str | None) -> None:
        self.clock.go_on()
        self.catalogs(lambda catalog: catalog.requeue(self.pick(place), error))

    @rule(place=places)
    def fail(self, place: int) -> None:
        self.clock.go_on()
        self.catalogs(lambda catalog: catalog.fail(self.pick(place), "broken"))

    @rule(
        later=st.sampled_from([timedelta(0), timedelta(0), HOUR, FORTNIGHT]),
        dead=st.sampled_from([timedelta(0), timedelta(seconds=3), timedelta(seconds=-2)]),
        abandoned=st.sampled_from([timedelta(0), timedelta(seconds=4), HOUR, FORTNIGHT]),
        sweep=st.booleans(),
    )
    def garbage(self, later: timedelta, dead: timedelta, abandoned: timedelta, sweep: bool) -> None:
        self.clock.go_on(later)
        now = self.clock()
        found = self.catalogs(
            lambda catalog: sorted(
                catalog.garbage(before=now - dead, abandoned_before=now - abandoned), key=lambda key: astuple(key)
            )
        )
        if sweep:
            self.catalogs(lambda catalog: catalog.swept(found))


class Builds(Both):
    """Documents come and go while vectors are made, searched, lost and dropped."""

    @rule(embedding=st.sampled_from(EMBEDDINGS))
    def settle(self, embedding: Embedding) -> None:
        self.clock.go_on()
        self.learn([pair[1].settle(embedding) for pair in (self.sqlite, self.dynamo)])

    @rule(embedding=st.sampled_from(EMBEDDINGS), anew=st.booleans())
    def begin_build(self, embedding: Embedding, anew: bool) -> None:
        self.clock.go_on()
        self.learn([pair[1].begin(embedding, anew=anew) for pair in (self.sqlite, self.dynamo)])

    @rule(build=builds, limit=st.sampled_from([1, 2, 9, 9]))
    def make(self, build: Named, limit: int) -> None:
        """Some of what lacks its vectors."""
        self.clock.go_on()
        keys = self.embeddings(lambda embeddings, name: embeddings.unmade(name, limit=limit), build)
        self.embeddings(lambda embeddings, name: embeddings.made(keys, name), build)

    @rule(build=builds, places=st.lists(places, max_size=3))
    def made(self, build: Named, places: list[int]) -> None:
        """Whatever it is."""
        self.clock.go_on()
        self.embeddings(lambda embeddings, name: embeddings.made([self.pick(n) for n in places], name), build)

    @rule(build=builds)
    def adopt(self, build: Named) -> None:
        self.clock.go_on()
        self.embeddings(lambda embeddings, name: embeddings.adopt(name), build)

    @rule(build=builds)
    def lost(self, build: Named) -> None:
        self.clock.go_on()
        self.embeddings(lambda embeddings, name: embeddings.lost(name), build)

    @rule(place=st.sampled_from(["home", "elsewhere"]))
    def moved(self, place: str) -> None:
        self.clock.go_on()
        self.embeddings(lambda embeddings, _: embeddings.moved(place))

    @rule(
        retired=st.sampled_from([timedelta(0), timedelta(seconds=5), HOUR]),
        unfinished=st.sampled_from([timedelta(seconds=5), HOUR]),
        drop=st.booleans(),
    )
    def discard(self, retired: timedelta, unfinished: timedelta, drop: bool) -> None:
        self.clock.go_on()
        given = {"retired_before": self.clock() - retired, "unfinished_before": self.clock() - unfinished}
        self.embeddings(lambda embeddings, _: frozenset(embeddings.discard(**given)))
        if drop:
            self.dropped(0)

    @rule(build=builds)
    def dropped(self, build: Named) -> None:
        self.clock.go_on()
        self.embeddings(lambda embeddings, name: embeddings.dropped(name), build)

    @invariant()
    def everybody_sees_the_same_builds(self) -> None:
        self.embeddings(lambda embeddings, _: embeddings.live())
        self.embeddings(lambda embeddings, _: embeddings.names())
        self.looked += 1
        self.embeddings(lambda embeddings, name: embeddings.unmade(name, limit=9), ("live", -1, -2)[self.looked % 3])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [Documents, Builds])
def test_in_dynamodb_they_answer_what_they_answer_in_sqlite(machine):
    keep_only_what_a_transaction_touches()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=set(Phase) - {Phase.explain},  # which takes long, and says little
            print_blob=True,
        ),
    )

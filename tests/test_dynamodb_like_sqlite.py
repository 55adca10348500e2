"""Whatever is done to a catalog and its embeddings, in DynamoDB they answer what they answer in SQLite.

For the sake of speed moto is in this process, and one request follows another.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import boto3
import pytest
from hypothesis import HealthCheck, Phase, note, settings
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

EXAMPLES = int(os.environ.get("LLAMABDA_TEST_EXAMPLES", "6"))  # more of them find more
STEPS = 40
LONG = "s3:" + "é" * 550  # longer than a sort key
DOCUMENTS = [("t", "a"), ("u", LONG), ("t", "é b")]
EMBEDDINGS = [
    Embedding("one", EmbeddingModel("a/one", "onnx")),
    Embedding("one", EmbeddingModel("b/one", "onnx")),
    Embedding("two", EmbeddingModel("a/two", "onnx")),
]
SEQUENCERS = [None, None, None, "1", "2", "20", "3"]
BUILDS = ["live", "live", "live", "live", "live", -1, -1, -2, 0, None]  # of those that there are, and none
TABLE = template.table(template.read(), "CatalogTable")
NOW, SECONDS, HOUR, FORTNIGHT = timedelta(0), timedelta(seconds=5), timedelta(hours=1), timedelta(days=16)
Named = int | str | None


class Clock:
    """Goes on by a second, and a bit that floats do not hold exactly, whenever something is done."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return self.at.timestamp()

    def go_on(self, by: timedelta = NOW) -> None:
        self.at += timedelta(seconds=1, microseconds=100_001) + by


class Both(RuleBasedStateMachine):
    """Does the same to both, and looks at everything after each step.

    What a step does is drawn from its seed and its number: so Hypothesis, which likes to repeat itself, does not do the
    same again and again, and still can leave out what a failure does not need.
    """

    does: ClassVar[Mapping[str, int]]  # methods, with their weight

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.random = Clock(), Random(0)
        self.keys: list[GenerationKey] = []
        self.ended: set[GenerationKey] = set()
        self.tokens: dict[GenerationKey, str | None] = {}
        self.builds: list[tuple[str, str]] = []  # one build's names, which are random, in both
        self.steps = 0
        self.stack = ExitStack()
        database = Database(Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "catalog.db")
        self.stack.callback(database.close)
        now = SimpleNamespace(time=self.clock.seconds)
        for module, name, value in (
            (sqlite_catalog, "_now", self.clock.seconds),
            (sqlite_embeddings, "time", now),
            (records, "THREADS", 1),
            (layout, "SHARDS", 3),
            (dynamodb_catalog, "OVERTAKEN", 1),
        ):
            self.stack.enter_context(mock.patch.object(module, name, value))
        self.stack.enter_context(mock_aws())
        given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
        self.client = boto3.client("dynamodb", **given)
        self.client.create_table(TableName=CATALOG, **TABLE)
        self.sqlite = (SqliteCatalog(database), SqliteEmbeddings(database))
        self.dynamo = (
            DynamoCatalog(self.client, CATALOG, clock=self.clock),
            DynamoEmbeddings(self.client, CATALOG, clock=self.clock),
        )

    def teardown(self) -> None:
        self.stack.close()

    @rule(seed=st.integers(0, 2**64))
    def step(self, seed: int) -> None:
        self.random = Random(f"{seed} {self.steps}")
        self.steps += 1
        (name,) = self.random.choices(list(self.does), list(self.does.values()))
        self.clock.go_on()
        note(name)
        getattr(self, name)()

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

    def learn(self, what: Callable[[Any], Build]) -> None:
        """Of a build that may be new."""
        names = (what(self.sqlite[1]).name, what(self.dynamo[1]).name)
        known = [names[at] in {build[at] for build in self.builds} for at in range(2)]
        assert known[0] == known[1]
        if not known[0]:
            self.builds.append(names)
        assert names in self.builds

    # -- what is drawn

    def key(self) -> GenerationKey:
        """Mostly one that is to be made; or one that was never begun."""
        begun = [key for key in self.keys if key not in self.ended][-3:]
        return self.random.choice([*begun, *begun, *begun, *self.keys[-3:], GenerationKey("t", "a", 99)])

    def document(self) -> tuple[str, str]:
        return self.random.choice(DOCUMENTS)

    def build(self) -> Named:
        return self.random.choice(BUILDS)

    # -- what documents usually go through

    def begin(self) -> GenerationKey | None:
        (tenant, doc_id), token = self.document(), self.random.choice(SEQUENCERS)
        given = {
            "source": f"from {len(self.keys)}",
            "metadata": {"n": len(self.keys), "é": [0.1, None]},
            "state": self.random.choice(["queued", "processing"]),
            "sequencer": token,
            "instructions": self.random.choice(["", "{}"]),
        }
        generation = self.catalogs(lambda catalog: catalog.begin(tenant, doc_id, **given))
        if generation is None:
            return None
        key = GenerationKey(tenant, doc_id, generation)
        self.keys.append(key)
        self.tokens[key] = token
        return key

    def start(self) -> None:
        key = self.key()
        self.catalogs(lambda catalog: catalog.start(key))

    def commit(self) -> None:
        self.committed(self.key())

    def committed(self, key: GenerationKey) -> None:
        self.ended.add(key)
        build, other = self.build(), self.random.choice(SEQUENCERS)
        given = {
            "source": f"committed {key.generation}",
            "metadata": {"n": key.generation},
            "sha256": "ab" * 32,
            "size": 7,
            "chunks": key.generation,
            "recipe": f"1:{key.generation}",
            "sequencer": self.random.choice([self.tokens.get(key), self.tokens.get(key), other]),
        }
        self.compared(lambda pair, at: pair[0].commit(key, **given, build=self.name(build, at)))

    def train(self) -> None:
        key = self.begin()
        if key is not None:
            self.catalogs(lambda catalog: catalog.start(key))
            self.clock.go_on()
            self.committed(key)

    def unchanged(self) -> None:
        key, build = self.key(), self.build()
        live = self.sqlite[0].live([(key.tenant, key.doc_id)]).get((key.tenant, key.doc_id), 1)
        live += self.random.choice([0, 0, 0, 1])
        self.compared(lambda pair, at: pair[0].unchanged(key, live, build=self.name(build, at)))

    def delete(self) -> None:
        document, token = self.document(), self.random.choice(SEQUENCERS)
        self.catalogs(lambda catalog: catalog.delete(*document, sequencer=token))

    @invariant()
    def everybody_sees_the_same_documents(self) -> None:
        for tenant in ("t", "u"):
            self.catalogs(lambda catalog, tenant=tenant: catalog.list(tenant))
        self.catalogs(lambda catalog: catalog.live(DOCUMENTS))

    @invariant()
    def the_table_agrees_with_itself(self) -> None:
        dynamodb_table.check(self.client)


class Documents(Both):
    """They go on, or end, in every way that there is."""

    does: ClassVar = {
        "begin": 6,
        "start": 3,
        "requeue": 2,
        "fail": 3,
        "commit": 4,
        "train": 3,
        "unchanged": 3,
        "delete": 3,
        "garbage": 4,
    }

    def requeue(self) -> None:
        key, error = self.key(), self.random.choice([None, "later"])
        self.catalogs(lambda catalog: catalog.requeue(key, error))

    def fail(self) -> None:
        key = self.key()
        self.ended.add(key)
        self.catalogs(lambda catalog: catalog.fail(key, "broken"))

    def garbage(self) -> None:
        self.clock.go_on(self.random.choice([NOW, NOW, NOW, HOUR, FORTNIGHT]))
        dead, abandoned = self.random.choice([NOW, SECONDS, -SECONDS]), self.random.choice([NOW, SECONDS, HOUR, HOUR])
        given = {"before": self.clock() - dead, "abandoned_before": self.clock() - abandoned}
        found = self.catalogs(lambda catalog: sorted(catalog.garbage(**given), key=astuple))
        if self.random.random() < 0.5:
            self.catalogs(lambda catalog: catalog.swept(found))


class Builds(Both):
    """Documents come and go while vectors are made, searched, lost and dropped."""

    does: ClassVar = {
        "begin": 2,
        "commit": 2,
        "train": 7,
        "unchanged": 2,
        "delete": 2,
        "settle": 2,
        "begin_build": 5,
        "make": 6,
        "made": 2,
        "adopt": 4,
        "lost": 4,
        "moved": 2,
        "discard": 3,
        "dropped": 2,
    }

    def settle(self) -> None:
        embedding = self.random.choice(EMBEDDINGS)
        self.learn(lambda embeddings: embeddings.settle(embedding))

    def begin_build(self) -> None:
        embedding, anew = self.random.choice(EMBEDDINGS), self.random.random() < 0.4
        self.learn(lambda embeddings: embeddings.begin(embedding, anew=anew))

    def make(self) -> None:
        """Some of what lacks its vectors."""
        build, limit = self.build(), self.random.choice([1, 2, 9, 9])
        keys = self.embeddings(lambda embeddings, name: embeddings.unmade(name, limit=limit), build)
        self.embeddings(lambda embeddings, name: embeddings.made(keys, name), build)

    def made(self) -> None:
        """Whatever it is."""
        build, keys = self.build(), [self.key() for _ in range(self.random.randrange(4))]
        self.embeddings(lambda embeddings, name: embeddings.made(keys, name), build)

    def adopt(self) -> None:
        self.embeddings(lambda embeddings, name: embeddings.adopt(name), self.build())

    def lost(self) -> None:
        self.embeddings(lambda embeddings, name: embeddings.lost(name), self.build())

    def moved(self) -> None:
        place = self.random.choice(["home", "elsewhere"])
        self.embeddings(lambda embeddings, _: embeddings.moved(place))

    def discard(self) -> None:
        retired, unfinished = self.random.choice([NOW, SECONDS, 3 * SECONDS]), self.random.choice([SECONDS, HOUR])
        given = {"retired_before": self.clock() - retired, "unfinished_before": self.clock() - unfinished}
        self.embeddings(lambda embeddings, _: frozenset(embeddings.discard(**given)))

    def dropped(self) -> None:
        self.embeddings(lambda embeddings, name: embeddings.dropped(name), self.build())

    @invariant()
    def everybody_sees_the_same_builds(self) -> None:
        build = ("live", -1, -2)[self.steps % 3]
        self.embeddings(lambda embeddings, _: embeddings.live())
        self.embeddings(lambda embeddings, _: embeddings.names())
        self.embeddings(lambda embeddings, name: (embeddings.left(name), embeddings.unmade(name, limit=9)), build)


@pytest.mark.timeout(900)
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

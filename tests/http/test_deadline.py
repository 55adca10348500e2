"""Whatever hangs, every reply is there by its deadline: through the handlers, in processes like those of the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamabda import issuer
from llamabda.adapters.key_file import KeyFileSigner
from scripts.local import template
from tests.aws import CATALOG, REGION, TEXTS, USERS, Aws
from tests.http.serving import ROOT, environment_of

ASKS = 100
SECONDS = 2.0  # ASK_DEADLINE_SECONDS
BY_THEN = 2.5
STEADY_SECONDS = 1.0  # a machine that stands still for longer leaves a call no time to answer in
REAL_SECONDS, REAL_BY_THEN = 25.0, 29.0  # as it is set, and when the gateway gives up soon after
AT_ONCE = 3  # processes of the short plays: there may be no more than two cores
PROCESS_SECONDS = 600
HANGING = ("index", "trickling-index", "users", "catalog", "keys", "texts", "queue")
EMBEDDED = ("models", "loading", "index", "trickling-index")  # with users and documents in files: quicker
REAL = ("models", "index", "loading", "catalog")
EVERY = [(name, SECONDS) for name in ("models", "loading", *HANGING, "cold")] + [(name, REAL_SECONDS) for name in REAL]


@dataclass(frozen=True)
class Played:
    lines: list[dict]

    def of(self, *plays: str, route: str = "") -> list[dict]:
        """The calls of these plays, of that route."""
        found = [one for one in self.lines if one["play"] in plays and route in one.get("route", "")]
        assert found, (plays, route, self.lines[:3])
        return found

    def steady(self, play: str, *, count: int = 0, route: str = "") -> list[dict]:
        """The calls of this play in which the machine did not stand still: most of them. `count`: of all, if known."""
        calls = self.of(play, route=route)
        assert len(calls) == (count or len(calls))
        found = [one for one in calls if one["lag"] < STEADY_SECONDS]
        assert 2 * len(found) > len(calls), "this machine is too busy to tell anything"
        return found

    def check(self, by_then: float) -> None:
        """Each was in time, and said what it had to say."""
        calls = [one for one in self.lines if "status" in one]
        late = [one for one in calls if one["seconds"] - one["lag"] >= by_then]
        assert not late, (len(late), late[:3])
        unclean = [one for one in calls if one["status"] not in (200, 202, 204, 404, 503)]
        assert not unclean, (len(unclean), unclean[:3])
        for one in calls:
            if one["status"] == 503 and not one["route"].endswith("/health/ready"):
                assert (one["body"]["status"], one["body"]["code"]) == (503, "dependency_failed"), one


def settings_of(aws: Aws, place: str) -> dict[str, str]:
    """Of the bundle, as the template sets them."""
    queue = aws.client("sqs").create_queue(QueueName=f"queue-{place}")["QueueUrl"]
    tables = aws.client("dynamodb")
    described = template.read()
    names = {"UsersTable": f"{USERS}-{place}", "CatalogTable": f"{CATALOG}-{place}"}
    for logical, name in names.items():
        tables.create_table(TableName=name, **template.table(described, logical))
    bucket = f"{TEXTS}-{place}"
    aws.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "USERS_TABLE": names["UsersTable"],
        "CATALOG_TABLE": names["CatalogTable"],
        "TEXT_BUCKET": bucket,
        "QUEUE_URL": queue,
    }


@pytest.fixture(scope="module")
def played(aws_server, signing_key, tmp_path_factory) -> Iterator[Mapping[tuple[str, float], Callable[[], Played]]]:
    """All plays, begun together: most of their time is waiting."""
    aws = Aws(aws_server)
    keys = dict(KeyFileSigner(signing_key, keep=0).public_jwks())

    def prepared(name: str, seconds: float) -> tuple[Path, dict[str, str]]:
        """Its folder and environment."""
        folder = tmp_path_factory.mktemp(f"{name}-{seconds:.0f}")
        given = {}
        if name not in EMBEDDED:
            given = settings_of(aws, f"{name}-{seconds:.0f}")
            published = issuer.documents("https://llamabda.local", keys)[issuer.JWKS_PATH]
            aws.client("s3").put_object(Bucket=given["TEXT_BUCKET"], Key="jwks.json", Body=published)
            given["JWKS_URL"] = f"s3://{given['TEXT_BUCKET']}/jwks.json"
            if name == "catalog":
                del given["USERS_TABLE"]  # for nothing but speed
        return folder, environment_of(
            folder,
            signing_key,
            ASK_DEADLINE_SECONDS=str(seconds),
            RATE_LIMIT_ADDRESS="0",
            RATE_LIMIT_USER="0",
            MAX_QUEUE="200",
            **given,
        )

    def play(name: str, seconds: float, folder: Path, environment: dict[str, str]) -> Played:
        count = 3 if seconds == REAL_SECONDS or name in ("texts", "queue") else ASKS
        with open(folder / "log", "w+", encoding="utf-8") as log:
            done = subprocess.run(
                [sys.executable, str(ROOT / "tests" / "http" / "deadline_child.py"), name, str(count)],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=PROCESS_SECONDS,
                check=False,
            )
            log.seek(0)
            assert done.returncode == 0, log.read()[-5_000:]
        return Played([json.loads(line) for line in done.stdout.splitlines()])

    # here and not in the threads: pytest changes this process's environment from test to test, and who reads all of it
    # meanwhile, as boto3 does for each client, fails
    ready = {(name, seconds): prepared(name, seconds) for name, seconds in EVERY}
    with ThreadPoolExecutor(len(REAL)) as long, ThreadPoolExecutor(AT_ONCE) as short:
        running: dict[tuple[str, float], Future[Played]] = {}
        for (name, seconds), given in ready.items():
            running[name, seconds] = (short if seconds == SECONDS else long).submit(play, name, seconds, *given)
        yield {wanted: future.result for wanted, future in running.items()}


@pytest.mark.parametrize(("name", "seconds"), EVERY)
def test_every_reply_is_there_in_time_and_says_what_there_is_to_say(played, name, seconds):
    played[name, seconds]().check(BY_THEN if seconds == SECONDS else REAL_BY_THEN)


@pytest.mark.parametrize("mode", ["auto", "generated"])
@pytest.mark.parametrize("model", ["one token a second", "prefill"])
def test_all_of_a_hundred_answers_are_extracts_when_there_is_no_time_to_generate(played, model, mode):
    for one in played["models", SECONDS]().steady(f"{model}, {mode}", count=ASKS):
        assert (one["status"], one["body"].get("answered")) == (200, True), one
        assert (one["body"]["mode"], one["body"]["finish_reason"]) == ("extractive", "deadline")
        assert one["body"]["citations"]


def test_a_slow_model_is_stopped_at_the_real_deadline(played):
    calls = played["models", REAL_SECONDS]().of("slow model")
    assert len(calls) == 12
    for one in calls:
        assert (one["status"], one["body"]["finish_reason"]) == (200, "deadline")
        assert one["body"]["answer"].startswith("The harbour office opens at eight in the morning. [1]")
        assert one["seconds"] > REAL_SECONDS - 3  # the model had the time that there was
    assert {one["body"]["mode"] for one in calls} == {"generated", "extractive"}


@pytest.mark.parametrize("seconds", [SECONDS, REAL_SECONDS])
def test_while_the_embedding_model_loads_a_question_is_a_503_that_names_it(played, seconds):
    for one in played["loading", seconds]().steady("embedder loads", count=ASKS if seconds == SECONDS else 3):
        assert (one["status"], one["body"]["detail"]) == (503, "the embedder is not available now")


@pytest.mark.parametrize("seconds", [SECONDS, REAL_SECONDS])
def test_while_the_language_model_loads_answers_are_extracts(played, seconds):
    for one in played["loading", seconds]().steady("generator loads", count=ASKS if seconds == SECONDS else 3):
        assert (one["status"], one["body"].get("mode")) == (200, "extractive"), one
        assert (one["body"]["answered"], one["body"]["finish_reason"]) == (True, "stop")


@pytest.mark.parametrize(
    ("name", "seconds", "dependency"),
    [
        ("index", SECONDS, "index"),
        ("trickling-index", SECONDS, "index"),
        ("users", SECONDS, "users"),
        ("catalog", SECONDS, "catalog"),
        ("keys", SECONDS, "jwks"),
        ("index", REAL_SECONDS, "index"),
        ("catalog", REAL_SECONDS, "catalog"),
    ],
)
def test_what_hangs_is_named_in_a_clean_503(played, name, seconds, dependency):
    for one in played[name, seconds]().steady("ask", count=ASKS if seconds == SECONDS else 3):
        assert (one["status"], one["body"].get("detail")) == (503, f"the {dependency} is not available now"), one


@pytest.mark.parametrize(("name", "seconds"), [("index", SECONDS), ("trickling-index", SECONDS), ("index", 25.0)])
def test_documents_are_accepted_while_the_index_hangs_and_stay_queued(played, name, seconds):
    done = played[name, seconds]()
    for one in done.steady("ingest", route="POST /training/train"):
        assert one["status"] == 202
        assert [document["state"] for document in one["body"]["documents"]] == ["queued"]
    (after,) = done.of("after")
    assert after["states"].pop("harbour") == "ready"
    assert sorted(after["states"].values()) == ["queued"] * 3 + ["ready"]  # ready: from before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("index", {"train": 202, "list": 200, "get": 200, "chunks": 503, "source": 200, "delete": 404}),
        ("users", {"train": 503, "list": 503, "get": 503, "chunks": 503, "source": 503, "delete": 503}),
        ("catalog", {"train": 503, "list": 503, "get": 503, "chunks": 503, "source": 503, "delete": 503}),
        ("keys", {"train": 503, "list": 503, "get": 503, "chunks": 503, "source": 503, "delete": 503}),
        ("texts", {"train": 503, "list": 200, "get": 200, "chunks": 200, "source": 503, "delete": 404}),
        ("queue", {"train": 503, "list": 200, "get": 200, "chunks": 200, "source": 200, "delete": 404}),
    ],
)
def test_every_route_of_ingest_says_what_it_can_while_something_hangs(played, name, expected):
    done = played[name, SECONDS]()
    asked = {
        "train": "POST /training/train",
        "list": "GET /documents",
        "get": "GET /documents/harbour",
        "chunks": "GET /chunks",
        "source": "GET /source",
        "delete": "DELETE /documents/gone",
    }
    found = {
        short: {one["status"] for one in done.steady("ingest", route=route) if one["route"] == route}
        for short, route in asked.items()
    }
    assert found == {short: {status} for short, status in expected.items()}

"""The catalog in DynamoDB when the table is away, busy, late or not what it should be."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError

from llamabda.adapters.dynamodb import catalog as catalog_module
from llamabda.adapters.dynamodb import garbage
from llamabda.adapters.dynamodb.catalog import DynamoCatalog
from llamabda.adapters.dynamodb.embeddings import DynamoEmbeddings
from llamabda.errors import DependencyFailed
from llamabda.types import Embedding, EmbeddingModel, GenerationKey
from tests import dynamodb_table
from tests.aws import CATALOG, REGION, Aws

ONE = Embedding("one", EmbeddingModel("a/one", "onnx"))
TWO = Embedding("two", EmbeddingModel("a/two", "onnx"))
KEY = GenerationKey("t", "d", 1)
SECRET = "what only the tenant may read"
COMMIT = {"source": "api", "metadata": {"k": SECRET}, "sha256": "ab" * 32, "size": 7, "chunks": 2}
LONG_AGO, SOON = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

CATALOG_CALLS: dict[str, Callable[[DynamoCatalog], object]] = {
    "begin": lambda catalog: catalog.begin("t", "d", source="api", metadata={"k": SECRET}),
    "start": lambda catalog: catalog.start(KEY),
    "requeue": lambda catalog: catalog.requeue(KEY, SECRET),
    "unchanged": lambda catalog: catalog.unchanged(KEY, 1),
    "commit": lambda catalog: catalog.commit(KEY, **COMMIT),
    "fail": lambda catalog: catalog.fail(KEY, SECRET),
    "get": lambda catalog: catalog.get("t", "d"),
    "list": lambda catalog: catalog.list("t"),
    "live": lambda catalog: catalog.live([("t", f"{n}") for n in range(300)]),
    "delete": lambda catalog: catalog.delete("t", "d"),
    "garbage": lambda catalog: catalog.garbage(before=SOON, abandoned_before=LONG_AGO),
    "swept": lambda catalog: catalog.swept([KEY]),
    "ping": lambda catalog: catalog.ping(),
}
EMBEDDINGS_CALLS: dict[str, Callable[[DynamoEmbeddings], object]] = {
    "owner": lambda embeddings: embeddings.owner(),
    "live": lambda embeddings: embeddings.live(),
    "settle": lambda embeddings: embeddings.settle(ONE),
    "begin": lambda embeddings: embeddings.begin(ONE),
    "unmade": lambda embeddings: embeddings.unmade("", limit=9),
    "left": lambda embeddings: embeddings.left("one"),
    "documents": lambda embeddings: embeddings.documents(),
    "made": lambda embeddings: embeddings.made([KEY], "one"),
    "adopt": lambda embeddings: embeddings.adopt("one"),
    "names": lambda embeddings: embeddings.names(),
    "discard": lambda embeddings: embeddings.discard(retired_before=SOON, unfinished_before=SOON),
    "dropped": lambda embeddings: embeddings.dropped("one"),
    "lost": lambda embeddings: embeddings.lost("one"),
    "moved": lambda embeddings: embeddings.moved("elsewhere"),
}
CALLS = [
    *(pytest.param(DynamoCatalog, call, id=f"catalog.{name}") for name, call in CATALOG_CALLS.items()),
    *(pytest.param(DynamoEmbeddings, call, id=f"embeddings.{name}") for name, call in EMBEDDINGS_CALLS.items()),
]
PATIENCE = 0.3
Answer = tuple[int, dict[str, Any] | str]


class Table:
    """The tests' table through a client whose requests may be answered by somebody else."""

    def __init__(self, aws: Aws, *, attempts: int = 1) -> None:
        self.client: Any = aws.client("dynamodb", retries={"total_max_attempts": attempts, "mode": "standard"})
        self.catalog = DynamoCatalog(self.client, CATALOG, patience=60)
        self.impatient = DynamoCatalog(self.client, CATALOG, patience=PATIENCE)
        self.embeddings = DynamoEmbeddings(self.client, CATALOG, patience=60)
        self.asked: list[str] = []
        self.answers: Callable[[str, dict[str, Any]], Answer | None] = lambda *_: None
        self.client.meta.events.register("before-send.dynamodb", self._sent)

    def _sent(self, request: Any, **_: Any) -> AWSResponse | None:
        operation = request.headers["X-Amz-Target"].decode().split(".")[1]
        self.asked.append(operation)
        answer = self.answers(operation, json.loads(request.body))
        if answer is None:
            return None
        status, body = answer
        kind, text = ("text/html", body) if isinstance(body, str) else ("application/x-amz-json-1.0", json.dumps(body))
        return AWSResponse(request.url, status, {"content-type": kind}, _Raw(text))

    def begin(self, doc_id: str = "d", **more: Any) -> GenerationKey:
        generation = self.catalog.begin("t", doc_id, source="api", metadata={}, **more)
        assert generation is not None
        return GenerationKey("t", doc_id, generation)

    def commit(self, doc_id: str = "d", **more: Any) -> GenerationKey:
        key = self.begin(doc_id)
        assert self.catalog.commit(key, **COMMIT, **more)
        return key


class _Raw:
    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._text


@pytest.fixture
def table(aws) -> Table:
    return Table(aws)


def failure(code: str, message: str = SECRET, **more: Any) -> Answer:
    return 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more}


def cancelled(*codes: str) -> Answer:
    return failure(
        "TransactionCanceledException",
        f"cancelled, reasons [{', '.join(codes)}]",
        CancellationReasons=[{"Code": code, "Message": SECRET} for code in codes],
    )


def times(count: int, operation: str, answer: Answer) -> Callable[[str, dict[str, Any]], Any]:
    """This answer to the first requests of a kind."""
    left = count

    def answers(asked: str, _: dict[str, Any]) -> Answer | None:
        nonlocal left
        if asked != operation or not left:
            return None
        left -= 1
        return answer

    return answers


def refused(store: Any, call: Callable[[Any], object]) -> str:
    with pytest.raises(DependencyFailed) as caught:
        call(store)
    assert caught.value.dependency == "catalog"
    assert caught.value.public == "the catalog is not available now"
    assert SECRET not in caught.value.message
    return caught.value.message


def client_of(address: str, **config: Any) -> Any:
    given = {"connect_timeout": 1, "read_timeout": 0.1, "retries": {"total_max_attempts": 1}, **config}
    return boto3.client(
        "dynamodb",
        endpoint_url=address,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(**given),
    )


# -- what stays


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["closed", "silent"])
@pytest.mark.parametrize(("store", "call"), CALLS)
def test_a_table_that_cannot_be_reached_is_told(request, address, store, call):
    client = client_of(request.getfixturevalue(address))
    said = refused(store(client, CATALOG, patience=PATIENCE), call)
    assert "cannot be reached" in said or "does not answer in time" in said


@pytest.mark.parametrize(("store", "call"), CALLS)
def test_a_table_that_is_not_there_is_told_with_what_to_do(aws_server, store, call):
    message = refused(store(Aws(aws_server).client("dynamodb"), "nowhere", patience=PATIENCE), call)
    assert "nowhere" in message
    assert "CATALOG_TABLE" in message


def test_a_table_with_other_keys_is_told_with_what_to_do(aws):
    client = aws.client("dynamodb")
    client.create_table(
        TableName="other",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    assert "template.yaml" in refused(DynamoCatalog(client, "other"), CATALOG_CALLS["ping"])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("AccessDeniedException", "give its role the permission"),
        ("UnrecognizedClientException", "the credentials of this process are not good"),
        ("ExpiredTokenException", "the credentials of this process are not good"),
        ("SomethingNewException", "SomethingNewException"),
    ],
)
def test_what_aws_refuses_is_told_without_its_own_words(table, code, told):
    table.answers = lambda *_: failure(code)
    for call in (CATALOG_CALLS["get"], CATALOG_CALLS["begin"], CATALOG_CALLS["ping"]):
        assert told in refused(table.catalog, call)


def test_without_credentials_that_is_told(aws, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    client = boto3.Session().client("dynamodb", endpoint_url=aws.endpoint, region_name=REGION)
    assert "no AWS credentials" in refused(DynamoCatalog(client, CATALOG), CATALOG_CALLS["get"])


@pytest.mark.parametrize("call", ["get", "begin", "list", "swept"])
def test_what_is_no_answer_of_dynamodb_is_told(table, call):
    table.answers = lambda *_: (200, "<html>Please log in</html>")
    assert "not from DynamoDB" in refused(table.catalog, CATALOG_CALLS[call])


# -- what passes, or does not


@pytest.mark.parametrize(("store", "call"), CALLS)
def test_a_table_that_is_throttled_for_ever_is_told(aws_server, store, call):
    table = Table(Aws(aws_server))
    table.answers = lambda *_: failure("ProvisionedThroughputExceededException")
    assert "more to do than it takes" in refused(store(table.client, CATALOG, patience=PATIENCE), call)


def test_a_table_that_is_throttled_for_a_moment_is_waited_for(aws):
    table = Table(aws, attempts=3)
    table.answers = times(2, "BatchGetItem", failure("ThrottlingException"))
    key = table.begin()
    table.answers = times(2, "TransactWriteItems", cancelled("None", "ThrottlingError"))
    assert table.catalog.commit(key, **COMMIT)
    assert table.catalog.live([("t", "d")]) == {("t", "d"): 1}


@pytest.mark.parametrize(
    "code", ["TransactionConflict", "ConditionalCheckFailed", "ThrottlingError", "ProvisionedThroughputExceeded"]
)
def test_a_write_that_never_comes_through_ends_and_changes_nothing(table, code):
    first = table.commit()
    key = table.begin()
    before = dynamodb_table.everything(table.client)
    table.asked.clear()
    table.answers = lambda asked, _: cancelled("None", code) if asked == "TransactWriteItems" else None
    message = refused(table.impatient, lambda catalog: catalog.commit(key, **COMMIT))
    assert ("others write the same" in message) == (code in ("TransactionConflict", "ConditionalCheckFailed"))
    assert table.asked.count("TransactWriteItems") > 1
    table.answers = lambda *_: None
    assert dynamodb_table.everything(table.client) == before
    assert table.catalog.live([("t", "d")]) == {("t", "d"): first.generation}


def test_a_write_that_conflicts_a_few_times_is_done_once(table):
    key = table.begin()
    table.answers = times(4, "TransactWriteItems", cancelled("TransactionConflict", "None"))
    assert table.catalog.commit(key, **COMMIT)
    assert table.catalog.list("t").counts == {"ready": 1}
    dynamodb_table.check(table.client)


def test_a_write_that_can_never_be_done_is_not_tried_again(table):
    key = table.begin()
    table.asked.clear()
    table.answers = lambda asked, _: cancelled("TransactionConflict", "ValidationError") if "Write" in asked else None
    assert "400 KB" in refused(table.catalog, lambda catalog: catalog.commit(key, **COMMIT))
    assert table.asked.count("TransactWriteItems") == 1


def test_a_commit_whose_reply_is_lost_is_known_to_have_been_done(aws):
    table = Table(aws, attempts=3)
    key = table.begin()
    left, elsewhere = 1, aws.client("dynamodb")

    def answers(asked: str, body: dict[str, Any]) -> None:
        nonlocal left
        if asked == "TransactWriteItems" and left:
            left -= 1
            elsewhere.transact_write_items(**body)
            raise ReadTimeoutError(endpoint_url="somewhere")

    table.answers = answers
    assert table.catalog.commit(key, **COMMIT)
    assert table.catalog.list("t").counts == {"ready": 1}
    dynamodb_table.check(table.client)


def test_what_dynamodb_leaves_out_of_an_answer_is_asked_for_again(table):
    keys = [table.commit(f"d{n}") for n in range(3)]
    refusals = {"BatchGetItem": 2, "BatchWriteItem": 2}

    def answers(asked: str, body: dict[str, Any]) -> Answer | None:
        if not refusals.get(asked):
            return None
        refusals[asked] -= 1
        if asked == "BatchGetItem":
            return 200, {"Responses": {CATALOG: []}, "UnprocessedKeys": body["RequestItems"]}
        return 200, {"UnprocessedItems": body["RequestItems"]}

    table.answers = answers
    assert len(table.catalog.live((key.tenant, key.doc_id) for key in keys)) == 3
    table.catalog.delete("t", "d0")
    assert list(table.catalog.garbage(before=SOON, abandoned_before=LONG_AGO)) == keys[:1]
    table.catalog.swept(keys[:1])
    assert not any(refusals.values())
    assert list(table.catalog.garbage(before=SOON, abandoned_before=LONG_AGO)) == []


def test_what_dynamodb_leaves_out_for_ever_is_told(table):
    table.answers = lambda _, body: (200, {"Responses": {}, "UnprocessedKeys": body.get("RequestItems")})
    assert "more to do than it takes" in refused(table.impatient, CATALOG_CALLS["live"])


# -- an index that is late, and out of date


def test_what_the_index_says_counts_only_when_the_item_says_so_too(table):
    live = table.commit("live")
    started = table.begin("started")
    dead = table.begin("dead")
    table.catalog.fail(dead, "no")
    gone = GenerationKey("t", "gone", 1)
    shown = [_due(key) for key in (live, started, dead, gone)]

    def answers(asked: str, body: dict[str, Any]) -> Answer | None:
        first = asked == "Query" and body.get("IndexName") == "due" and body["ExpressionAttributeValues"][":kind"]
        return (200, {"Items": shown, "Count": 4, "ScannedCount": 4}) if first else None

    table.answers = answers
    assert list(table.catalog.garbage(before=LONG_AGO, abandoned_before=LONG_AGO)) == []
    assert set(table.catalog.garbage(before=SOON, abandoned_before=LONG_AGO)) == {dead}
    assert table.catalog.commit(started, **COMMIT)
    assert set(table.catalog.live([("t", "live"), ("t", "started")])) == {("t", "live"), ("t", "started")}


def test_what_the_index_does_not_know_yet_comes_later(table):
    key = table.begin()
    table.answers = lambda asked, _: (200, {"Items": [], "Count": 0, "ScannedCount": 0}) if asked == "Query" else None
    assert list(table.catalog.garbage(before=SOON, abandoned_before=SOON)) == []
    table.answers = lambda *_: None
    assert list(table.catalog.garbage(before=SOON, abandoned_before=SOON)) == [key]


def _due(key: GenerationKey) -> dict[str, Any]:
    from llamabda.adapters.dynamodb import layout

    return {**layout.generation(key).item, "due_pk": {"S": "x"}, "due_at": {"N": "1"}}


def test_much_garbage_comes_in_parts(table, monkeypatch):
    monkeypatch.setattr(garbage, "MOST", 2)
    monkeypatch.setattr(garbage, "READ_KEYS", 2)
    keys = [table.begin() for _ in range(9)]
    for key in keys[:5]:
        table.catalog.fail(key, "no")
    swept: list[GenerationKey] = []
    parts = 0
    while found := table.catalog.garbage(before=SOON, abandoned_before=SOON):
        assert len(found) <= 4  # of one document: two that are dead, and two that are given up by this call
        table.catalog.swept(found)
        swept += found
        parts += 1
    assert sorted(swept, key=lambda key: key.generation) == keys
    assert parts > 2
    dynamodb_table.check(table.client)


def test_a_page_ends_before_too_much_was_looked_at(table, monkeypatch):
    monkeypatch.setattr(catalog_module, "LIST_QUERIES", 1)
    monkeypatch.setattr(catalog_module, "LONGEST_PAGE", 2)
    for n in range(5):
        table.commit(f"d{n}")
    table.catalog.fail(table.begin("x"), "no")
    table.catalog.delete("t", "d4")
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = table.catalog.list("t", state="failed", cursor=cursor)
        assert page.counts == {"ready": 4, "failed": 1}
        assert len(page.documents) <= 1
        seen += [document.id for document in page.documents]
        cursor, pages = page.next_cursor, pages + 1
    assert seen == ["x"]
    assert pages > 2
    table.asked.clear()
    assert table.catalog.list("t", state="queued").documents == ()
    assert table.asked == ["Query"]  # the counts say that there are none


# -- methods of several transactions that are stopped in between


def test_what_was_overtaken_is_dead_though_its_burial_was_interrupted(table, monkeypatch):
    monkeypatch.setattr(catalog_module, "OVERTAKEN", 1)
    table.commit()
    between = [table.begin(instructions="{}") for _ in range(4)]
    latest = table.begin(instructions="{}")
    written = 0

    def answers(asked: str, _: dict[str, Any]) -> Answer | None:
        nonlocal written
        written += asked == "TransactWriteItems"
        return failure("InternalServerError") if written > 1 else None

    table.answers = answers
    refused(table.catalog, lambda catalog: catalog.unchanged(latest, 1))
    table.answers = lambda *_: None
    assert table.catalog.get("t", "d").state == "ready"
    assert [table.catalog.start(key) for key in between] == [None] * 4
    table.catalog.requeue(between[3], "later")
    table.catalog.fail(between[3], "no")
    assert table.catalog.get("t", "d").state == "ready"
    assert not table.catalog.commit(between[1], **COMMIT)
    far = datetime.now(UTC) + timedelta(days=20)
    monkeypatch.setattr(table.catalog, "_now", lambda: far)
    found = table.catalog.garbage(before=far + timedelta(1), abandoned_before=far)
    assert set(found) == {*between, latest}
    assert table.catalog.get("t", "d").state == "ready"


def test_an_interrupted_overtaking_is_finished_when_it_is_repeated(table, monkeypatch):
    monkeypatch.setattr(catalog_module, "OVERTAKEN", 1)
    table.commit()
    between = [table.begin(instructions="{}") for _ in range(4)]
    latest = table.begin(instructions="{}")
    table.answers = times(1, "TransactWriteItems", failure("InternalServerError"))
    refused(table.catalog, lambda catalog: catalog.unchanged(latest, 1))
    assert table.catalog.get("t", "d").state == "processing"
    table.answers = lambda *_: None
    assert table.catalog.unchanged(latest, 1)
    assert set(table.catalog.garbage(before=SOON, abandoned_before=LONG_AGO)) == {*between, latest}
    dynamodb_table.check(table.client)


def test_more_is_overtaken_than_one_transaction_holds(table):
    table.commit()
    between = [table.begin() for _ in range(catalog_module.OVERTAKEN + 3)]
    latest = table.begin()
    assert table.catalog.unchanged(latest, 1)
    dead = [item for item in dynamodb_table.everything(table.client) if item.get("phase") == {"S": "dead"}]
    assert len(dead) == len(between) + 1
    dynamodb_table.check(table.client)


def test_documents_that_were_not_marked_before_a_crash_are_still_unmade(table):
    old = table.embeddings.settle(ONE).name
    keys = [table.commit(f"d{n}", build=old) for n in range(12)]
    new = table.embeddings.begin(TWO).name
    table.answers = times(1, "TransactWriteItems", failure("InternalServerError"))
    refused(table.embeddings, lambda embeddings: embeddings.made(keys, new))
    table.answers = lambda *_: None
    left = table.embeddings.unmade(new, limit=99)
    assert 0 < len(left) == table.embeddings.left(new)
    assert not table.embeddings.adopt(new)
    table.embeddings.made(left, new)
    assert table.embeddings.adopt(new)
    dynamodb_table.check(table.client)


# -- everybody at once


def test_whatever_happens_at_once_the_counts_are_exact(aws):
    """Documents are trained, deleted and marked while indexes are lost, made and adopted."""
    client = aws.client("dynamodb")
    catalog, embeddings = DynamoCatalog(client, CATALOG), DynamoEmbeddings(client, CATALOG)
    embeddings.settle(ONE)
    failed: list[BaseException] = []
    refusals: list[str] = []

    def train(worker: int) -> None:
        for n in range(8):
            doc_id = f"{worker}-{n % 3}"
            generation = catalog.begin("t", doc_id, source="api", metadata={})
            try:
                catalog.commit(GenerationKey("t", doc_id, generation or 0), **COMMIT, build=embeddings.live().name)
            except DependencyFailed as exc:
                refusals.append(exc.dependency)
            if n % 4 == 3:
                catalog.delete("t", doc_id)

    def change(_: int) -> None:
        for n in range(4):
            build = embeddings.begin((TWO, ONE)[n % 2]).name
            if n == 2:
                embeddings.lost(build)
            embeddings.made(embeddings.unmade(build, limit=9), build)
            embeddings.adopt(build)
        embeddings.moved("elsewhere")

    def guarded(work: Callable[[int], None], worker: int) -> None:
        try:
            work(worker)
        except BaseException as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=guarded, args=(train, worker)) for worker in range(3)]
    threads.append(threading.Thread(target=guarded, args=(change, 0)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(refusals) <= {"embedder"}  # readers had changed over meanwhile
    dynamodb_table.check(client)

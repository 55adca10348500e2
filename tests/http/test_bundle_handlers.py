"""The functions over AWS alone, as on Lambda: accounts, documents, texts and work; the index is embedded for once."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from llamabda import ingest, issuer, on_lambda, wiring
from llamabda.adapters.dynamodb import garbage
from llamabda.adapters.kms import KmsSigner
from llamabda.adapters.s3 import S3TextStore
from llamabda.errors import ConfigurationError, DependencyFailed
from llamabda.settings import settings
from tests.aws import CATALOG, REGION, TEXTS, USERS, Aws
from tests.http.conftest import HARBOUR, PASSWORD
from tests.http.test_lambda import Context, _loop, event

__all__ = ["_loop"]

ISSUER, DOCUMENTS, ISSUED = "https://issuer.test", "documents-of-the-tests", "issuer-of-the-tests"


@dataclass(frozen=True)
class Bundle:
    """The functions and what stands around them."""

    aws: Aws
    queue: str
    failed: str

    def http(self, function: str, made: dict) -> tuple[int, dict]:
        reply = self.handler(function)(made, Context(30_000))
        return reply["statusCode"], json.loads(reply["body"]) if reply["body"] else {}

    def deliver(self, *bodies: str, seconds: int = 300) -> dict:
        """What is in the queue, and `bodies` beside it, given to the function that works on it."""
        client = self.aws.client("sqs")
        batch = [{"MessageId": f"m{at}", "Body": body, "Attributes": {}} for at, body in enumerate(bodies)]
        while messages := client.receive_message(QueueUrl=self.queue, AttributeNames=["All"]).get("Messages"):
            batch += messages
        records = [
            {"eventSource": "aws:sqs", "messageId": m["MessageId"], "body": m["Body"], "attributes": m["Attributes"]}
            for m in batch
        ]
        return self.handler("ingest")({"Records": records}, Context(seconds * 1000))

    @staticmethod
    def handler(function: str) -> Callable[[dict, Context], dict]:
        return importlib.import_module(f"llamabda_functions.{function}.app").handler


@pytest.fixture
def bundle(home, aws, monkeypatch) -> Bundle:
    key = aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    buckets = aws.client("s3")
    for name in (DOCUMENTS, ISSUED):
        buckets.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    for path, content in issuer.documents(ISSUER, KmsSigner(aws.client("kms"), (key,)).public_jwks()).items():
        buckets.put_object(Bucket=ISSUED, Key=path, Body=content)
    queues = aws.client("sqs")
    queue, failed = (queues.create_queue(QueueName=name)["QueueUrl"] for name in ("work", "failed"))
    given = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "USERS_TABLE": USERS,
        "CATALOG_TABLE": CATALOG,
        "TEXT_BUCKET": TEXTS,
        "BUCKET": DOCUMENTS,
        "QUEUE_URL": queue,
        "DEAD_LETTER_URL": failed,
        "KMS_KEY_ID": key,
        "JWKS_URL": f"s3://{ISSUED}/{issuer.JWKS_PATH}",
        "TOKEN_ISSUER": ISSUER,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    return Bundle(aws, queue, failed)


@pytest.fixture
def token(bundle) -> str:
    credentials = {"username": "alice", "password": PASSWORD}
    assert bundle.http("auth", event("POST", "/auth/register", credentials))[0] == 201
    return bundle.http("auth", event("POST", "/auth/login", credentials))[1]["access_token"]


def created(key: str, sequencer: str = "01") -> str:
    detail = {"bucket": {"name": DOCUMENTS}, "object": {"key": key, "sequencer": sequencer}}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def ask(bundle: Bundle, token: str, question: str) -> dict:
    asked = event("POST", "/ask/question", {"question": question, "mode": "extractive"}, token=token)
    status, reply = bundle.http("ask", asked)
    assert status == 200
    return reply


def test_a_trained_text_is_answered_and_its_message_finds_it_made(bundle, token):
    train = event("POST", "/training/train", {"docs": [{"id": "harbour", "text": HARBOUR}]}, token=token)
    assert bundle.http("ingest", train)[0] == 200
    assert "eight" in ask(bundle, token, "When does the harbour office open?")["answer"]
    work = json.dumps({"llamabda": "work", "tenant": "shared", "id": "unknown", "generation": 1})
    assert bundle.deliver(work) == {"batchItemFailures": []}


def test_an_object_is_answered_through_its_event(bundle, token):
    bundle.aws.client("s3").put_object(Bucket=DOCUMENTS, Key="harbour.txt", Body=HARBOUR)
    assert bundle.deliver(created("harbour.txt")) == {"batchItemFailures": []}
    reply = ask(bundle, token, "When does the harbour office open?")
    assert reply["citations"][0]["doc_id"] == "s3:harbour.txt"


def test_what_train_had_no_time_for_comes_through_the_queue(bundle, token, monkeypatch):
    monkeypatch.setattr("llamabda_functions.ingest.app.TRAIN_SECONDS", 0.0)
    train = event("POST", "/training/train", {"docs": [{"id": "harbour", "text": HARBOUR}]}, token=token)
    status, reply = bundle.http("ingest", train)
    assert (status, reply["documents"][0]["state"]) == (202, "queued")
    assert bundle.deliver() == {"batchItemFailures": []}
    assert "eight" in ask(bundle, token, "When does the harbour office open?")["answer"]


def test_a_broken_file_is_put_aside_with_the_reason(bundle):
    bundle.aws.client("s3").put_object(Bucket=DOCUMENTS, Key="broken.pdf", Body=b"%PDF-1.7 and nothing")
    assert bundle.deliver(created("broken.pdf"), "nonsense") == {"batchItemFailures": []}
    reply = bundle.aws.client("sqs").receive_message(
        QueueUrl=bundle.failed, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    reasons = {one["Body"]: one["MessageAttributes"]["reason"]["StringValue"] for one in reply["Messages"]}
    assert "'broken.pdf' cannot be read" in reasons[created("broken.pdf")]
    assert reasons["nonsense"] == "the message is not JSON"


# -- the sweep


def replaced(bundle: Bundle, token: str, *texts: str) -> None:
    for text in texts:
        train = event("POST", "/training/train", {"docs": [{"id": "harbour", "text": text}]}, token=token)
        assert bundle.http("ingest", train)[0] == 200


def stored(bundle: Bundle) -> int:
    return bundle.aws.client("s3").list_objects_v2(Bucket=TEXTS)["KeyCount"]


def sweep(bundle: Bundle, seconds: int = 300) -> dict:
    return bundle.handler("ingest")({"llamabda": "sweep"}, Context(seconds * 1000))


@pytest.fixture
def later(monkeypatch) -> None:
    """What is replaced now was so long ago."""
    monkeypatch.setattr(ingest, "GRACE", timedelta(hours=-1))


def test_the_sweep_removes_what_nobody_wants_and_tells_how_much(bundle, token, later, monkeypatch, caplog):
    monkeypatch.setattr(garbage, "MOST", 1)  # so that once is not enough
    caplog.set_level(logging.INFO)
    replaced(bundle, token, HARBOUR, "The harbour office opens at nine.", "The harbour office opens at ten.")
    assert stored(bundle) == 3
    assert sweep(bundle) == {"generations": 2, "indexes": 0, "whole": True}
    assert "swept: 2 generations and 0 indexes are gone" in caplog.text
    assert stored(bundle) == 1
    assert "ten" in ask(bundle, token, "When does the harbour office open?")["answer"]
    assert sweep(bundle) == {"generations": 0, "indexes": 0, "whole": True}


def test_the_sweep_leaves_what_readers_may_still_want(bundle, token):
    replaced(bundle, token, HARBOUR, "The harbour office opens at nine.")
    assert sweep(bundle) == {"generations": 0, "indexes": 0, "whole": True}
    assert stored(bundle) == 2


def test_the_sweep_gives_up_what_somebody_began_and_nobody_ended(bundle, token, later, monkeypatch):
    monkeypatch.setattr(ingest, "ABANDONED", timedelta(hours=-1))
    catalog = wiring.catalog()
    assert catalog.begin("shared", "half", source="api", metadata={}) == 1
    assert sweep(bundle)["whole"]
    found = catalog.get("shared", "half")
    assert (found.state, found.generation) == ("failed", None)
    assert sweep(bundle)["whole"]


def test_a_sweep_without_time_leaves_all_to_the_next_one(bundle, token, later):
    replaced(bundle, token, HARBOUR, "The harbour office opens at nine.")
    assert sweep(bundle, seconds=10) == {"generations": 0, "indexes": 0, "whole": False}
    assert stored(bundle) == 2
    assert sweep(bundle) == {"generations": 1, "indexes": 0, "whole": True}


def test_a_sweep_that_fails_is_an_error_and_the_next_one_does_it(bundle, token, later, monkeypatch):
    replaced(bundle, token, HARBOUR, "The harbour office opens at nine.")
    with monkeypatch.context() as patch:
        patch.setattr(S3TextStore, "_delete", lambda self, names: s3_is_down())
        with pytest.raises(DependencyFailed, match="down"):
            sweep(bundle)
    assert sweep(bundle) == {"generations": 1, "indexes": 0, "whole": True}
    assert stored(bundle) == 1


def s3_is_down() -> None:
    raise DependencyFailed("S3 is down", dependency="texts")


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"Records": []},
        {"Records": [{"eventSource": "aws:s3"}]},
        {"Records": [{"eventSource": "aws:sqs"}, {"eventSource": "aws:sns"}]},
        {"version": "1.0", "requestContext": {"http": {}}},
        {"version": "2.0", "requestContext": {}},
        {"source": "aws.s3"},
        {"llamabda": "sweep", "source": "aws.events"},
        {"llamabda": "sweep", "Records": []},
        {"llamabda": "work"},
        {"llamabda": True},
    ],
)
def test_what_is_neither_a_request_nor_a_batch_is_refused(bundle, made):
    with pytest.raises(ValueError, match="neither an HTTP request, nor a batch"):
        bundle.handler("ingest")(made, Context(30_000))


@pytest.mark.parametrize("function", on_lambda.NEEDED)
def test_a_function_that_lacks_a_setting_names_it_when_it_begins(bundle, monkeypatch, function):
    for name in on_lambda.NEEDED[function]:
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    with pytest.raises(ConfigurationError) as caught:
        on_lambda.begin(function)
    assert all(name in caught.value.message for name in on_lambda.NEEDED[function])


def test_the_images_begin_with_what_makes_the_function_ready(bundle, monkeypatch):
    begun = []
    monkeypatch.setattr(on_lambda, "begin", begun.append)
    for function in on_lambda.NEEDED:
        sys.modules.pop(f"llamabda_functions.{function}.entry", None)
        entry = importlib.import_module(f"llamabda_functions.{function}.entry")
        assert entry.handler is bundle.handler(function)
    assert begun == list(on_lambda.NEEDED)

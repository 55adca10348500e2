"""The issuer's function as CloudFormation calls it: create, update, delete, and everything that goes wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from llamabda_functions.auth import issuer as function

from llamabda import issuer, logs, publication, wiring_aws
from llamabda.adapters.kms import KmsSigner
from llamabda.errors import DependencyFailed, InvalidInput
from llamabda.publication import LEDGER_PATH
from llamabda.settings import settings
from tests.aws import Aws
from tests.aws_proxy import error, proxied, s3_error
from tests.http.issuer_stage import BUCKET, SECRET, START, Stage, prepare, staged

DOCUMENTS = {issuer.DISCOVERY_PATH, issuer.JWKS_PATH}


def use(monkeypatch: pytest.MonkeyPatch, aws: Aws) -> None:
    """From now on the function's clients ask there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    settings.cache_clear()
    for name in ("kms", "s3"):
        monkeypatch.setattr(wiring_aws, name, type(getattr(wiring_aws, name))(getattr(wiring_aws, name)._make))


@pytest.fixture
def stage(home, aws, certificate, monkeypatch) -> Iterator[Stage]:
    prepare(monkeypatch, aws, certificate)
    with staged(aws, certificate) as made:
        yield made


def test_create_publishes_both_documents_and_tells_the_address(stage):
    key = stage.key()
    answer = stage.deploy(key)
    assert answer == {
        "Status": "SUCCESS",
        "PhysicalResourceId": f"issuer-{BUCKET}",
        "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/llamabda/guid",
        "RequestId": "request-0",
        "LogicalResourceId": "Issuer",
        "Data": {"Url": stage.address},
    }
    assert stage.headers[0]["Content-Type"] == ""  # as the address was signed
    jwks = KmsSigner(stage.aws.client("kms"), (key,)).public_jwks()
    discovery, keys = stage.documents()
    assert {issuer.DISCOVERY_PATH: discovery, issuer.JWKS_PATH: keys} == issuer.documents(stage.address, jwks)
    assert set(stage.asked) == {f"/{path}" for path in DOCUMENTS}
    for path, control in dict.fromkeys(DOCUMENTS, "public, max-age=60").items() | {(LEDGER_PATH, "no-store")}:
        head = stage.aws.client("s3").head_object(Bucket=BUCKET, Key=path)
        assert (head["ContentType"], head["CacheControl"]) == ("application/json", control)


def test_keys_are_published_in_their_order_and_times_are_kept(stage):
    blue, green = stage.key(), stage.key()
    stage.deploy(blue)
    stage.clock.now += 1_000
    assert stage.deploy(blue, green)["Status"] == "SUCCESS"
    signer = KmsSigner(stage.aws.client("kms"), (blue, green))
    assert stage.kids() == [key["kid"] for key in signer.public_jwks()["keys"]]
    ledger = json.loads(stage.objects()[LEDGER_PATH])["keys"]
    assert [(one["name"], one["published"], one["signed_until"]) for one in ledger] == [
        (blue, START, None),
        (green, START + 1_000, None),
    ]


def test_the_same_again_changes_nothing(stage):
    """Lambda may call twice for one request, and a stack may update for another reason."""
    key = stage.key()
    first = stage.deploy(key)
    before = stage.objects()
    stage.clock.now += 5
    assert stage.deploy(key) | {"RequestId": "request-0"} == first
    assert stage.objects() == before
    stage.former = {}
    stage.clock.now = START
    assert stage.deploy(key)["Status"] == "SUCCESS"
    assert stage.objects() == before


def test_it_waits_until_the_public_address_shows_what_was_published(stage):
    def later(path: str) -> tuple[int, bytes] | None:
        looks = stage.asked.count(path)
        return (403, b"") if looks <= 2 else (200, b"{}") if looks <= 4 else None

    stage.shown = later
    assert stage.deploy(stage.key())["Status"] == "SUCCESS"
    assert stage.clock.slept == [0.5, 1.0, 2.0, 4.0]
    # a key counts as published when it was seen, and not when it was written
    assert json.loads(stage.objects()[LEDGER_PATH])["keys"][0]["published"] == int(START + 7.5)


def test_one_document_that_is_still_the_former_one_is_waited_for(stage):
    blue, green = stage.key(), stage.key()
    stage.deploy(blue)
    keys = stage.documents()[1]
    stage.asked.clear()
    stage.shown = lambda path: (200, keys) if path.endswith("jwks.json") and len(stage.asked) < 7 else None
    assert stage.deploy(blue, green)["Status"] == "SUCCESS"
    assert len(stage.clock.slept) == 3


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ((403, b""), "its status is 403"),
        ((302, b""), "its status is 302"),
        ((500, b""), "its status is 500"),
        ((200, b"<html>"), "it shows something else"),
        ((200, b"{" * 70_000), "it shows something else"),
    ],
)
def test_an_address_that_never_shows_it_is_a_failure_before_the_function_ends(stage, shown, why):
    stage.shown = lambda path: shown
    answer = stage.deploy(stage.key())
    assert answer["Status"] == "FAILED"
    assert "Data" not in answer
    assert why in answer["Reason"]
    assert f"{stage.address}/{issuer.JWKS_PATH}" in answer["Reason"]
    assert 0 < stage.clock.left < 30
    assert LEDGER_PATH not in stage.objects()


def test_an_address_that_nobody_answers_at_is_a_failure(stage):
    answer = stage.call(
        stage.event("Create", ResourceProperties=stage.properties(stage.key(), Address="https://127.0.0.1:9"))
    )
    assert answer["Status"] == "FAILED"
    assert "cannot be reached" in answer["Reason"]


def test_an_address_that_says_nothing_is_given_up(stage, monkeypatch):
    monkeypatch.setattr(publication, "FETCH_SECONDS", 0.05)
    over = threading.Event()
    stage.shown = lambda path: (404, b"") if over.wait() else None
    stage.seconds = 20
    try:
        answer = stage.deploy(stage.key())
    finally:
        over.set()
    assert answer["Status"] == "FAILED"
    assert "does not answer in time" in answer["Reason"]


def test_with_no_time_left_it_is_told_so(stage):
    stage.seconds = 10
    answer = stage.deploy(stage.key())
    assert answer["Status"] == "FAILED"
    assert "does not answer in time" in answer["Reason"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"Address": None}, "Address"),
        ({"Address": "http://x.test"}, "Address is 'http://x.test'"),
        ({"Address": "https://x.test?a"}, "Address"),
        ({"Address": "https://x.test/" + "a" * 300}, "Address has 315 characters"),
        ({"Address": 7}, "Address"),
        ({"Bucket": None}, "Bucket"),
        ({"Bucket": "No Bucket"}, "'No Bucket'"),
        ({"Bucket": "nobodys-bucket"}, "nobodys-bucket"),
        ({"KeyIds": ""}, "KeyIds"),
        ({"KeyIds": ","}, "KeyIds"),
        ({"KeyIds": ",".join("abcdefghi")}, "KeyIds names 9 keys"),
        ({"KeyIds": "7c1a7bbd-0d6c-4a04-b1bb-8a1d6e0a1f00"}, "7c1a7bbd-0d6c-4a04-b1bb-8a1d6e0a1f00 is not there"),
        ({"KeepSeconds": "-1"}, "KeepSeconds is '-1'"),
        ({"KeepSeconds": "soon"}, "KeepSeconds"),
    ],
)
def test_what_is_wrong_is_named_and_can_be_rolled_back(stage, changed, named):
    properties = stage.properties(stage.key(), **changed)
    answer = stage.call(stage.event("Create", ResourceProperties=properties))
    assert (answer["Status"], answer["RequestId"]) == ("FAILED", "request-0")
    assert named in answer["Reason"]
    assert answer["PhysicalResourceId"]
    deletion = stage.event("Delete", ResourceProperties=properties, PhysicalResourceId=answer["PhysicalResourceId"])
    answer = stage.call(deletion)
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", deletion["PhysicalResourceId"])
    assert stage.objects() == {}


def test_a_key_of_another_kind_is_refused(stage):
    key = stage.aws.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    answer = stage.deploy(key)
    assert answer["Status"] == "FAILED"
    assert key in answer["Reason"]
    assert "RSA_2048" in answer["Reason"]
    assert stage.objects() == {}


def test_a_refusal_of_kms_is_told_with_what_to_do(stage, monkeypatch):
    key = stage.key()
    with proxied(stage.aws, lambda asked: error("AccessDeniedException")) as (place, seen):
        use(monkeypatch, place)
        answer = stage.deploy(key)
    assert answer["Status"] == "FAILED"
    assert f"the key {key} may not be used: give the role" in answer["Reason"]
    assert len(seen) > 3
    assert 30 <= sum(stage.clock.slept) < 40


def test_a_role_whose_permissions_do_not_count_yet_is_waited_for(stage, monkeypatch):
    key = stage.key()
    refusals = {"GetPublicKey": error("AccessDeniedException"), "PUT": s3_error("AccessDenied", 403)}
    with proxied(stage.aws, lambda asked: refusals.pop(asked.operation, None)) as (place, _):
        use(monkeypatch, place)
        assert stage.deploy(key)["Status"] == "SUCCESS"
    assert not refusals


@pytest.mark.parametrize("operation", ["GET", "PUT"])
def test_a_refusal_of_s3_names_the_bucket_and_the_permissions(stage, monkeypatch, operation):
    key = stage.key()
    stage.deploy(key)

    def refuse(asked):
        return s3_error("AccessDenied", 403) if asked.operation == operation else None

    with proxied(stage.aws, refuse) as (place, _):
        use(monkeypatch, place)
        answer = stage.deploy(key)
    assert answer["Status"] == "FAILED"
    assert BUCKET in answer["Reason"]
    assert "GetObject, PutObject and DeleteObject" in answer["Reason"]
    assert answer["PhysicalResourceId"] == f"issuer-{BUCKET}"


@pytest.mark.parametrize("kind", ["", "Read", "create", None, 7])
def test_a_request_of_another_kind_is_a_failure(stage, kind):
    answer = stage.call(stage.event(kind, ResourceProperties=stage.properties(stage.key())))
    assert answer["Status"] == "FAILED"
    assert "only Create, Update and Delete are known" in answer["Reason"]


def test_a_defect_is_answered_too(stage, monkeypatch, caplog):
    def broken(bucket: str) -> None:
        raise RuntimeError("not for everybody")

    monkeypatch.setattr(wiring_aws, "documents", broken)
    answer = stage.deploy(stage.key())
    assert answer["Reason"] == "unexpected failure (RuntimeError): see the function's log"
    assert "not for everybody" in caplog.text


@pytest.mark.parametrize("text", ["x" * 100_000, "\U0001f600" * 100_000, "\x00" * 5_000, '"' * 5_000])
def test_a_long_reason_is_cut_until_it_may_be_sent(stage, monkeypatch, text):
    def broken(bucket: str) -> None:
        raise DependencyFailed(text, dependency="issuer")

    monkeypatch.setattr(wiring_aws, "documents", broken)
    answer = stage.deploy(stage.key())  # the stage refuses more than 4,096 bytes
    assert text.startswith(answer["Reason"])
    assert len(answer["Reason"]) >= 200


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ResponseURL": None}, "ResponseURL"),
        ({"ResponseURL": ""}, "ResponseURL"),
        ({"ResponseURL": 7}, "ResponseURL"),
        ({"ResponseURL": "http://bucket.s3.amazonaws.com/?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"ResponseURL": "https:///?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"ResponseURL": "https://a@b/?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"ResponseURL": "https://[x/?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"ResponseURL": "https://x:99999/?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"ResponseURL": "https://x/ a?X-Amz-Signature=" + SECRET}, "no https address"),
        ({"StackId": None, "RequestId": None}, "StackId, RequestId"),
        ({"LogicalResourceId": None}, "LogicalResourceId"),
    ],
)
def test_an_event_that_nobody_can_be_answered_for_is_an_error(stage, changed, named):
    event = stage.event("Create", ResourceProperties=stage.properties(stage.key())) | changed
    with pytest.raises(InvalidInput, match=named) as refused:
        function.handler(event, stage.clock)
    assert SECRET not in str(refused.value)
    assert stage.objects() == {}


@pytest.mark.parametrize("event", [None, [], "x", {}])
def test_what_is_no_request_is_an_error(stage, event):
    with pytest.raises(InvalidInput, match="not a request of CloudFormation"):
        function.handler(event, stage.clock)


def test_an_answer_is_sent_again_until_it_is_taken(stage):
    stage.statuses = [503, 500]
    assert stage.deploy(stage.key())["Status"] == "SUCCESS"
    assert stage.clock.slept == [0.5, 1.0]


def test_an_answer_that_nobody_takes_is_an_error_so_that_lambda_calls_again(stage, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    stage.statuses = [403] * 5
    with pytest.raises(DependencyFailed, match="did not take the answer: its status is 403") as failed:
        stage.deploy(stage.key())
    assert failed.value.__cause__ is None
    event = stage.event("Create", ResourceProperties=stage.properties(stage.key()))
    with pytest.raises(DependencyFailed, match="cannot be reached") as failed:
        stage.call(event | {"ResponseURL": f"https://127.0.0.1:9/?X-Amz-Signature={SECRET}"})
    for told in (str(failed.value), caplog.text, *capfd.readouterr()):
        assert SECRET not in told
    assert stage.answers == []


def test_nothing_secret_is_logged(stage, caplog):
    caplog.set_level(logging.DEBUG)
    stage.deploy(stage.key())
    stage.shown = lambda path: (500, b"")
    stage.deploy(stage.key())
    stage.call(stage.event("Delete", ResourceProperties=stage.properties("any")))
    assert "Create of Issuer" in caplog.text
    assert "Update of Issuer failed" in caplog.text
    assert SECRET not in caplog.text


def test_delete_takes_away_what_was_published_and_can_be_repeated(stage):
    stage.deploy(stage.key())
    stage.aws.client("s3").put_object(Bucket=BUCKET, Key="another", Body=b"somebody's")
    for _ in range(2):
        answer = stage.call(stage.event("Delete", ResourceProperties=stage.former))
        assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", f"issuer-{BUCKET}")
        assert set(stage.objects()) == {"another"}


def test_delete_leaves_the_documents_of_another_issuer(stage):
    stage.deploy(stage.key())
    before = stage.objects()
    properties = stage.former | {"Address": "https://former.test"}
    assert stage.call(stage.event("Delete", ResourceProperties=properties))["Status"] == "SUCCESS"
    assert stage.objects() == before


def test_delete_needs_no_bucket_and_no_key(stage):
    properties = stage.properties("alias/gone", Bucket="nobodys-bucket")
    assert stage.call(stage.event("Delete", ResourceProperties=properties))["Status"] == "SUCCESS"


def test_a_delete_that_is_refused_says_so(stage, monkeypatch):
    stage.deploy(stage.key())

    def refuse(asked):
        return s3_error("AccessDenied", 403) if asked.method == "DELETE" else None

    with proxied(stage.aws, refuse) as (place, _):
        use(monkeypatch, place)
        answer = stage.call(stage.event("Delete", ResourceProperties=stage.former))
    assert answer["Status"] == "FAILED"
    assert BUCKET in answer["Reason"]
    assert set(stage.objects()) >= DOCUMENTS


def test_another_address_is_published_in_the_same_place_under_the_same_id(stage):
    """Not a replacement: deleting what was replaced, now or when it is rolled back, would delete these documents."""
    key = stage.key()
    first = stage.deploy(key)
    second = stage.deploy(key, Address=f"{stage.address}/")
    assert second["Data"] == {"Url": f"{stage.address}/"}
    assert second["PhysicalResourceId"] == first["PhysicalResourceId"]
    assert json.loads(stage.documents()[0])["issuer"] == f"{stage.address}/"


def test_the_entry_waits_by_the_real_clock_and_logs_as_every_function_does(stage, monkeypatch):
    configured = []
    monkeypatch.setattr(logs, "configure", lambda style, *, debug: configured.append((style, debug)))
    function._begin.cache_clear()
    before = int(time.time())
    function.handler(stage.event("Create", ResourceProperties=stage.properties(stage.key())), stage.clock)
    assert stage.answers[-1]["Status"] == "SUCCESS"
    assert before <= json.loads(stage.objects()[LEDGER_PATH])["keys"][0]["published"] <= int(time.time())
    assert configured == [("json", False)]

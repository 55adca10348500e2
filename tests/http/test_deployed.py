"""The stack of the template, as CloudFormation makes it in moto, with each function held to the rights of its role."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from scripts import sample_pdf
from scripts.template.roles import Right
from tests.http.conftest import HARBOUR, PASSWORD
from tests.http.deployed import Deployed, deploy
from tests.http.issuer_stage import prepare, staged
from tests.http.test_bundle_handlers import _loop
from tests.http.test_lambda import event
from tests.template.conftest import transformed

__all__ = ["_loop", "transformed"]


@pytest.fixture
def stack(transformed, home, aws, certificate, monkeypatch) -> Iterator[Deployed]:
    prepare(monkeypatch, aws, certificate)
    with staged(aws, certificate) as stage:
        made = deploy(aws, transformed, {"Issuer.Url": stage.address})
        stage.bucket = made.physical["IssuerBucket"]
        with made.process("issuer"):
            assert stage.deploy(made.physical["BlueKey"])["Status"] == "SUCCESS", stage.answers
        yield made


def invited(stack: Deployed, username: str, tenant: str | None = None) -> str:
    """A token of somebody with an invite, as whoever deploys makes them."""
    from llamabda import wiring

    role = stack.guard.allowed["auth"]
    with stack.process("auth"):
        assert role
        secret, _ = wiring.auth().new_invite(None, tenant=tenant, role="admin")
    credentials = {"username": username, "password": PASSWORD}
    status, reply = stack.http("auth", event("POST", "/auth/register", credentials))
    assert status == 403, reply  # nobody comes in without one
    status, reply = stack.http("auth", event("POST", "/auth/register", {**credentials, "invite": secret}))
    assert status == 201, reply
    status, reply = stack.http("auth", event("POST", "/auth/login", credentials))
    assert status == 200, reply
    return str(reply["access_token"])


def ask(stack: Deployed, token: str, question: str) -> dict:
    asked = {"question": question, "mode": "extractive"}
    status, reply = stack.http("ask", event("POST", "/ask/question", asked, token=token))
    assert status == 200, reply
    return reply


def state_of(stack: Deployed, token: str, doc_id: str) -> tuple[str, int | None] | None:
    status, reply = stack.http("ingest", event("GET", f"/documents/{doc_id}", token=token))
    return (reply["state"], reply["generation"]) if status == 200 else None


def pdf(text: str) -> bytes:
    return sample_pdf.document([((sample_pdf.TEXT, text),)])


def test_from_an_invite_to_answers_that_come_and_go_with_their_documents(stack):
    alice = invited(stack, "alice")
    tenant = stack.http("auth", event("GET", "/auth/me", token=alice))[1]["tenant"]
    train = {"docs": [{"id": "harbour", "text": HARBOUR}]}
    status, reply = stack.http("ingest", event("POST", "/training/train", train, token=alice))
    assert (status, reply["documents"][0]["state"]) == (200, "ready")
    stack.pump()
    reply = ask(stack, alice, "When does the harbour office open?")
    assert "eight" in reply["answer"]
    (citation, *_) = reply["citations"]
    where = f"doc_id=harbour&generation={citation['generation']}"
    text = stack.http("ingest", event("GET", "/source", token=alice, query=where))[1]
    assert text[citation["start"] : citation["end"]] == citation["text"]

    mallory = invited(stack, "mallory")
    assert state_of(stack, mallory, "harbour") is None
    assert not ask(stack, mallory, "When does the harbour office open?")["answered"]
    for function, method, path in (
        ("auth", "GET", "/auth/me"),
        ("ingest", "GET", "/documents"),
        ("ask", "POST", "/search"),
    ):
        assert stack.http(function, event(method, path, {} if method == "POST" else None))[0] == 401

    objects, bucket = stack.aws.client("s3"), stack.physical["DocumentBucket"]
    key = f"tenants/{tenant}/tide tables & more+é.pdf"
    for generation, metres in enumerate(("four", "seven"), 1):
        objects.put_object(Bucket=bucket, Key=key, Body=pdf(f"The spring tide in Vila Nova reaches {metres} metres."))
        stack.pump()
        assert state_of(stack, alice, f"s3:{key}") == ("ready", generation)
        assert f"{metres} metres" in ask(stack, alice, "How high is the spring tide in Vila Nova?")["answer"]
    objects.delete_object(Bucket=bucket, Key=key)
    stack.pump()
    assert state_of(stack, alice, f"s3:{key}") is None

    broken = f"tenants/{tenant}/broken.pdf"
    objects.put_object(Bucket=bucket, Key=broken, Body=b"%PDF-1.7\nnothing of a PDF follows")
    stack.pump()
    (message,) = stack.failures()
    assert "'broken.pdf' cannot be read" in message["MessageAttributes"]["reason"]["StringValue"]

    keys = [f"tenants/{tenant}/many/{number:02}.txt" for number in range(20)]
    for number, one in enumerate(keys):
        objects.put_object(Bucket=bucket, Key=one, Body=f"Locker {number} belongs to vessel {number * 7}.".encode())
    stack.pump()
    page = stack.http("ingest", event("GET", "/documents", token=alice, query="state=ready&limit=200"))[1]
    assert {one["id"] for one in page["documents"]} == {"harbour", *(f"s3:{one}" for one in keys)}

    with stack.process("ingest"):
        from llamabda_functions.ingest.app import handler

        from tests.http.test_lambda import Context

        assert handler({"llamabda": "sweep"}, Context(60_000))["whole"]
    assert stack.guard.refused == []
    assert stack.guard.strange == set()


@pytest.mark.parametrize(
    ("function", "action", "route"),
    [
        ("auth", "kms:Sign", ("POST", "/auth/login")),
        ("ingest", "s3:PutObject", ("POST", "/training/train")),
        ("ask", "dynamodb:BatchGetItem", ("POST", "/ask/question")),
    ],
)
def test_without_one_of_its_rights_a_function_fails_and_says_what_is_missing(stack, caplog, function, action, route):
    alice = invited(stack, "alice")
    body = {
        "/auth/login": {"username": "alice", "password": PASSWORD},
        "/training/train": {"docs": [{"id": "harbour", "text": HARBOUR}]},
        "/ask/question": {"question": "When does the harbour office open?"},
    }[route[1]]
    if function == "ask":
        train = {"docs": [{"id": "harbour", "text": HARBOUR}]}
        assert stack.http("ingest", event("POST", "/training/train", train, token=alice))[0] == 200
    stack.guard.allowed[function] = {one for one in stack.guard.allowed[function] if one.action != action}
    status, reply = stack.http(function, event(*route, body, token=alice))
    assert status in (500, 503), reply
    assert "AccessDenied" not in json.dumps(reply)
    assert {one.action for one in stack.guard.refused} == {action}
    assert re.search("give (its|the) role", caplog.text)


def test_no_function_may_touch_what_is_anothers(stack):
    """The rights as they were made, on resources by name: none reaches what the function has nothing to do with."""
    foreign = {
        "auth": ("CatalogTable", "TextBucket", "DocumentBucket", "WorkQueue", "DeadLetterQueue"),
        "ask": ("TextBucket", "DocumentBucket", "WorkQueue", "DeadLetterQueue", "BlueKey"),
        "ingest": ("BlueKey",),
        "issuer": ("UsersTable", "CatalogTable", "TextBucket", "DocumentBucket", "WorkQueue"),
    }
    for function, names in foreign.items():
        reached = {one.resource for one in stack.guard.allowed[function]}
        assert reached
        for name in names:
            assert not [one for one in reached if stack.physical[name].rpartition("/")[2] in one], (function, name)
    assert Right("kms:Sign", stack.guard.names[stack.physical["BlueKey"]]) in stack.guard.allowed["auth"]
    assert {one.action for one in stack.guard.allowed["issuer"] if one.action.startswith("kms:")} == {
        "kms:GetPublicKey"
    }

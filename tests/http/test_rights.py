"""Each function's role allows what the function does, and nothing that it never does."""

from __future__ import annotations

import ast
import json
import os
from contextlib import AbstractContextManager
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from llamabda import ingest, wiring
from scripts.local import template
from scripts.template import roles
from scripts.template.roles import Right
from tests.aws import CATALOG, TEXTS, USERS
from tests.http.calls import Calls, process_of
from tests.http.conftest import HARBOUR, PASSWORD
from tests.http.test_bundle_handlers import DOCUMENTS, ISSUED, Bundle, _loop, bundle, created
from tests.http.test_lambda import Context, event

__all__ = ["_loop", "bundle"]

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "layers" / "shared" / "llamabda" / "adapters"
FUNCTIONS = ("auth", "ingest", "ask")
# not calls of ours: what Lambda does in a function's role, and requests to the index, which boto3 does not make
BY_LAMBDA = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
}
BY_THE_ISSUER = {"delete_object", "head_object"}  # alone; seen in a test of its own


def held() -> dict[str, dict[str, Any]]:
    """The template's resources for an index that is elsewhere and needs no rights."""
    described = template.read()
    given = {"OpenSearchMode": "existing", "OpenSearchHost": "https://search.example.org"}
    found = template.chosen(described, template.conditions(described, given))["Resources"]
    assert isinstance(found, dict)
    return found


def allowed(function: str) -> set[Right]:
    return roles.rights(held()[f"{function.capitalize()}Role"])


def declared(function: str) -> set[str]:
    described = template.read()
    own = described["Resources"][f"{function.capitalize()}Function"]["Properties"].get("Environment", {})
    shared = described["Globals"]["Function"]["Environment"]["Variables"]
    return {*shared, *own.get("Variables", {})}


def missing(needed: set[Right], given: set[Right]) -> set[Right]:
    return {need for need in needed if not any(_covers(one, need) for one in given)}


def unused(needed: set[Right], given: set[Right]) -> set[Right]:
    return {one for one in given if one.action not in BY_LAMBDA and not any(_covers(one, need) for need in needed)}


def _covers(right: Right, need: Right) -> bool:
    return right.action == need.action and fnmatchcase(need.resource, right.resource)


class Played:
    """The functions, each as in a process of its own, over one account whose calls are written down."""

    def __init__(self, bundle: Bundle, calls: Calls, environment: dict[str, str]) -> None:
        self.bundle = bundle
        self.calls = calls
        self._environment = environment

    def process(self, function: str) -> AbstractContextManager[None]:
        given = {name: value for name, value in self._environment.items() if name in declared(function)}
        return process_of(function, given, self.calls.record)

    def http(self, function: str, method: str, path: str, body: object = None, expected: int = 200, **more: Any) -> Any:
        status, reply = self.answer(function, event(method, path, body, **more))
        assert status == expected, (path, status, reply)
        return json.loads(reply) if reply.startswith(("{", "[")) else reply

    def answer(self, function: str, made: dict) -> tuple[int, str]:
        reply = self.bundle.handler(function)(made, Context(30_000))
        return reply["statusCode"], reply["body"]


@pytest.fixture
def played(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Played:
    key, queue, failed = os.environ["KMS_KEY_ID"], bundle.queue, bundle.failed
    buckets = {DOCUMENTS: "DocumentBucket", TEXTS: "TextBucket", ISSUED: "IssuerBucket"}
    names = {
        USERS: "UsersTable",
        CATALOG: "CatalogTable",
        queue: "WorkQueue",
        failed: "DeadLetterQueue",
        key: "BlueKey",
    }
    names |= buckets
    settings = ("USERS_TABLE", "CATALOG_TABLE", "TEXT_BUCKET", "BUCKET", "QUEUE_URL", "DEAD_LETTER_URL", "KMS_KEY_ID")
    given = {name: os.environ[name] for name in (*settings, "JWKS_URL", "TOKEN_ISSUER")}
    bundle.aws.client("s3").put_bucket_versioning(Bucket=DOCUMENTS, VersioningConfiguration={"Status": "Enabled"})
    return Played(bundle, Calls(names), given | {"REGISTRATION": "open"})


def accounts(played: Played) -> str:
    """Everything that auth does. Returns a token."""
    alice = {"username": "alice", "password": PASSWORD}
    with played.process("auth"):
        played.http("auth", "POST", "/auth/register", alice, 201)
        played.http("auth", "POST", "/auth/register", alice, 409)
        played.http("auth", "POST", "/auth/login", alice | {"password": "wrong-secret"}, 401)
        played.http("auth", "POST", "/auth/login", {"username": "nobody", "password": PASSWORD}, 401)
        tokens = played.http("auth", "POST", "/auth/login", alice)
        token = tokens["access_token"]
        played.http("auth", "GET", "/auth/me", token=token)
        invite = played.http("auth", "POST", "/auth/invites", {}, 201, token=token)["invite"]
        played.http("auth", "POST", "/auth/register", {"username": "bob", "password": PASSWORD, "invite": invite}, 201)
        fresh = played.http("auth", "POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        played.http("auth", "POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]}, 401)
        fresh = played.http("auth", "POST", "/auth/login", alice)
        played.http("auth", "POST", "/auth/logout", {"refresh_token": fresh["refresh_token"]}, 204)
        for path in ("/.well-known/jwks.json", "/.well-known/openid-configuration", "/health"):
            played.http("auth", "GET", path)
        return str(played.http("auth", "POST", "/auth/login", alice)["access_token"])


def questions(played: Played, token: str) -> None:
    with played.process("ask"):
        played.http("ask", "POST", "/search", {"query": "harbour"}, token=token)
        asked = {"question": "When does the harbour office open?", "mode": "extractive"}
        played.http("ask", "POST", "/ask/question", asked, token=token)
        played.answer("ask", event("GET", "/health/ready"))


def documents(played: Played, token: str, patch: pytest.MonkeyPatch) -> None:
    objects = played.bundle.aws.client("s3")
    with played.process("ingest"):
        train = lambda text: {"docs": [{"id": "harbour", "text": text}]}  # noqa: E731
        played.http("ingest", "POST", "/training/train", train(HARBOUR), token=token)
        played.http("ingest", "POST", "/training/train", train(HARBOUR + " It closes at six."), token=token)
        played.http("ingest", "GET", "/documents", token=token)
        played.http("ingest", "GET", "/documents", query="state=ready&limit=1", token=token)
        played.http("ingest", "GET", "/documents/harbour", token=token)
        played.http("ingest", "GET", "/documents/nothing", None, 404, token=token)
        played.http("ingest", "GET", "/chunks", query="doc_id=harbour", token=token)
        played.http("ingest", "GET", "/source", query="doc_id=harbour", token=token)
        played.http("ingest", "GET", "/source", None, 410, query="doc_id=harbour&generation=1", token=token)
        version = objects.put_object(Bucket=DOCUMENTS, Key="harbour.txt", Body=HARBOUR)["VersionId"]
        objects.put_object(Bucket=DOCUMENTS, Key="other.txt", Body="The ferry leaves at noon.")
        objects.put_object(Bucket=DOCUMENTS, Key="broken.pdf", Body=b"%PDF-1.7 and nothing")
        named = json.loads(created("harbour.txt"))
        named["detail"]["object"]["version-id"] = version
        gone = json.loads(created("harbour.txt", "02"))
        gone["detail-type"] = "Object Deleted"
        bodies = [
            json.dumps(named),
            created("other.txt"),
            created("never-there.txt"),
            created("broken.pdf"),
            "nonsense",
        ]
        assert played.bundle.deliver(*bodies) == {"batchItemFailures": []}
        objects.delete_object(Bucket=DOCUMENTS, Key="harbour.txt")
        assert played.bundle.deliver(json.dumps(gone)) == {"batchItemFailures": []}
        played.http("ingest", "DELETE", "/documents/harbour", None, 204, token=token)
        for name in ("GRACE", "ABANDONED", "RETIRED", "UNFINISHED"):
            patch.setattr(ingest, name, timedelta(seconds=-1))
        played.http("ingest", "POST", "/training/train", train("The ferry leaves at noon."), token=token)
        for one in objects.list_objects_v2(Bucket=TEXTS)["Contents"]:
            objects.delete_object(Bucket=TEXTS, Key=one["Key"])
        assert played.answer("ingest", event("GET", "/source", query="doc_id=harbour", token=token))[0] != 200
        assert wiring.ingest().sweep() > 0
        wiring.ingest().discard()


@pytest.fixture
def calls(played: Played, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Of everything that the functions do."""
    token = accounts(played)
    questions(played, token)  # before there is anything
    documents(played, token, monkeypatch)
    questions(played, token)
    return played.calls


def test_roles_allow_what_their_functions_do_and_nothing_else(calls):
    assert calls.strange == set()
    assert {function: len(calls.rights[function]) >= 5 for function in FUNCTIONS} == dict.fromkeys(FUNCTIONS, True)
    found = {function: (calls.rights[function], allowed(function)) for function in FUNCTIONS}
    assert {function: missing(*both) for function, both in found.items()} == {name: set() for name in FUNCTIONS}
    assert {function: unused(*both) for function, both in found.items()} == {name: set() for name in FUNCTIONS}
    for function, (needed, given) in found.items():  # and no right goes unnoticed when it is not there
        own = {right for right in given if right.action not in BY_LAMBDA}
        assert {right for right in own if not missing(needed, given - {right})} == set(), function
    assert operations_of_the_adapters() - calls.operations - BY_THE_ISSUER == set()


def operations_of_the_adapters() -> set[str]:
    """Every operation of AWS whose name stands in an adapter, as boto3 spells it."""
    from botocore import xform_name

    session = get_session()
    known = {
        xform_name(name)
        for service in ("dynamodb", "kms", "s3", "sqs")
        for name in session.get_service_model(service).operation_names
    }
    found = set()
    for path in (
        *(ADAPTERS / "dynamodb").glob("*.py"),
        *(ADAPTERS / f"{name}.py" for name in ("kms", "s3", "sqs", "jwks")),
    ):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
                found |= {node.attr} if owner in ("_client", "client") else set()
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if "_" in node.value or node.value in ("query", "scan", "sign") else set()
    assert {"batch_get_item", "get_object", "send_message_batch", "sign"} <= found
    return found & known

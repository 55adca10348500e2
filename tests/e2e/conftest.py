"""The bundle as `make e2e` runs it: functions in containers, asked over HTTP, fed through the bucket."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest

ADDRESS, AWS = "LLAMABDA_E2E", "LLAMABDA_E2E_AWS"
SECONDS = 180  # for what comes through the bucket
T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get(ADDRESS):
        missing = pytest.mark.skip(reason="the bundle is not running: `make e2e` starts it, in containers")
        for item in items:
            if "e2e" in item.path.parts:
                item.add_marker(missing)


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    http: httpx.Client
    username: str
    tenant: str

    def document(self, doc_id: str) -> dict[str, Any] | None:
        reply = self.http.get(f"/documents/{doc_id}")
        if reply.status_code == 404:
            return None
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ask(self, question: str, **more: object) -> dict[str, Any]:
        reply = self.http.post("/ask/question", json={"question": question, "mode": "extractive", **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def source(self, citation: dict[str, Any]) -> str:
        where = {"doc_id": citation["doc_id"], "generation": citation["generation"]}
        reply = self.http.get("/source", params=where)
        assert reply.status_code == 200, reply.text
        return reply.text


@pytest.fixture(scope="session")
def anybody() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=os.environ[ADDRESS], timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def person(anybody: httpx.Client) -> Iterator[Callable[[], Person]]:
    clients = []

    def made() -> Person:
        credentials = {"username": f"user-{secrets.token_hex(4)}", "password": "secret123"}
        registered = anybody.post("/auth/register", json=credentials)
        assert registered.status_code == 201, registered.text
        token = anybody.post("/auth/login", json=credentials).json()["access_token"]
        client = httpx.Client(base_url=anybody.base_url, timeout=60, headers={"Authorization": f"Bearer {token}"})
        clients.append(client)
        return Person(client, credentials["username"], registered.json()["tenant"])

    yield made
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def alice(person: Callable[[], Person]) -> Person:
    return person()


@pytest.fixture(scope="session")
def bucket() -> Any:
    """The bucket whose objects are documents."""
    from scripts.local import account

    client = account.client("s3", os.environ[AWS])
    return lambda method, key, **more: getattr(client, method)(Bucket=account.name("DocumentBucket"), Key=key, **more)


@pytest.fixture(scope="session")
def failed() -> Callable[[], list[dict[str, Any]]]:
    """Takes what lies in the queue of what failed."""
    from scripts.local import account

    client = account.client("sqs", os.environ[AWS])
    url = client.get_queue_url(QueueName=account.name("DeadLetterQueue"))["QueueUrl"]

    def taken() -> list[dict[str, Any]]:
        reply = client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        return list(reply.get("Messages", []))

    return taken


def eventually(look: Callable[[], T], seconds: float = SECONDS) -> T:
    """What `look` gives, as soon as it gives anything."""
    latest = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < latest, f"nothing came within {seconds} s"
        time.sleep(0.5)
    return found

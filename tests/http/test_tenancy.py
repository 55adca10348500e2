"""What belongs to somebody else does not exist."""

from __future__ import annotations

import pytest

from tests.http.conftest import HARBOUR, register
from tests.http.problem import checked

REQUESTS = [
    ("GET", "/documents/notes/harbour", None),
    ("DELETE", "/documents/notes/harbour", None),
    ("GET", "/chunks?doc_id=notes/harbour", None),
    ("GET", "/source?doc_id=notes/harbour", None),
    ("GET", "/source?doc_id=notes/harbour&generation=1", None),
    ("GET", "/documents", None),
    ("POST", "/search", {"query": "harbour office"}),
    ("POST", "/ask/question", {"question": "When does the harbour office open?", "mode": "extractive"}),
]


@pytest.mark.parametrize(("method", "url", "body"), REQUESTS)
def test_a_foreign_document_looks_missing(client, alice, method, url, body):
    bob = register(client, "bob")

    def seen_by_bob():
        reply = client.request(method, url, json=body, headers=bob.headers)
        document = reply.json()
        document.pop("instance", None)
        document.pop("timings", None)
        skipped = ("x-request-id", "server-timing", "content-length", "ratelimit")
        return reply.status_code, document, {k: v for k, v in reply.headers.items() if k not in skipped}

    missing = seen_by_bob()
    doc = {"id": "notes/harbour", "text": HARBOUR}
    assert client.post("/training/train", json={"docs": [doc]}, headers=alice.headers).json()["indexed"] == 1
    assert seen_by_bob() == missing
    assert client.get("/documents/notes/harbour", headers=alice.headers).status_code == 200


def test_one_id_may_stand_for_two_documents_of_two_tenants(client, alice, harbour):
    bob = register(client, "bob")
    other = {"id": harbour, "text": "Bob keeps bees."}
    client.post("/training/train", json={"docs": [other]}, headers=bob.headers)
    sources = [client.get("/source", params={"doc_id": harbour}, headers=who.headers).text for who in (alice, bob)]
    assert sources == [HARBOUR, "Bob keeps bees."]
    assert client.delete(f"/documents/{harbour}", headers=bob.headers).status_code == 204
    assert client.get("/source", params={"doc_id": harbour}, headers=alice.headers).text == HARBOUR


def test_a_cursor_of_one_tenant_shows_another_nothing(client, alice):
    bob = register(client, "bob")
    docs = [{"id": f"d{number}", "text": f"text {number}"} for number in range(3)]
    client.post("/training/train", json={"docs": docs}, headers=alice.headers)
    cursor = client.get("/documents", params={"limit": 1}, headers=alice.headers).json()["next_cursor"]
    reply = client.get("/documents", params={"cursor": cursor}, headers=bob.headers)
    if reply.status_code == 200:
        assert reply.json()["documents"] == []
    else:
        checked(reply, 422)

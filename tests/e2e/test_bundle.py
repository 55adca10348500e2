"""From an account to an answer, and from a bucket to an answer, through three functions in their containers."""

from __future__ import annotations

import json
import re

import pytest

from scripts import sample_pdf
from tests.e2e.conftest import Person, eventually

TEXT = "The harbour office in Kalmar opens at eight. On Sundays the lighthouse keeper answers the telephone."


def test_it_is_up_and_says_what_it_can_do(anybody):
    assert anybody.get("/health").json() == {"status": "ok"}
    paths = anybody.get("/openapi.json").json()["paths"]
    assert {"/auth/login", "/training/train", "/ask/question", "/documents/{id}"} <= set(paths)
    assert "<html" in anybody.get("/docs").text


def test_a_trained_text_is_answered_with_a_citation_that_can_be_checked(alice):
    trained = alice.http.post("/training/train", json={"docs": [{"id": "harbour", "text": TEXT}]})
    assert trained.status_code in (200, 202), trained.text
    eventually(lambda: (alice.document("harbour") or {}).get("state") == "ready")
    reply = alice.ask("When does the harbour office open?")
    assert reply["answered"]
    assert "eight" in reply["answer"]
    (citation, *_) = reply["citations"]
    assert alice.source(citation)[citation["start"] : citation["end"]] == citation["text"]


def test_the_model_in_the_image_takes_part(person):
    reader = person()
    trained = reader.http.post("/training/train", json={"docs": [{"id": "harbour", "text": TEXT}]})
    assert trained.status_code in (200, 202), trained.text
    eventually(lambda: (reader.document("harbour") or {}).get("state") == "ready")
    # until it is loaded, answers are extracts
    eventually(lambda: reader.http.get("/health/ready").json()["checks"]["generator"]["status"] == "ok")

    def generated() -> bool:
        reply = reader.ask("When does the harbour office open?", mode="auto", max_tokens=40)
        assert reply["answered"]
        assert reply["citations"]
        assert reply["model"]
        assert reply["timings"]["total"] < 29_000
        # a first prompt reads the model's pages from the disk, and may take all the time that there is
        return reply["usage"]["completion_tokens"] > 0

    eventually(generated)


def test_a_stream_arrives_whole(alice):
    question = {"question": "When does the harbour office open?", "mode": "extractive", "stream": True}
    reply = alice.http.post("/ask/question", json=question)
    events = re.findall(r"event: (\w+)\r?\ndata: (.*)", reply.text)
    assert [name for name, _ in events][-1] == "final_answer"
    assert json.loads(events[-1][1])["citations"]


def test_a_foreign_tenant_sees_nothing(alice, person):
    mallory = person()
    assert mallory.document("harbour") is None
    assert mallory.http.post("/search", json={"query": "harbour office Kalmar"}).json() == {"hits": []}
    assert not mallory.ask("When does the harbour office open?")["answered"]
    assert mallory.http.get("/documents").json()["documents"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/auth/me"),
        ("POST", "/training/train"),
        ("GET", "/documents"),
        ("GET", "/documents/harbour"),
        ("DELETE", "/documents/harbour"),
        ("GET", "/chunks?doc_id=harbour"),
        ("GET", "/source?doc_id=harbour"),
        ("POST", "/search"),
        ("POST", "/ask/question"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer not.a.token"}], ids=["no token", "nonsense"])
def test_without_a_good_token_nothing_is_told(anybody, method, path, headers):
    reply = anybody.request(method, path, headers=headers, json={} if method == "POST" else None)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")


def pdf(text: str) -> bytes:
    return sample_pdf.document([((sample_pdf.TEXT, text),)])


def state_of(person: Person, key: str) -> str | None:
    document = person.document(f"s3:{key}")
    return None if document is None else document["state"]


def test_a_pdf_in_the_bucket_is_answered_overwritten_and_forgotten(alice, bucket):
    key = f"tenants/{alice.tenant}/tide tables & more+é.pdf"
    bucket("put_object", key, Body=pdf("The spring tide in Vila Nova reaches four metres."))
    eventually(lambda: state_of(alice, key) == "ready")
    reply = alice.ask("How high is the spring tide in Vila Nova?")
    assert "four metres" in reply["answer"]
    assert reply["citations"][0]["doc_id"] == f"s3:{key}"
    assert alice.source(reply["citations"][0])

    bucket("put_object", key, Body=pdf("The spring tide in Vila Nova reaches seven metres."))
    eventually(lambda: (alice.document(f"s3:{key}") or {}).get("generation") == 2)
    reply = alice.ask("How high is the spring tide in Vila Nova?")
    assert "seven metres" in reply["answer"]
    assert "four" not in json.dumps(reply)

    bucket("delete_object", key)
    eventually(lambda: alice.document(f"s3:{key}") is None)
    assert "seven" not in json.dumps(alice.ask("How high is the spring tide in Vila Nova?"))


def test_what_lies_in_no_tenants_folder_is_everybodys(alice, person, bucket):
    bucket("put_object", "notices/ferry.md", Body=b"# Ferry\n\nThe ferry to Borkum leaves from pier twelve.\n")
    eventually(lambda: state_of(alice, "notices/ferry.md") == "ready")
    assert "pier twelve" in person().ask("Where does the ferry to Borkum leave from?")["answer"]
    bucket("delete_object", "notices/ferry.md")
    eventually(lambda: alice.document("s3:notices/ferry.md") is None)


def test_a_broken_file_ends_where_failures_are_kept_with_the_reason(alice, bucket, failed):
    key = f"tenants/{alice.tenant}/broken.pdf"
    bucket("put_object", key, Body=b"%PDF-1.7\nnothing of a PDF follows")
    (message, *_) = eventually(lambda: [one for one in failed() if "broken.pdf" in one["Body"]])
    reason = message["MessageAttributes"]["reason"]["StringValue"]
    assert "'broken.pdf' cannot be read" in reason
    document = alice.document(f"s3:{key}")
    assert (document["state"], document["error"]) == ("failed", reason)


def test_twenty_files_at_once_all_arrive(alice, bucket):
    keys = [f"tenants/{alice.tenant}/many/{number:02}.txt" for number in range(20)]
    for number, key in enumerate(keys):
        bucket("put_object", key, Body=f"Locker number {number} belongs to the crew of vessel {number * 7}.".encode())

    def arrived() -> bool:  # one request for all: there is a limit on requests
        page = alice.http.get("/documents", params={"limit": 200})
        assert page.status_code == 200, page.text
        ready = {one["id"] for one in page.json()["documents"] if one["state"] == "ready"}
        return {f"s3:{key}" for key in keys} <= ready

    assert eventually(arrived, seconds=300)

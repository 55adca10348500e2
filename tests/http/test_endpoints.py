"""Every endpoint used as intended gives exactly the shape that its users know."""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace

import pytest

from llamabda import wiring
from llamabda.background import Background
from llamabda.chunking import Chunking
from llamabda.errors import Busy, ConfigurationError, DependencyFailed, ModelError
from llamabda.types import NewDocument
from tests.fakes import WordEmbedder
from tests.http.conftest import HARBOUR, PASSWORD
from tests.http.problem import checked

DOC = {
    *("id", "source", "state", "generation", "sha256", "bytes"),
    *("chunks", "metadata", "error", "created_at", "updated_at"),
}
CHUNK = {"id", "doc_id", "generation", "text", "meta", "start", "end", "sha256"}
HIT = CHUNK | {"score"}
REPLY = {"answer", "answered", "mode", "finish_reason", "citations", "model", "usage", "timings"}


def test_health_needs_no_token(client):
    reply = client.get("/health")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_the_first_users_curl_lines_work(client):
    registered = client.post("/auth/register", json={"username": "alice", "password": "secret123"})
    assert registered.status_code == 201
    assert set(registered.json()) == {"username", "tenant"}
    login = client.post("/auth/login", json={"username": "alice", "password": "secret123"})
    assert login.status_code == 200
    assert set(login.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (login.json()["token_type"], login.json()["expires_in"]) == ("bearer", 3600)
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    assert client.post("/training/train", json={"texts": [HARBOUR]}, headers=headers).status_code == 200
    asked = {"question": "When does the harbour office open?", "top_k": 3, "max_tokens": 50}
    reply = client.post("/ask/question", json=asked, headers=headers)
    assert reply.status_code == 200
    assert {"answer", "citations"} <= set(reply.json())


def test_me_tells_who_the_token_speaks_for(client, alice):
    me = client.get("/auth/me", headers=alice.headers).json()
    assert set(me) == {"username", "tenant", "role", "created_at"}
    assert (me["username"], me["tenant"], me["role"]) == ("alice", alice.tenant, "admin")
    assert me["created_at"].endswith("Z")


def test_a_disabled_account_has_no_me(client, alice):
    wiring.users().set_disabled("alice", True)
    checked(client.get("/auth/me", headers=alice.headers), 401)


def test_a_username_is_taken_once(client, alice):
    problem = checked(client.post("/auth/register", json={"username": "ALICE", "password": PASSWORD}), 409)
    assert problem["code"] == "conflict"


@pytest.mark.parametrize("username", ["alice", "nobody"])
def test_a_failed_login_does_not_tell_what_was_wrong(client, alice, username):
    problem = checked(client.post("/auth/login", json={"username": username, "password": "wrong-password"}), 401)
    assert problem["detail"] == "the username or the password is wrong"


def test_texts_get_an_id_from_their_hash_and_the_same_text_twice_is_one_document(client, alice):
    reply = client.post("/training/train", json={"texts": [HARBOUR, "Another text.", HARBOUR]}, headers=alice.headers)
    assert reply.status_code == 200
    body = reply.json()
    assert set(body) == {"documents", "indexed", "chunks", "notices"}
    assert body["notices"] == []  # nobody has said what the embedder knows
    assert (body["indexed"], body["chunks"]) == (2, 2)
    assert body["documents"][0] == {
        "id": "text-" + sha256(HARBOUR.encode()).hexdigest()[:32],
        "state": "ready",
        "chunks": 1,
        "generation": 1,
        "error": None,
    }


FAQ = "O escritório do porto abre às oito da manhã. Nos fins de semana o atendimento é feito apenas por telefone."


@pytest.fixture
def english_only(monkeypatch):
    monkeypatch.setattr(WordEmbedder, "languages", ("en",))


def test_training_says_so_when_the_embedder_does_not_know_the_language(client, alice, english_only, caplog):
    wiring.space()
    docs = [{"id": f"{n}", "text": f"{FAQ} {n}"} for n in range(3)] + [{"id": "en", "text": HARBOUR}]
    for _ in ("new", "unchanged"):
        caplog.clear()
        body = client.post("/training/train", json={"docs": docs}, headers=alice.headers).json()
        (notice,) = body["notices"]
        assert notice.startswith(
            "3 of 4 documents are in Portuguese (pt), which sentence-transformers/all-MiniLM-L6-v2"
        )
        assert notice.endswith(
            "Set EMBED_MODEL_NAME=cnmoro/portuguese-multilingual-e5-small, then run `llamabda reindex`"
        )
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert warning.getMessage() == notice
    assert {doc["state"] for doc in body["documents"]} == {"unchanged"}


def test_training_says_nothing_when_the_embedder_knows_the_language(client, alice, english_only):
    body = {"texts": [HARBOUR, "The café sells bread on Sundays, and cakes on all other days of the week."]}
    assert client.post("/training/train", json=body, headers=alice.headers).json()["notices"] == []


def test_training_goes_on_without_a_language_detector(client, alice, english_only, monkeypatch):
    def absent():
        raise ConfigurationError("telling languages apart needs the package kreuzberg")

    monkeypatch.setattr(wiring, "language_detector", absent)
    reply = client.post("/training/train", json={"texts": [FAQ]}, headers=alice.headers)
    assert (reply.status_code, reply.json()["indexed"], reply.json()["notices"]) == (200, 1, [])


def test_training_an_id_again_replaces_the_document(client, alice, harbour):
    doc = {"id": harbour, "text": "It opens at nine."}
    reply = client.post("/training/train", json={"docs": [doc]}, headers=alice.headers).json()
    assert reply["documents"][0]["generation"] == 2
    source = client.get("/source", params={"doc_id": harbour}, headers=alice.headers)
    assert source.text == "It opens at nine."
    old = client.get("/source", params={"doc_id": harbour, "generation": 1}, headers=alice.headers)
    assert checked(old, 410)["code"] == "gone"
    future = client.get("/source", params={"doc_id": harbour, "generation": 3}, headers=alice.headers)
    checked(future, 404)


def test_chunk_size_and_overlap_count_per_request(client, alice):
    text = " ".join(f"word{number}" for number in range(200))
    body = {"docs": [{"id": "long", "text": text}], "chunk_size": 100, "chunk_overlap": 20}
    assert client.post("/training/train", json=body, headers=alice.headers).json()["chunks"] > 10


def test_documents_are_listed_read_and_deleted(client, alice, harbour):
    listing = client.get("/documents", headers=alice.headers).json()
    assert set(listing) == {"documents", "counts", "next_cursor"}
    [doc] = listing["documents"]
    assert set(doc) == DOC
    assert (doc["id"], doc["state"], doc["generation"], doc["chunks"]) == (harbour, "ready", 1, 1)
    assert (doc["sha256"], doc["bytes"]) == (sha256(HARBOUR.encode()).hexdigest(), len(HARBOUR))
    assert doc["metadata"] == {"lang": "en"}
    assert listing["counts"]["ready"] == 1
    assert client.get(f"/documents/{harbour}", headers=alice.headers).json() == doc
    assert client.get("/documents/notes%2Fharbour", headers=alice.headers).json() == doc
    deleted = client.delete(f"/documents/{harbour}", headers=alice.headers)
    assert (deleted.status_code, deleted.content) == (204, b"")
    checked(client.delete(f"/documents/{harbour}", headers=alice.headers), 404)
    checked(client.get(f"/documents/{harbour}", headers=alice.headers), 404)


def test_documents_come_in_pages_and_by_state(client, alice):
    docs = [{"id": f"d{number}", "text": f"text {number}"} for number in range(5)]
    client.post("/training/train", json={"docs": docs}, headers=alice.headers)
    ids, cursor = [], None
    while True:
        query = {"limit": 2, "state": "ready"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/documents", params=query, headers=alice.headers).json()
        assert len(page["documents"]) <= 2
        ids += [doc["id"] for doc in page["documents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == ["d0", "d1", "d2", "d3", "d4"]
    failed = client.get("/documents", params={"state": "failed"}, headers=alice.headers).json()
    assert failed["documents"] == []


def test_chunks_come_in_order_and_in_pages(client, alice):
    text = " ".join(f"word{number}" for number in range(100))
    body = {"docs": [{"id": "long", "text": text}], "chunk_size": 100, "chunk_overlap": 0}
    client.post("/training/train", json=body, headers=alice.headers)
    chunks, cursor = [], None
    while True:
        query = {"doc_id": "long", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/chunks", params=query, headers=alice.headers).json()
        assert set(page) == {"chunks", "next_cursor"}
        chunks += page["chunks"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(chunks) > 3
    assert all(set(chunk) == CHUNK for chunk in chunks)
    assert [chunk["start"] for chunk in chunks] == sorted(chunk["start"] for chunk in chunks)
    assert all(text[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in chunks)


def test_the_source_is_plain_text_as_it_was_handed_in(client, alice):
    text = "Olá, <b>mundo</b> 🦙\r\nline two\x0c"
    client.post("/training/train", json={"docs": [{"id": "é/ü ?#", "text": text}]}, headers=alice.headers)
    reply = client.get("/source", params={"doc_id": "é/ü ?#", "generation": 1}, headers=alice.headers)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.content.decode("utf-8") == text


def test_search_finds_chunks_whose_text_is_the_span_of_the_source(client, alice, harbour):
    reply = client.post("/search", json={"query": "harbour office"}, headers=alice.headers)
    assert reply.status_code == 200
    assert set(reply.json()) == {"hits"}
    hit = reply.json()["hits"][0]
    assert set(hit) == HIT
    assert (hit["doc_id"], hit["generation"], hit["meta"]) == (harbour, 1, {"lang": "en"})
    assert HARBOUR[hit["start"] : hit["end"]] == hit["text"]
    assert hit["sha256"] == sha256(HARBOUR.encode()).hexdigest()
    assert 0 < hit["score"] <= 1
    stages = {entry.split(";")[0] for entry in reply.headers["server-timing"].split(", ")}
    assert {"embed", "search"} <= stages


def test_an_answer_cites_what_it_rests_on(client, alice, harbour):
    asked = {
        "question": "When does the harbour office open?",
        "mode": "extractive",
        "weights": {"text": 1, "vector": 0.5},
    }
    reply = client.post("/ask/question", json=asked, headers=alice.headers)
    assert reply.status_code == 200
    body = reply.json()
    assert set(body) == REPLY
    assert set(body["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert (body["answered"], body["mode"], body["finish_reason"]) == (True, "extractive", "stop")
    assert [citation["n"] for citation in body["citations"]] == [1]
    assert set(body["citations"][0]) == HIT | {"n"}
    assert "total" in body["timings"]
    assert "search;dur=" in reply.headers["server-timing"]


def test_ready_names_every_part_and_no_host(client):
    wiring.space()
    reply = client.get("/health/ready")
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["status"] == "ok"
    assert set(body["checks"]) == {"users", "catalog", "index", "embedder", "generator"}
    assert all(set(check) == {"status", "ms"} for check in body["checks"].values())
    assert {name: check["status"] for name, check in body["checks"].items()} == {
        **dict.fromkeys(("users", "catalog", "index", "embedder"), "ok"),
        "generator": "none",
    }


def raising(error):
    def part(*_args, **_kwargs):
        raise error

    return part


@pytest.mark.parametrize(
    ("broken", "status", "overall"),
    [("index", 503, "failed"), ("catalog", 503, "failed"), ("generator", 200, "degraded")],
)
def test_ready_fails_only_for_what_answers_need(client, monkeypatch, broken, status, overall):
    checks = {name: lambda: "ok" for name in ("users", "catalog", "index", "embedder", "generator")}
    checks[broken] = raising(DependencyFailed("search.internal.example refused", dependency=broken))
    monkeypatch.setattr(wiring, "checks", lambda: checks)
    reply = client.get("/health/ready")
    assert (reply.status_code, reply.json()["status"]) == (status, overall)
    assert reply.json()["checks"][broken]["status"] == "failed"
    assert "internal.example" not in reply.text


def test_while_the_embedder_loads_readiness_says_so(client, monkeypatch):
    monkeypatch.setattr(wiring, "checks", lambda: {"embedder": lambda: "loading", "generator": lambda: "loading"})
    reply = client.get("/health/ready")
    assert (reply.status_code, reply.json()["status"]) == (503, "loading")


def test_a_model_that_cannot_be_had_leaves_what_was_sent_in_the_queue_and_is_told_in_few_words(
    client, alice, monkeypatch
):
    broken = Background(raising(ModelError("/secret/place/model.bin has the wrong hash")), name="embedder")
    monkeypatch.setattr(wiring, "_space", broken)
    reply = client.post("/training/train", json={"texts": [HARBOUR]}, headers=alice.headers)
    assert reply.status_code == 202
    (document,) = reply.json()["documents"]
    assert (document["state"], document["error"]) == ("queued", "the model is not available now")
    (listed,) = client.get("/documents", headers=alice.headers).json()["documents"]
    assert (listed["state"], listed["error"], listed["generation"]) == ("queued", document["error"], None)
    problem = checked(client.post("/search", json={"query": "anything"}, headers=alice.headers), 503)
    assert (problem["code"], problem["detail"]) == ("model", "the model is not available now")


def test_a_full_queue_says_when_to_come_back(client, alice, monkeypatch):
    ask = SimpleNamespace(events=raising(Busy("4 questions wait for the model", retry_after=7)))
    monkeypatch.setattr(wiring, "ask", lambda: ask)
    reply = client.post("/ask/question", json={"question": "Anything?"}, headers=alice.headers)
    assert checked(reply, 503)["code"] == "busy"
    assert reply.headers["retry-after"] == "7"


def test_a_failed_dependency_is_named_by_its_part_only(client, alice, monkeypatch):
    error = DependencyFailed("connection to search.internal.example:9200 refused", dependency="index")
    monkeypatch.setattr(wiring, "search", lambda: raising(error))
    reply = client.post("/search", json={"query": "anything"}, headers=alice.headers)
    assert checked(reply, 503)["detail"] == "the index is not available now"
    assert "internal.example" not in reply.text


def test_shared_documents_are_read_but_not_deleted(client, alice):
    document = NewDocument("shared-notes", "Everyone may read this.")
    wiring.ingest().train("shared", [document], chunking=Chunking())
    assert client.get("/documents/shared-notes", headers=alice.headers).json()["state"] == "ready"
    hits = client.post("/search", json={"query": "everyone read"}, headers=alice.headers).json()["hits"]
    assert [hit["doc_id"] for hit in hits] == ["shared-notes"]
    checked(client.delete("/documents/shared-notes", headers=alice.headers), 404)
